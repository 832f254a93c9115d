"""The update of a model as low-rank factors: inserted, removed, added up, saved and loaded."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError
from torch import Tensor, nn

from lightning_edit.distributed.sharded_weights import whole
from lightning_edit.errors import EditError
from lightning_edit.models.beside_weights import refuse_beside
from lightning_edit.models.turns import in_turn
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.numbers import refuse_not_finite, to_json
from lightning_edit.storage.run_files import UPDATE
from lightning_edit.storage.tensor_form import checksum, read_tensors, write_tensors
from lightning_edit.storage.user.files import path_of
from lightning_edit.updates.files.update_form import described
from lightning_edit.updates.files.update_tensors import factors_of
from lightning_edit.updates.layer_update import LayerUpdate, layer_update
from lightning_edit.updates.levels import Levels, Part, levels_of, same_numbers, weight_of, write_level
from lightning_edit.updates.sums import is_sum

FORMAT = "lightning-edit update 2"
# Without checksums.
FIRST_FORMAT = "lightning-edit update 1"


@dataclass(repr=False)
class ModelUpdate:
    """The updates of all edited layers of a model.

    Args:
        layers: For each edited layer its update.
        info: What made it (solver, number of edits, base model ...), written into the file as JSON.
    """

    layers: dict[int, LayerUpdate]
    info: dict[str, Any] = field(default_factory=dict)
    _identity: str = field(default_factory=lambda: uuid4().hex, repr=False, compare=False)
    _inserted: bool = field(default=False, repr=False, compare=False)

    def __repr__(self) -> str:
        """What it is, without its numbers."""
        said = [f"{name}={self.info[name]}" for name in ("edits", "solver", "model") if name in self.info]
        layers = ", ".join(update.shown(layer) for layer, update in sorted(self.layers.items()))
        return f"{type(self).__name__}({', '.join([f'layers=[{layers}]', *said])})"

    @property
    def is_inserted(self) -> bool:
        """Whether it is in a model: `insert` was called on this object, and `remove` was not since then."""
        return self._inserted

    @in_turn
    def insert(self, model: Any) -> None:
        """Adds the update to the model's weights: W <- cast(W + Delta), the sum in float64.

        Updates that were made for the same weights add up, in any order: W is what lies under all of them.

        Args:
            model: The model the update was made for, perhaps with other updates in it.

        Raises:
            EditError: If a weight is not there or not the one the update was made for, or the update, or a copy of it,
                is in it already, or memories are beside the weights; nothing is changed then.
        """
        refuse_beside(model)
        modules = {layer: self._module(model, update) for layer, update in self.layers.items()}
        for module in modules.values():
            levels_of(module).forget_undone(weight_of(module))
        if self._known_as(modules) is not None:
            raise EditError("This update is in the model already. Remove it before it is inserted again.")
        self.check(model)
        self._check_factors(model)
        self.register(model, {layer: weight_of(module).clone() for layer, module in modules.items()})
        for module in modules.values():
            top = levels_of(module).top
            assert top is not None
            top.write(weight_of(module))

    def register(self, model: Any, bases: Mapping[int, Tensor]) -> None:
        """Notes beside the weights that the update is in them, so that it can be taken out again.

        Args:
            model: The model, whose weights hold the update or are about to.
            bases: For each layer the weight without it, kept if no other update is known in that weight.
        """
        for layer, update in self.layers.items():
            levels = levels_of(self._module(model, update))
            level = levels.top
            if level is None or level.fingerprint != update.base:
                level = levels.push(bases[layer], update.base)
            level.put(self._identity, self._part(layer))
        self._inserted = True

    def _part(self, layer: int) -> Part:
        """What is noted of one weight."""
        return Part(self.layers[layer].factors)

    def check(self, model: Any) -> None:
        """Refuses a model other than the one the update was made for.

        Args:
            model: The model without this update.

        Raises:
            EditError: If a weight is not there or not the one the update was made for.
        """
        for layer, update in self.layers.items():
            module = self._module(model, update)
            if not self._fits(update, module):
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

    @in_turn
    def remove(self, model: Any, base: Any = None) -> None:
        """Takes the update out of the weights; they are as they were without it, bit for bit.

        A rounded sum cannot be undone by subtraction, so the weights under all updates are kept from the first `insert`
        on. Updates that were made for the same weights can be removed in any order. For a model that was saved with
        the update in it the old weights are taken from its base model.

        Args:
            model: The edited model.
            base: The unedited model, needed if `insert` was not called on this object or a copy of it.

        Raises:
            EditError: If it is not in the model, the old weights are not known, or the weights have changed since;
                nothing is changed then.
        """
        modules = {layer: self._module(model, update) for layer, update in self.layers.items()}
        if base is not None:
            self._put_back(modules, {layer: weight_of(self._module(base, one)) for layer, one in self.layers.items()})
            return
        identity = self._known_as(modules)
        if identity is None or not all(levels_of(module).has(identity) for module in modules.values()):
            if self._is_without(modules):
                raise EditError(
                    "This update is not in the model: its weights are those without it. Nothing is changed."
                )
            raise EditError(
                "The weights under this update are not known here: call insert() on the same object first, or pass "
                f"the unedited model as `base`{self._made_for}."
            )
        for layer, module in modules.items():
            level = levels_of(module).top
            if level is None or identity not in level.parts or not level.holds(weight_of(module)):
                raise self._changed(layer)
        for module in modules.values():
            levels_of(module).take_out(identity, weight_of(module))
        self._inserted = False

    def _is_without(self, modules: Mapping[int, nn.Module]) -> bool:
        """Whether all weights are those that the update was made for, perhaps with other updates in them."""
        return all(self._fits(update, modules[layer]) for layer, update in self.layers.items())

    @staticmethod
    def _fits(update: LayerUpdate, module: nn.Module) -> bool:
        weight = weight_of(module)
        return levels_of(module).joined(update.base, weight) is not None or fingerprint(weight) == update.base

    def _known_as(self, modules: Mapping[int, nn.Module]) -> str | None:
        """By which identity the update is in a model: its own, or that of another copy, as one that was saved has."""
        levels = {layer: levels_of(module) for layer, module in modules.items()}
        if any(one.has(self._identity) for one in levels.values()):
            return self._identity
        identities = dict.fromkeys(name for one in levels.values() for level in one.stack for name in level.parts)
        copies = (name for name in identities if all(self._is_in(levels[layer], layer, name) for layer in levels))
        return next(copies, None)

    def _is_in(self, levels: Levels, layer: int, identity: str) -> bool:
        """Whether what is in a weight under an identity has the numbers of this update."""
        update = self.layers[layer]
        found = [level.parts.get(identity) for level in levels.stack if level.fingerprint == update.base]
        return any(part is not None and same_numbers(part.factors, update.factors) for part in found)

    def _put_back(self, modules: Mapping[int, nn.Module], bases: Mapping[int, Tensor]) -> None:
        """Makes weights that hold this update alone those of the base model."""
        for layer, update in self.layers.items():
            weight, original = weight_of(modules[layer]), bases[layer]
            if fingerprint(original) != update.base or not is_sum(whole(weight), original, update.factors):
                raise self._changed(layer)
        for layer, module in modules.items():
            levels_of(module).stack.clear()
            write_level(weight_of(module), bases[layer], None)
        self._inserted = False

    def _changed(self, layer: int) -> EditError:
        update = self.layers[layer]
        return EditError(
            f"Layer {update.shown(layer)} ({update.module}) is not its base weight plus this update: it was edited or "
            "changed again, or the base is another model. Remove later updates first."
        )

    @property
    def _made_for(self) -> str:
        return f" ({self.info['model']})" if "model" in self.info else ""

    def _weight(self, model: Any, update: LayerUpdate) -> Tensor:
        return weight_of(self._module(model, update))

    @staticmethod
    def _module(model: Any, update: LayerUpdate) -> nn.Module:
        try:
            return model.get_submodule(update.module)
        except AttributeError as error:
            raise EditError(f"{type(model).__name__} has no module {update.module}, which the update edits.") from error

    def save(self, path: str | Path) -> None:
        """Writes factors (float64) and metadata to one safetensors file, atomically.

        Args:
            path: The file, usually ``update.safetensors``.

        Raises:
            EditError: If that is no path, or a folder.
        """
        file = path_of(path, "path", UPDATE)
        if file.is_dir():
            raise EditError(f"`path`: {path} is a folder. Name a file in it, such as {UPDATE}.")
        tensors, described = {}, {}
        for layer, update in self.layers.items():
            tensors[f"left.{layer}"] = update.factors.left
            if update.factors.right is not None:
                tensors[f"right.{layer}"] = update.factors.right
            described[str(layer)] = update.described
        metadata = {"format": FORMAT, "layers": json.dumps(described), "info": to_json(self.info)}
        write_tensors(file, tensors, metadata | {"checksum": checksum(tensors, metadata)})

    @staticmethod
    def load(path: str | Path) -> "ModelUpdate":
        """Reads what `save` wrote.

        Args:
            path: The file.

        Raises:
            EditError: If there is no such file, or it is not an update.
        """
        file = path_of(path, "path", UPDATE)
        if not file.is_file():
            raise EditError(f"There is no update file at {path}.")
        try:
            tensors, metadata = read_tensors(file)
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
