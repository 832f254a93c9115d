"""The update of a model as low-rank factors: inserted, removed, added up, saved and loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from lightning_edit.distributed.sharded_weights import whole, write_whole
from lightning_edit.errors import EditError
from lightning_edit.models.sites import oriented_weight
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.numbers import refuse_not_finite, to_json
from lightning_edit.storage.tensor_form import checksum, read_tensors, write_tensors
from lightning_edit.updates.layer_update import LayerUpdate, layer_update
from lightning_edit.updates.update_form import described
from lightning_edit.updates.update_tensors import factors_of

FORMAT = "lightning-edit update 2"
# Without checksums.
FIRST_FORMAT = "lightning-edit update 1"
ALIGNMENT = 64
# How far two sums of the same products in float64 may be apart, relative to the largest.
SAME_SUM = 1e-12


def dense_update(factors: Factors) -> Tensor:
    """Delta ``(d_out, d_in)``, the same bits whether the factors come from a solver or from a file.

    Args:
        factors: The update.
    """
    if factors.right is None:
        return factors.left
    return _as_allocated(factors.left) @ _as_allocated(factors.right)


def _as_allocated(tensor: Tensor) -> Tensor:
    # A matrix product rounds differently for a transposed or an unaligned operand of the same numbers.
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def add_factors(first: Factors, second: Factors) -> Factors:
    """The sum of two updates of one weight, dense as soon as the factors would take more room.

    Args:
        first: An update ``(d_out, d_in)``.
        second: Another of the same shape.
    """
    if first.right is None or second.right is None:
        return Factors(dense_update(first) + dense_update(second))
    rank = len(first.right) + len(second.right)
    d_out, d_in = len(first.left), first.right.shape[1]
    if rank * (d_out + d_in) > d_out * d_in:
        return Factors(dense_update(first) + dense_update(second))
    return Factors(torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right]))


@dataclass(repr=False)
class ModelUpdate:
    """The updates of all edited layers of a model.

    Args:
        layers: For each edited layer its update.
        info: What made it (solver, number of edits, base model ...), written into the file as JSON.
    """

    layers: dict[int, LayerUpdate]
    info: dict[str, Any] = field(default_factory=dict)
    _originals: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """What it is, without its numbers."""
        said = [f"{name}={self.info[name]}" for name in ("edits", "solver", "model") if name in self.info]
        return f"{type(self).__name__}({', '.join([f'layers={sorted(self.layers)}', *said])})"

    @property
    def is_inserted(self) -> bool:
        """Whether it is in a model: `insert` was called on this object, and `remove` was not since then."""
        return bool(self._originals)

    def insert(self, model: Any) -> None:
        """Adds the update to the model's weights: W <- cast(W + Delta), the sum in float64.

        Args:
            model: The model the update was made for.

        Raises:
            EditError: If a weight is not there or not the one the update was made for; nothing is changed then.
        """
        self.check(model)
        self._check_factors(model)
        for layer, update in self.layers.items():
            weight = self._weight(model, update)
            self._originals[layer] = weight.detach().clone()
            write_weight(weight, self._originals[layer], update.factors)

    def check(self, model: Any) -> None:
        """Refuses a model other than the one the update was made for.

        Args:
            model: The unedited model.

        Raises:
            EditError: If a weight is not there or not the one the update was made for.
        """
        for layer, update in self.layers.items():
            if fingerprint(self._weight(model, update)) != update.base:
                raise EditError(
                    f"Layer {update.shown(layer)} ({update.module}) holds other weights than the update was made for"
                    f"{self._made_for}. Load that model, in the same precision and without earlier edits."
                )

    def _check_factors(self, model: Any) -> None:
        """Refuses an update that is not finite, or not of the shape of its weights."""
        for layer, update in self.layers.items():
            factors = {"left": update.factors.left, "right": update.factors.right}
            given = {
                f"the {side} factor of layer {update.shown(layer)}": t for side, t in factors.items() if t is not None
            }
            refuse_not_finite(given, "The update")
            shape, weight = update.factors.shape, self._weight(model, update).shape
            if shape != (weight[0], weight[1:].numel()):
                raise EditError(
                    f"The update of layer {update.shown(layer)} ({update.module}) has the shape {shape}, the weight "
                    f"{tuple(weight)}: the file of the update is not what was written."
                )

    def remove(self, model: Any, base: Any = None) -> None:
        """Gives the weights back as they were before `insert`, bit for bit.

        A rounded sum cannot be undone by subtraction, so the old weights are kept from `insert` on. For a model
        that was saved with the update in it they are taken from its base model.

        Args:
            model: The edited model.
            base: The unedited model, needed if `insert` was not called on this object.

        Raises:
            EditError: If the old weights are not known, or the weights have changed since; nothing is changed then.
        """
        originals = {}
        for layer, update in self.layers.items():
            original = self._originals.get(layer) if base is None else self._weight(base, update).detach()
            if original is None:
                raise EditError(
                    "The weights under this update are not known here: call insert() on the same object first, or pass "
                    f"the unedited model as `base`{self._made_for}."
                )
            weight = self._weight(model, update)
            if fingerprint(original) != update.base or not is_sum(whole(weight), original, update.factors):
                raise EditError(
                    f"Layer {update.shown(layer)} ({update.module}) is not its base weight plus this update: it was "
                    "edited again or the base is another model. Remove later updates first."
                )
            originals[layer] = original
        with torch.no_grad():
            for layer, original in originals.items():
                self._weight(model, self.layers[layer]).copy_(original)
        self._originals.clear()

    @property
    def _made_for(self) -> str:
        return f" ({self.info['model']})" if "model" in self.info else ""

    @staticmethod
    def _weight(model: Any, update: LayerUpdate) -> Tensor:
        try:
            return oriented_weight(model.get_submodule(update.module))
        except AttributeError as error:
            raise EditError(f"{type(model).__name__} has no module {update.module}, which the update edits.") from error

    def save(self, path: str | Path) -> None:
        """Writes factors (float64) and metadata to one safetensors file, atomically.

        Args:
            path: The file, usually ``update.safetensors``.
        """
        tensors, described = {}, {}
        for layer, update in self.layers.items():
            tensors[f"left.{layer}"] = update.factors.left
            if update.factors.right is not None:
                tensors[f"right.{layer}"] = update.factors.right
            described[str(layer)] = update.described
        metadata = {"format": FORMAT, "layers": json.dumps(described), "info": to_json(self.info)}
        write_tensors(Path(path), tensors, metadata | {"checksum": checksum(tensors, metadata)})

    @staticmethod
    def load(path: str | Path) -> "ModelUpdate":
        """Reads what `save` wrote.

        Args:
            path: The file.

        Raises:
            EditError: If there is no such file, or it is not an update.
        """
        if not Path(path).is_file():
            raise EditError(f"There is no update file at {path}.")
        try:
            tensors, metadata = read_tensors(Path(path))
        except (SafetensorError, OSError) as error:
            raise EditError(f"{path} is not a safetensors file or is cut short: {error}") from error
        if metadata.get("format") not in (FORMAT, FIRST_FORMAT):
            raise EditError(f"{path} is not an update of this tool: expected format {FORMAT!r}, got {metadata}.")
        written = metadata.pop("checksum", None)
        if metadata["format"] == FORMAT and written != checksum(tensors, metadata):
            raise EditError(
                f"{path} is damaged: it holds other numbers or texts than were written (the checksum differs). Take "
                "another copy, or resume the run from its last checkpoint, which writes it again."
            )
        try:
            layers = {
                int(layer): layer_update(entry, factors_of(tensors, layer))
                for layer, entry in described(metadata, "layers").items()
            }
            return ModelUpdate(layers, described(metadata, "info"))
        except WrongFormError as error:
            raise EditError(f"{path} is not an update of this tool: {error}.") from error


@torch.no_grad()
def write_weight(weight: Tensor, base: Tensor, factors: Factors) -> None:
    """Writes cast(base + Delta) into a weight: the algebra in float64, one rounding.

    Args:
        weight: ``(d_out, d_in)``, of experts ``(d_out, E, d_in)``, changed in place.
        base: The unedited weight, of the same shape; like the other it may be divided between processes.
        factors: Delta.
    """
    delta = dense_update(factors).to(weight.device).view(weight.shape)
    # In the memory of the product, where it is one.
    total = delta + whole(base).double() if factors.right is None else delta.add_(whole(base))
    write_whole(weight, total)


def is_sum(weight: Tensor, base: Tensor, factors: Factors) -> bool:
    """Whether a weight is cast(base + Delta), on whatever machine that was computed.

    Kernels add up products in different orders, so the sums in float64 differ in their last bits, and where one is next
    to the middle between two numbers of the weight's precision, the other may be rounded to the other one.

    Args:
        weight: ``(d_out, d_in)``, of experts ``(d_out, E, d_in)``.
        base: The unedited weight, of the same shape.
        factors: Delta.
    """
    delta = dense_update(factors).to(weight.device).view(weight.shape)
    total = whole(base).to(weight.device).double() + delta
    slack = SAME_SUM * (total.abs() + delta.abs().max())
    return bool(((total - slack).to(weight.dtype) <= weight).all() & (weight <= (total + slack).to(weight.dtype)).all())


def same_update(first: Factors, second: Factors) -> bool:
    """Whether two updates of one weight are one: factors to the last bit, dense sums up to the order of adding up.

    Args:
        first: An update ``(d_out, d_in)``.
        second: Another.
    """
    if first.right is not None and second.right is not None:
        return torch.equal(first.left, second.left) and torch.equal(first.right, second.right)
    one, other = dense_update(first), dense_update(second)
    slack = SAME_SUM * float(other.abs().max()) if other.numel() else 0.0
    return one.shape == other.shape and torch.allclose(one, other, rtol=SAME_SUM, atol=slack)


@contextmanager
def inserted(model: Any, update: ModelUpdate) -> Iterator[Any]:
    """The model with the update in it, inside a ``with`` block; the old weights come back bit for bit, error or not.

    Args:
        model: The model the update was made for.
        update: The update; it must not be inserted already.
    """
    update.insert(model)
    try:
        yield model
    finally:
        update.remove(model)
