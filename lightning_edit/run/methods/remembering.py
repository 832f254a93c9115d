"""What writes the updates of a memory editor: it learns edits and keeps them beside a layer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite, log
from typing import Any

import torch
from torch import Tensor

from lightning_edit.gradients.statistics import Statistics
from lightning_edit.memories.entries import tensors_of
from lightning_edit.memories.learning import Descent, find_outputs, look, train_memory
from lightning_edit.memories.memoir import Memoir, MemoirClosed
from lightning_edit.memories.memory import Entry
from lightning_edit.memories.wrapped import Memories
from lightning_edit.messages import counted
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen
from lightning_edit.models.out_of_memory import halving
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.run.methods.fine_tuning import encode_answer, target_nll
from lightning_edit.solvers import Factors, PreviousKeys
from lightning_edit.solvers.anchors import Memory as Remembered
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.written import Written

logger = logging.getLogger(__name__)

# In nats a token: another token is likelier than the answer's then, or could be.
FAR = log(2)


@dataclass
class Remembering:
    """Learns edits and takes them up in a memory.

    Args:
        memories: The memory, on the model.
        decoder: The model.
        tokenizer: Its fast tokenizer.
        layer: The layer that the memory is beside.
        how: How an edit is learned.
        cold: Whether a value begins at random, and not at the layer's own output.
        seed: Of what is drawn.
        train_end: Whether answers end, see `encode_answer`.
        at_once: How many edits are learned together, where they do not depend on each other.
        info: What made the edits.
        losses: The least loss of each edit so far, in nats a token.
    """

    memories: Memories
    decoder: Decoder
    tokenizer: Any
    layer: int
    how: Descent
    cold: bool
    seed: int
    train_end: bool
    at_once: int
    info: dict[str, Any]
    losses: list[float] = field(default_factory=list)
    previous_keys: dict[int, PreviousKeys] | None = None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)

    @property
    def anchored(self) -> dict[int, Remembered]:
        """What is remembered beside the layer: the tensors of all edits."""
        return {self.layer: tensors_of(self.memories.memory)}

    @anchored.setter
    def anchored(self, remembered: Mapping[int, Remembered]) -> None:
        """Goes back to fewer edits, and answers with them."""
        self.memories.memory.forget_after(edits_in(remembered.get(self.layer, {})))
        self.memories.active = True

    def write(
        self, requests: Sequence[EditRequest], z: Tensor, measured: bool = True, report: Report = silent
    ) -> Written:
        """Learns edits; those of MEMOIR one after the other, as each builds upon those before.

        Args:
            requests: The edits.
            z: Not looked at.
            measured: Whether to measure the update.
            report: Called with the number of edits done.

        Returns:
            An update without factors, with ``memories/nll``, the mean of the least losses in nats a token. Edits whose
            loss is never finite are left out of both: nothing was learned of them.
        """
        memory, model, one_by_one = self.memories.memory, self.decoder.model, self._one_by_one
        size, losses = 1 if one_by_one else self.at_once, list[float]()
        for start in range(0, len(requests), size):
            part = requests[start : start + size]
            # Also for a measurement in between, which takes no gradients itself.
            with torch.enable_grad():
                for found, least in halving(self._train if one_by_one else self.learn_outputs, part, model):
                    memory.add(entry for entry, loss in zip(found, least, strict=True) if isfinite(loss))
                    losses += least
            report("memories (edits)", start + len(part), len(requests))
        learned = [loss for loss in losses if isfinite(loss)]
        if measured:
            self.losses += learned
        figures = {"memories/nll": sum(learned) / len(learned)} if measured and learned else {}
        return Written(figures=figures, left_out=tuple(i for i, loss in enumerate(losses) if not isfinite(loss)))

    def finish(self) -> dict[int, Factors]:
        """Nothing is added after the last update; says how many edits were hardly learned."""
        far = sum(loss > max(FAR, self.how.enough) for loss in self.losses)
        if far:
            logger.warning(
                "%d of %s: the loss stayed above %.2g nats a token, at which the model hardly gives the answer. Raise "
                "`steps`, or try another `lr`.",
                far,
                counted(len(self.losses), "edit"),
                max(FAR, self.how.enough),
            )
        return {}

    def release(self, keys: dict[int, Tensor]) -> None:
        """No edit replaces another."""

    def describe(self) -> dict[str, Any]:
        """What made the edits."""
        return self.info

    # -- learning ------------------------------------------------------------------------------------------------------

    @property
    def _one_by_one(self) -> bool:
        memory = self.memories.memory
        return isinstance(memory, Memoir) and not isinstance(memory, MemoirClosed)

    def learn_outputs(self, requests: Sequence[EditRequest]) -> tuple[list[Entry], list[float]]:
        """What the layer should give at the last token of each prompt; for MEMOIR also 0 at the edit's other tokens.

        Args:
            requests: Edits that are learned together.

        Returns:
            What is to be stored of them, and the least loss of each in nats a token.
        """
        memory = self.memories.memory
        encoded = [encode_answer(self.tokenizer, request, self.train_end) for request in requests]
        last = [start - 1 for _, start in encoded]
        loss = partial(target_nll, self.decoder, self.tokenizer, requests, self.train_end)
        with self.memories.paused(), frozen(self.decoder.model):
            seen = look(self.decoder, self.layer, loss, len(requests))
            now = seen.output[range(len(last)), last]
            start = torch.stack([self.drawn(request) for request in requests]).to(now) if self.cold else now
            found, least = find_outputs(self.decoder, self.layer, loss, last, start, self.how)
        entries = []
        for row, (request, (ids, _), place) in enumerate(zip(requests, encoded, last, strict=True)):
            tensors = {"key": seen.keys[row, place], "value": found[row]}
            if isinstance(memory, Memoir):
                tensors = _missing(memory, seen.keys[row, : len(ids) - 1], place, found[row] - now[row])
            entries.append(_entry(request, tensors))
        return entries, least.tolist()

    def drawn(self, request: EditRequest) -> Tensor:
        """Where a value begins; the edit alone decides, not what else is learned with it.

        Args:
            request: The edit.
        """
        name = fingerprint(str(self.seed), request.rewrite_prompt, request.learned)
        generator = torch.Generator().manual_seed(int(name[:15], 16))
        return torch.rand(len(self.decoder.weight(self.layer)), generator=generator)

    def _train(self, requests: Sequence[EditRequest]) -> tuple[list[Entry], list[float]]:
        """The next part of W_m, for one edit after all earlier ones."""
        memory, (request,) = self.memories.memory, requests
        assert isinstance(memory, Memoir)
        _, start = encode_answer(self.tokenizer, request, self.train_end)
        loss = partial(target_nll, self.decoder, self.tokenizer, requests, self.train_end)
        with self.memories.paused(), frozen(self.decoder.model):
            mask = memory.mask(look(self.decoder, self.layer, loss, 1).keys[0, start - 1])
            tensors, least = train_memory(self.decoder, self.layer, loss, memory, mask, self.how)
        return [_entry(request, tensors)], [least]


def edits_in(remembered: Remembered) -> int:
    """How many edits there are in the tensors of a memory.

    Args:
        remembered: See `tensors_of`.
    """
    places = [int(name.rpartition(".")[2]) for name in remembered if "." in name]
    return max(places, default=-1) + 1


def named(request: EditRequest) -> tuple[str, str]:
    """How a memory calls an edit, and its label.

    Args:
        request: The edit.
    """
    return str(request.case_id or request.rewrite_prompt), request.target_new


def _missing(memory: Memoir, keys: Tensor, last: int, offset: Tensor) -> dict[str, Tensor]:
    """What W_m should give for the keys of an edit: ``offset`` at the prompt's last token, nothing at the others."""
    values = offset.new_zeros(len(keys), len(offset))
    values[last] = offset
    return {"mask": memory.mask(keys[last]), "keys": keys, "values": values}


def _entry(request: EditRequest, tensors: Mapping[str, Tensor]) -> Entry:
    on_cpu = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return Entry(*named(request), on_cpu)
