"""The tensors in files of updates: what they are, and whether they are of the right form."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_edit.solvers.base import Factors
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.tensor_form import check_finite, factors


def factors_of(tensors: Mapping[str, Tensor], layer: int | str) -> Factors:
    """Delta of one layer.

    Args:
        tensors: Those of the file.
        layer: Which.

    Raises:
        WrongFormError: If it is not there, of another form, or holds what is no finite number.
    """
    left, right = tensors.get(f"left.{layer}"), tensors.get(f"right.{layer}")
    factors({"left": left, "right": right}, f"layer {layer}")
    assert left is not None
    for name, part in (("left", left), ("right", right)):
        if part is not None:
            check_finite(f"{name}.{layer}", part)
    return Factors(left, right)


def check_keys(keys: Tensor, layer: int, update: Factors, count: int) -> None:
    """Refuses keys that are not those of an update's edits.

    Args:
        keys: K ``(d_in, n)``, or nothing at all for an update without edits.
        layer: Whose.
        update: Delta ``(d_out, d_in)``.
        count: n, how many keys the edits have.

    Raises:
        WrongFormError: If they are not.
    """
    d_in = (update.left if update.right is None else update.right).shape[1]
    if keys.numel() == count == 0:
        return
    if keys.shape != (d_in, count) or keys.dtype != torch.float64:
        expected = f"a tensor {(d_in, count)} of torch.float64, a column for each key of its edits"
        raise WrongFormError(f"keys.{layer}", expected, keys)
    check_finite(f"keys.{layer}", keys)
