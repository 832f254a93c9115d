"""The trace of one fact: how much of its answer each restored state brings back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import short_texts
from lightning_edit.models.hooks import frozen
from lightning_edit.progress import Report, silent
from lightning_edit.tracing.facts import Fact, encode_fact
from lightning_edit.tracing.noise import draw_noise
from lightning_edit.tracing.runs import Runs
from lightning_edit.tracing.settings import KINDS, Kind, TracingSettings


@dataclass(frozen=True)
class Trace:
    """What restoring each part of a clean run does to the probability of the answer.

    Args:
        fact: The fact.
        answer: The answer whose probability it is.
        tokens: The prompt's tokens as text.
        subject: Indices of the subject's tokens.
        clean: Probability of the answer in the clean run.
        corrupted: The same with noise on the subject, the mean over samples.
        restored: For each kind of part ``(tokens, layers)`` the mean probability with that part put back; what was not
            asked for is not a number. Before the subject nothing is corrupted, so nothing is brought back.
    """

    fact: Fact
    answer: str
    tokens: tuple[str, ...]
    subject: range
    clean: float
    corrupted: float
    restored: dict[Kind, Tensor]

    def effect(self, kind: Kind) -> Tensor:
        """The indirect effect ``(tokens, layers)``: how much restoring adds to the corrupted probability.

        Args:
            kind: A kind that was traced.
        """
        return self.restored[kind] - self.corrupted


def trace_fact(
    decoder: Decoder,
    tokenizer: Any,
    fact: Fact,
    std: float,
    settings: TracingSettings | None = None,
    kinds: Sequence[Kind] = KINDS,
    only_subject_end: bool = False,
    report: Report = silent,
) -> Trace:
    """Traces a fact through a model (ROME, section 2.1).

    With noise on the subject's embeddings the model no longer knows the answer. For each token and layer one part of
    the clean run is put back, and the probability that the answer regains says how much that part carries.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        fact: The fact.
        std: Standard deviation of the embeddings of subjects, see `embedding_std`.
        settings: See `TracingSettings`.
        kinds: What is restored: hidden states one by one, MLPs and attentions in windows of layers.
        only_subject_end: Whether to restore the subject's last token alone.
        report: Called with the number of finished layers.

    Raises:
        EditError: If the text does not fit the model's context, or a layer's MLP cannot be traced.
    """
    settings = settings or TracingSettings()
    text = encode_fact(decoder, tokenizer, fact)
    depth, first = len(decoder.blocks), text.subject_last if only_subject_end else text.subject_first
    columns = range(first, text.subject_last + 1 if only_subject_end else text.target_start)
    with frozen(decoder.model), short_texts(decoder):
        width = decoder.model.get_input_embeddings().weight.shape[1]
        noise = draw_noise(text, settings.samples, width, settings.noise * std, settings.seed)
        runs = Runs(decoder, text, noise, kinds)
        restored = {}
        for place, kind in enumerate(kinds):
            figures = torch.full((text.target_start, depth), torch.nan, dtype=torch.float64)
            figures[: text.subject_first] = runs.corrupted
            for layer in range(depth):
                figures[columns, layer] = runs.restored(kind, settings.layers_around(layer, depth, kind), columns)
                report("trace (layers)", place * depth + layer + 1, len(kinds) * depth)
            restored[kind] = figures
    return Trace(
        fact,
        fact.answer or tokenizer.decode(list(text.ids[text.target_start :])).strip(),
        tuple(tokenizer.batch_decode([[token] for token in text.ids[: text.target_start]])),
        range(text.subject_first, text.subject_last + 1),
        runs.clean,
        runs.corrupted,
        restored,
    )
