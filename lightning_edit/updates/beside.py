"""Updates that are kept beside quantized weights, as low-rank factors: the codes of all matrices stay as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_edit.errors import EditError
from lightning_edit.loading.dequantization import dequantized_weight, holds_codes, with_codes
from lightning_edit.loading.pretrained import load_model
from lightning_edit.solvers import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.sums import dense_update

FILE = "beside.safetensors"


class WithUpdate(nn.Module):
    """A quantized linear map Q with an update beside it: Q(k) + L (R k).

    Args:
        quantized: The map, which is not changed.
        factors: Delta ``(d_out, d_in)``.
        dtype: The precision that the factors are kept in.
    """

    left: Tensor
    right: Tensor | None

    def __init__(self, quantized: Any, factors: Factors, dtype: torch.dtype) -> None:
        super().__init__()
        self.quantized = quantized
        device = next(iter((*quantized.parameters(), *quantized.buffers()))).device
        left, right = (dense_update(factors), None) if factors.right is None else (factors.left, factors.right)
        self.register_buffer("left", left.to(device, dtype), persistent=False)
        self.register_buffer("right", None if right is None else right.to(device, dtype), persistent=False)

    def forward(self, keys: Tensor) -> Tensor:
        """What the edited map gives.

        Args:
            keys: ``(..., d_in)``.
        """
        inner = keys.to(self.left.dtype)
        inner = inner if self.right is None else linear(inner, self.right)
        return self.quantized(keys) + linear(inner, self.left).to(keys.dtype)


def save_beside(model: Any, codes: Mapping[str, nn.Module], update: ModelUpdate, folder: Path) -> None:
    """Writes a model as it was before it was edited, and the update beside it; `load_beside` puts them together.

    Args:
        model: The edited model.
        codes: Its quantized modules, see `make_plain`.
        update: The sum of all updates.
        folder: Where to.
    """
    with with_codes(model, codes):
        model.save_pretrained(folder)
    update.save(folder / FILE)


def load_beside(folder: str | Path, dtype: Any = "auto", trust_remote_code: bool = False) -> Any:
    """Loads a model whose update was kept beside its quantized weights, with the update in it.

    Args:
        folder: ``model/`` of a run with ``write: beside``.
        dtype: Precision of what is not quantized; ``auto`` keeps that of the file.
        trust_remote_code: Whether code that comes with the model may be run.

    Returns:
        The model; the codes of its weights are those of the unedited one.

    Raises:
        EditError: If there is no such model, no update beside it, or another model's.
    """
    update = ModelUpdate.load(Path(folder) / FILE)
    return put_beside(load_model(str(folder), dtype, trust_remote_code=trust_remote_code), update)


def put_beside(model: Any, update: ModelUpdate) -> Any:
    """Puts an update beside the quantized weights that it was made for; `take_away` removes it.

    Args:
        model: The quantized, unedited model.
        update: An update that was made on the dequantized weights of this model.

    Returns:
        The same model.

    Raises:
        EditError: If a weight is not there, not quantized, or not the one the update was made for; nothing is changed.
    """
    modules = {}
    for layer, one in update.layers.items():
        try:
            module = model.get_submodule(one.module)
        except AttributeError as error:
            raise EditError(f"{type(model).__name__} has no module {one.module}, which the update edits.") from error
        if isinstance(module, WithUpdate) or not holds_codes(module):
            raise EditError(
                f"Layer {one.shown(layer)} ({one.module}) is not quantized, or has an update beside it. Add the "
                "update to its weight with `update.insert(model)`, or take the other one away first."
            )
        if fingerprint(dequantized_weight(one.module, module).to(model.dtype).contiguous()) != one.base:
            raise EditError(
                f"Layer {one.shown(layer)} ({one.module}) holds other weights than the update was made for. Load that "
                "model, quantized in the same way and with the same `dtype`."
            )
        modules[one.module] = WithUpdate(module, one.factors, model.dtype)
    for name, module in modules.items():
        model.set_submodule(name, module)
    return model


def take_away(model: Any) -> Any:
    """Removes the update beside a model's quantized weights, which are as they were.

    Args:
        model: A model that `put_beside` or `load_beside` returned.

    Returns:
        The same model.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, WithUpdate):
            model.set_submodule(name, module.quantized)
    return model
