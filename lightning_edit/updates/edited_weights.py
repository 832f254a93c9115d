"""The edited weights of one model: what they were, and what was added to them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_edit.distributed.process_group import is_sharded
from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.solvers import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.levels import Level, levels_of, on
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.sums import add_factors, write_weight


class EditedWeights:
    """The edited weights of one model: what they were, and the sum of all that was added since.

    A weight is always written as cast(base + sum), so rounding does not build up over updates. Of a model that is
    divided between processes each keeps its part of the base, and all of them must do the same at the same time.

    Args:
        decoder: The model.
        layers: The layers that may be edited.
        known: For layers that hold updates already, the level of these.

    Attributes:
        base: For each layer the unedited weight ``(d_out, d_in)``, as a whole; of E experts ``(d_out, E d_in)``.
        sample: `sample_of` the unedited model, of which updates tell; None where it is not known.
    """

    def __init__(self, decoder: Decoder, layers: Sequence[int], known: Mapping[int, Level] | None = None) -> None:
        self.decoder = decoder
        self.sample: str | None = None
        known = known or {}
        self._base = {layer: known[layer].base if layer in known else self._copy(layer) for layer in layers}
        self.base: Mapping[int, Tensor] = _Whole(self._base)
        sums = {layer: level.total for layer, level in known.items()}
        self.added: dict[int, Factors] = {layer: total for layer, total in sums.items() if total is not None}
        # Asked for by the first process alone, which could not gather a weight then.
        self._fingerprints = {layer: fingerprint(base) for layer, base in self._base.items()}

    def add(self, layer: int, factors: Factors) -> None:
        """Adds an update to a layer's weight."""
        before = self.added.get(layer)
        total = factors if before is None else add_factors(on(before, factors.left.device), factors)
        self.added[layer] = on(total, torch.device("cpu")) if self._waits else total
        self._write(layer)

    def set(self, added: dict[int, Factors]) -> None:
        """Makes the weights base plus the given sums, whatever they were.

        Args:
            added: For each edited layer the sum of its updates; layers that are not there become base.
        """
        self.added = dict(added)
        for layer in self._base:
            self._write(layer)

    def base_fingerprint(self, layer: int) -> str:
        """The hash of a layer's unedited weight."""
        return self._fingerprints[layer]

    def has_experts(self, layer: int) -> bool:
        """Whether a layer's weight is that of several experts."""
        return self.decoder.experts(layer) > 0

    def _weight(self, layer: int) -> Tensor:
        return oriented_weight(self.decoder.down_projection(layer)).detach()

    @property
    def _waits(self) -> bool:
        """Whether what is not at work is kept on the CPU; parts of divided weights are gathered where they lie."""
        return self.decoder.memory == "low" and not is_sharded(self.decoder.model)

    @property
    def bases(self) -> Mapping[int, Tensor]:
        """For each layer the unedited weight in its own form, as an update keeps it."""
        return self._base

    def _copy(self, layer: int) -> Tensor:
        weight = self._weight(layer)
        return weight.to("cpu", copy=True) if self._waits else weight.clone()

    def _write(self, layer: int) -> None:
        weight = self._weight(layer)
        base = self._base[layer].to(weight.device)
        if layer in self.added:
            write_weight(weight, base, on(self.added[layer], weight.device) if self._waits else self.added[layer])
        else:
            with torch.no_grad():
                weight.copy_(base)

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Gives back the weights as they were at the start of the block if it fails."""
        before = dict(self.added)
        try:
            yield
        except BaseException:
            self.set(before)
            raise

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Gives back the weights as they were at the start of the block, bit for bit, error or not."""
        before = dict(self.added)
        tensors = {layer: self._copy(layer) for layer in self._base}
        try:
            yield
        finally:
            self.added = before
            with torch.no_grad():
                for layer, tensor in tensors.items():
                    self._weight(layer).copy_(tensor)

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """The model without any edit, inside a ``with`` block."""
        with self.restored():
            self.set({})
            yield

    def take(self) -> dict[int, Factors]:
        """Takes out all that was added and returns it."""
        added = self.added
        self.set({})
        return added

    def described(self, layer: int, factors: Factors) -> LayerUpdate:
        """An update of a layer's unedited weight, with what tells that weight from others.

        Args:
            layer: The layer.
            factors: What is added to it.
        """
        shown = self.decoder.shown(layer) if layer >= len(self.decoder.blocks) else ""
        return LayerUpdate(self.decoder.names[layer], self.base_fingerprint(layer), factors, shown)

    @property
    def described_model(self) -> dict[str, str]:
        """What an update's file tells of the unedited model, beside the weights that it edits."""
        return {} if self.sample is None else {"model_sample": self.sample}

    def update(self, **info: Any) -> ModelUpdate:
        """All that was added, as an update that is inserted in the model.

        Args:
            **info: Written with it.
        """
        layers = {layer: self.described(layer, factors) for layer, factors in sorted(self.added.items())}
        update = ModelUpdate(layers, info | self.described_model)
        for layer in layers:
            levels_of(self.decoder.down_projection(layer)).stack.clear()
        update.register(self.decoder.model, self._base)
        return update


class _Whole(Mapping[int, Tensor]):
    """Tensors that are gathered when they are looked at."""

    def __init__(self, tensors: Mapping[int, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, layer: int) -> Tensor:
        return whole(self._tensors[layer]).flatten(1)

    def __iter__(self) -> Iterator[int]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
