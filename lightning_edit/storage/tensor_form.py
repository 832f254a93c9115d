"""Tensors in files: written atomically, read whole, the form they should have, and a hash to recognize damage by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.fingerprint import fingerprint
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


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The hash of all that a safetensors file holds.

    Args:
        tensors: Its tensors by name.
        metadata: What it says of itself, without the hash.
    """
    texts = [text for name in sorted(metadata) for text in (name, metadata[name])]
    return fingerprint(*texts, *(part for name in sorted(tensors) for part in (name, tensors[name])))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, atomically.

    Args:
        path: The file; an older one is replaced.
        tensors: What to write, on any device and in any memory layout.
        metadata: What the file says of itself.

    Raises:
        OSError: If there is no room or no permission; what was there before is as it was.
    """
    plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    with atomic_path(path) as scratch:
        save_file(plain, scratch, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file whole.

    Args:
        path: The file.

    Returns:
        Its tensors by name, in memory of their own, and what it says of itself.

    Raises:
        SafetensorError: If it is no such file or is cut short.
        OSError: If it cannot be read.
    """
    with safe_open(path, framework="pt") as file:
        # What stays a view of the mapped file is unaligned, which changes the last bits of products.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})
