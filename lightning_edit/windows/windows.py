"""AnyEdit: values for the windows of a long answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch

from lightning_edit.asking.chat import World
from lightning_edit.asking.tokenization import WITH_TEMPLATES, check_lengths
from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Asked, Pairs, Source
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates, asked_in
from lightning_edit.messages import listed
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.settings import AMOUNT, Count, CountOrZero
from lightning_edit.solvers import MEMIT, Solver
from lightning_edit.values.memory import DOUBLE, values_memory
from lightning_edit.values.vectors import Values
from lightning_edit.windows.pairs import WindowPairs
from lightning_edit.windows.search import window_values
from lightning_edit.windows.texts import WindowedText, cut


@dataclass(frozen=True)
class Windows(Source):
    """Values for the windows of a long answer, each at the token before its window (AnyEdit).

    One value cannot hold an answer of a paragraph. The answer is cut into windows, and for window j, at the last token
    before it, a delta is searched for with which the model says the window, the text before it given and the deltas of
    the windows before it in their places:

        NLL(window j) + weight_decay |delta_j| / |z0_j|^2

    by the settings of any search (`values`), but without a KL prompt. The solver then writes all of them, so there are
    as many keys as windows, and several an edit. Windows of one edit follow each other, those of different edits run
    together. No edit needs a subject.

    AnyEdit (Jiang et al., 2025, arXiv 2502.05628) is this with the solver `MEMIT`. Prefer it for answers of several
    sentences. Instead: a search at the subject (no source) for answers of a few words, which holds in other wordings.
    """

    window: Count = 40
    """Tokens of a window (40 as published)."""

    overlap: CountOrZero = 0
    """How many tokens of a window are those with which the one before ends (0 as published)."""

    preserve_text: bool = True
    """Whether an update preserves what is answered at all other tokens of its texts: K_p K_p^T is added to C'."""

    train_end: bool = True
    """Whether the end of the assistant's turn is part of the answer in a chat; also with `chat_settings.train_end`."""

    at_once: Annotated[Count, AMOUNT] = 32
    """Texts whose windows are searched for together; changes memory and speed, and results by rounding alone."""

    needs_subject: ClassVar[bool] = False
    searches: ClassVar[bool] = True
    usual_solver: ClassVar[type[Solver]] = MEMIT
    keys_of: ClassVar[str] = "one for each window of an answer"

    def __post_init__(self) -> None:
        if self.overlap >= self.window:
            raise EditError(
                f"`source.overlap` must be less than `source.window` ({self.window}), got {self.overlap}: each window "
                "must begin behind the one before."
            )

    def check(
        self, tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, decoder: Decoder
    ) -> None:
        """Refuses texts that do not fit the context, and answers of a single token; see `Source.check`."""
        texts = self._texts(tokenizer, requests, templates)
        names = [f"{requests[text.owner].name} with its answer" for text in texts]
        check_lengths([len(text.ids) for text in texts], names, decoder.context, WITH_TEMPLATES)
        for request in requests:
            for world in templates.worlds:
                alone = replace(templates, worlds=(world,), train_end=False)
                if any(len(ids) - start < 2 for ids, start in alone.answered(tokenizer, request)):
                    raise EditError(_single(request, world))

    def check_places(self, decoder: Decoder, places: Sequence[int], statistics: Mapping[str, Statistics]) -> None:
        """Any place at which a value can be searched for will do; see `Source.check_places`."""

    def memory(self, asked: Asked) -> tuple[int, int]:
        """The search for some windows at once, and the keys of all tokens; see `Source.memory`."""
        decoder, values, highest = asked.decoder, asked.values, asked.places[-1]
        texts = self._texts(asked.tokenizer, asked.requests, asked.templates)
        # At the last windows of the longest texts the most stands before them.
        longest = sorted(texts, key=lambda text: -len(text.ids))[: self.at_once]
        rows = [(row, text.up_to(len(text.windows) - 1)) for row, text in enumerate(longest)]
        tokens = sum(len(text.ids) for text in texts) if self.preserve_text else 0
        kept = DOUBLE * tokens * max(decoder.key_size(place) for place in asked.places)
        return sum(len(text.windows) for text in texts), values_memory(decoder, highest, values.site, rows) + kept

    def find(self, asked: Asked, statistics: Mapping[str, Statistics], report: Report = silent) -> Pairs:
        """Values of all windows; their keys are those of the model at the time when a layer is written."""
        decoder, values, highest = asked.decoder, asked.values, asked.places[-1]
        texts = self._texts(asked.tokenizer, asked.requests, asked.templates)
        found = window_values(decoder, texts, highest, values, self.at_once, asked.shown_by(report))
        _check_finite(found, texts, asked.requests)
        owners = tuple(text.owner for text in texts for _ in text.windows)
        z = torch.cat([of_text.z for of_text in found])
        named = tuple(asked.requests[owner] for owner in owners)
        return WindowPairs(decoder, texts, named, z, highest, values.site, self.preserve_text, owners)

    def _texts(
        self, tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates
    ) -> list[WindowedText]:
        """Each edit in all of its contexts."""
        templates = replace(templates, train_end=self.train_end or templates.train_end)
        return [
            cut(ids, start, self.window, self.overlap, owner)
            for owner, request in enumerate(requests)
            for ids, start in templates.answered(tokenizer, request)
        ]


def _single(request: EditRequest, world: World) -> str:
    """What is said of an answer of a single token."""
    answer, asked = asked_in(world, request).learned, request.original is not None
    where = {"chat": " in a chat", "plain": " in plain text"}[world] if asked else ""
    chat = "edit in the chat alone (`chat_settings.contexts: [chat]`), " if asked and world == "plain" else ""
    return (
        f"{request.name}: the answer {answer!r}{where} is a single token, and there is nothing to cut into windows. "
        f"Give a longer answer, {chat}leave `source` out, which finds one value at the subject, or take values from "
        "gradients (`source: Gradient`)."
    )


def _check_finite(found: Sequence[Values], texts: Sequence[WindowedText], requests: Sequence[EditRequest]) -> None:
    bad = {text.owner for text, values in zip(texts, found, strict=True) if not bool(values.finite.all())}
    if bad:
        names = listed([requests[owner].name for owner in sorted(bad)])
        raise EditError(
            f"The loss of {names} is not a finite number, so nothing was written. Lower `values.lr` (with `descent` "
            "`values.radius`), load the model in float32 or bfloat16, or leave these edits out."
        )
