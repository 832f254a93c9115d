"""A clean run and corrupted ones of the same text, and what becomes of the answer when a part is put back.

What no restoration can change is run once: the tokens before the subject, which see no noise, and the blocks under the
restored one, whose corrupted states are known.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.find_sites import mixers
from lightning_edit.models.finding.sites import output_size
from lightning_edit.models.hooks import by_position, capture_output, change_output, logits_at, resume_from
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.prefix_cache import cache_texts
from lightning_edit.tracing.settings import KINDS, Kind

# Most tokens of a pass, and most numbers in its logits.
MAX_TOKENS, MAX_LOGITS = 8192, 2**26


def added_by(decoder: Decoder, kind: Kind, layer: int) -> list[nn.Module]:
    """The modules whose output is what a kind of part adds to the hidden state at a layer.

    Of attention that is its last map onto the hidden units, since some models add the hidden state within the attention
    module. For ``state`` it is the block itself.

    Args:
        decoder: The model.
        kind: What is restored.
        layer: Where.

    Raises:
        EditError: If the MLP of the layer was not found.
    """
    block = decoder.blocks[layer]
    if kind == "state":
        return [block]
    if kind == "mlp":
        if layer in decoder.refusals:
            raise EditError(f"The MLP of layer {layer} cannot be traced: {decoder.refusals[layer]}")
        return [decoder.down_projection(layer)]
    hidden = decoder.model.config.get_text_config().hidden_size
    mixing = mixers(block)
    inner = {id(part) for module in mixing for part in module.modules() if part is not module}
    outermost = [module for module in mixing if id(module) not in inner]
    return [_last_onto(module, hidden) for module in outermost]


def _last_onto(module: nn.Module, hidden: int) -> nn.Module:
    maps = [part for part in module.modules() if output_size(part) == hidden]
    return maps[-1] if maps else module


class Runs:
    """The clean run and the corrupted runs of a text, kept to be resumed.

    Args:
        decoder: The model, frozen and in evaluation mode.
        text: A prompt and its answer.
        noise: ``(samples, subject tokens, d_model)``, added to the subject's embeddings.
        kinds: What is going to be restored.

    Attributes:
        clean: Probability of the answer.
        corrupted: Its mean over the samples with noise.

    Raises:
        EditError: If a layer of the model keeps a state that a pass cannot be resumed from.
    """

    @torch.no_grad()
    def __init__(self, decoder: Decoder, text: Encoded, noise: Tensor, kinds: Sequence[Kind] = KINDS) -> None:
        if not decoder.resumption.prefixes or not all(map(decoder.resumption.after, range(len(decoder.blocks)))):
            raise EditError(
                f"{type(decoder.model).__name__} cannot be traced: its passes cannot be resumed from attention's keys "
                "and values alone, as some of its layers keep or hand on a state of another kind."
            )
        self.decoder, self.text = decoder, text
        self.samples = len(noise)
        self.noise = torch.cat([torch.zeros_like(noise[:1]), noise])
        # The last token of the answer is predicted and never read.
        self.suffix = torch.tensor(text.ids[text.subject_first : -1], device=decoder.device)
        self.targets = torch.tensor(text.ids[text.target_start :], device=decoder.device)
        self.cache = cache_texts(decoder.model, [text.ids[: text.subject_first]], len(decoder.blocks), decoder.device)
        modules = {
            (kind, layer): added_by(decoder, kind, layer)
            for kind in ("state", *kinds)
            for layer in range(len(decoder.blocks))
        }
        with ExitStack() as stack:
            captured = {
                key: [stack.enter_context(capture_output(module)) for module in those] for key, those in modules.items()
            }
            stack.enter_context(self._noisy(torch.arange(1 + self.samples)))
            probabilities = self._probabilities(1 + self.samples, 0)
        self.clean, self.corrupted = float(probabilities[0]), float(probabilities[1:].mean())
        self._outputs = [captured["state", layer][0].output for layer in range(len(decoder.blocks))]
        self._states = [captured["state", layer][0].value for layer in range(len(decoder.blocks))]
        # Copies, as a view would keep the corrupted rows as well.
        self._clean = {
            key: [
                (module, by_position(one.value, 1 + self.samples)[0].clone())
                for module, one in zip(modules[key], those, strict=True)
            ]
            for key, those in captured.items()
        }

    def restored(self, kind: Kind, layers: range, columns: Sequence[int]) -> Tensor:
        """The mean probability of the answer with a part of the clean run put back into the corrupted ones.

        Args:
            kind: What is put back.
            layers: At which layers, all of them at once.
            columns: At which tokens of the text, one at a time; none before the subject.

        Returns:
            ``(columns,)`` in float64.
        """
        first = self.text.subject_first
        rows = [(column - first, sample) for column in columns for sample in range(1, 1 + self.samples)]
        at_once = max(1, min(MAX_TOKENS // len(self.suffix), MAX_LOGITS // (len(self.targets) * self._vocabulary)))
        probabilities: list[Tensor] = []
        for start in range(0, len(rows), at_once):

            def run(part: Sequence[tuple[int, int]]) -> Tensor:
                return self._run(kind, layers, *torch.tensor(part).unbind(1))

            probabilities += halving(run, rows[start : start + at_once], self.decoder.model)
        return torch.cat(probabilities).view(len(columns), self.samples).mean(1)

    @torch.no_grad()
    def _run(self, kind: Kind, layers: range, columns: Tensor, samples: Tensor) -> Tensor:
        """``(rows,)`` probabilities, each row with the noise of its sample and the clean values at its column."""
        known = layers.stop if kind == "state" else layers.start
        rows, blocks = len(samples), list(self.decoder.blocks[:known])

        def put_back(clean: Tensor, states: Tensor) -> Tensor:
            changed = by_position(states, rows).clone()
            at = columns.to(changed.device)
            changed[torch.arange(rows, device=changed.device), at] = clean[at]
            return changed.reshape(states.shape)

        with ExitStack() as stack:
            if known:
                state = self._states[known - 1]
                hidden = by_position(state, 1 + self.samples)[samples.to(state.device)]
                if kind == "state":
                    hidden = put_back(self._clean[kind, known - 1][0][1], hidden)
                stack.enter_context(resume_from(blocks, self._outputs[known - 1], hidden))
            else:
                stack.enter_context(self._noisy(samples))
            for layer in layers if kind != "state" else ():
                for module, clean in self._clean[kind, layer]:
                    stack.enter_context(change_output(module, partial(put_back, clean)))
            return self._probabilities(rows, known)

    def _noisy(self, samples: Tensor) -> AbstractContextManager[None]:
        noise = self.noise[samples]

        def add(embeddings: Tensor) -> Tensor:
            subject = embeddings[:, : noise.shape[1]]
            noisy = (subject.double() + noise.to(subject.device)).to(subject.dtype)
            return torch.cat([noisy, embeddings[:, noise.shape[1] :]], dim=1)

        return change_output(self.decoder.model.get_input_embeddings(), add)

    @property
    def _vocabulary(self) -> int:
        return int(self.decoder.model.config.get_text_config().vocab_size)

    def _inputs(self, rows: int, known: int) -> dict[str, Any]:
        """Keyword arguments of a pass over what follows the cached prefix, in so many rows."""
        length, before = len(self.suffix), self.cache.length
        positions = torch.arange(before, before + length, device=self.suffix.device)
        spread = self.cache.keep_from(known).spread(torch.zeros(rows, dtype=torch.long, device=self.suffix.device))
        return {
            "input_ids": self.suffix.expand(rows, length),
            "attention_mask": torch.ones(rows, before + length, dtype=torch.long, device=self.suffix.device),
            "position_ids": positions.expand(rows, length),
            **spread.inputs(),
        }

    def _probabilities(self, rows: int, known: int) -> Tensor:
        """``(rows,)`` probability of the whole answer in float64, on the CPU."""
        steps, length = len(self.targets), len(self.suffix)
        columns = torch.arange(length - steps, length).repeat(rows)
        with logits_at(self.decoder.head, torch.arange(rows).repeat_interleave(steps), columns):
            logits = self.decoder.model(**self._inputs(rows, known)).logits[0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).view(rows, steps, -1)
        targets = self.targets.to(logits.device).expand(rows, steps)[..., None]
        return logits.log_softmax(-1).gather(-1, targets).sum((1, 2)).double().exp().cpu()
