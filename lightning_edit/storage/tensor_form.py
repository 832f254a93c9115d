"""Forms of tensors in a file; see `form`."""

from typing import Any

import torch
from torch import Tensor

from lightning_edit.storage.form import Form, WrongFormError, fields, maybe


def tensor(*dtypes: torch.dtype, dimensions: int, last: int | None = None) -> Form:
    """A tensor of one of some dtypes, of any floating one if none is given.

    Args:
        *dtypes: Those.
        dimensions: How many.
        last: The length of the last one; None for any.
    """

    def check(value: Any, place: str) -> None:
        expected = f"a tensor of {dimensions} dimensions of {', '.join(map(str, dtypes)) or 'floating-point numbers'}"
        right = isinstance(value, Tensor) and value.layout == torch.strided and value.dim() == dimensions
        if not right or not (value.dtype in dtypes if dtypes else value.is_floating_point()):
            raise WrongFormError(place, expected, value)
        if last is not None and value.shape[-1] != last:
            raise WrongFormError(place, f"{expected}, the last of length {last}", value)

    return check


def factors(value: Any, place: str) -> None:
    """Delta as ``left`` and, unless it is dense, ``right``, which multiply."""
    matrix = tensor(torch.float64, dimensions=2)
    fields({"left": matrix, "right": maybe(matrix)})(value, place)
    if value["right"] is not None and value["left"].shape[1] != value["right"].shape[0]:
        raise WrongFormError(f"{place}.right", f"{value['left'].shape[1]} rows, as left has columns", value["right"])


def check_finite(name: str, value: Tensor) -> None:
    """Refuses a tensor that holds NaN or infinity.

    Args:
        name: Its place in the file.
        value: The tensor.

    Raises:
        WrongFormError: If it does.
    """
    if not bool(value.isfinite().all()):
        wrong = int((~value.isfinite()).sum())
        raise WrongFormError(name, f"finite numbers, as nothing can be computed with others; {wrong} are not", value)
