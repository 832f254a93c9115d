"""The edits of a memory as tensors by name, ``key.0``, ``key.1`` and so on, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.memories.grace import Grace
from lightning_edit.memories.memoir import Memoir, MemoirClosed
from lightning_edit.memories.memory import Entry, Memory
from lightning_edit.storage.form import WrongFormError

KINDS: Mapping[str, type[Memory]] = {kind.kind: kind for kind in (Grace, Memoir, MemoirClosed)}


def tensors_of(memory: Memory) -> dict[str, Tensor]:
    """All tensors of a memory: those that its constructor takes, and those of each edit with its place.

    Args:
        memory: The edits.
    """
    tensors = dict(memory.shared())
    for place, entry in enumerate(memory.entries):
        tensors |= {f"{name}.{place}": tensor for name, tensor in entry.tensors.items()}
    return tensors


def memory_of(
    kind: str,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    edits: Sequence[tuple[str, str]],
    sizes: Mapping[str, int],
    device: torch.device,
) -> Memory:
    """The memory whose tensors `tensors_of` gave.

    Args:
        kind: See `Memory.kind`.
        settings: The numbers that its constructor takes.
        tensors: As read from a file.
        edits: The name and the label of each edit.
        sizes: ``d_in`` and ``d_out`` of the layer.
        device: Where the model is.

    Raises:
        WrongFormError: If a tensor is not there, or is not what it should be.
    """
    made = KINDS[kind]
    known = dict(sizes)
    shared = {name: _taken(tensors, name, ("d_in",), known).to(device) for name in made.common}
    columns = settings.get("top_k", 0)
    if columns > sizes["d_in"]:
        raise WrongFormError("settings.top_k", f"at most {sizes['d_in']}", columns)
    memory = made(**shared, **settings)
    entries = []
    for place, (name, label) in enumerate(edits):
        known = {**sizes, "columns": columns}
        parts = {part: _taken(tensors, f"{part}.{place}", shape, known) for part, shape in made.form.items()}
        entries.append(Entry(name, label, parts))
    memory.add(entries)
    return memory


def _taken(tensors: Mapping[str, Tensor], name: str, shape: tuple[str, ...], sizes: dict[str, int]) -> Tensor:
    """A tensor of the right shape; a length that is not known yet is what the first tensor with it has."""
    tensor = tensors.get(name)
    whole = name.split(".")[0] in ("mask", "order")
    if tensor is None or tensor.dim() != len(shape) or (tensor.dtype == torch.int64) != whole:
        raise WrongFormError(name, f"a tensor of {' x '.join(shape)}", tensor)
    for length, axis in zip(tensor.shape, shape, strict=True):
        if length != sizes.setdefault(axis, length):
            raise WrongFormError(name, f"a tensor of {' x '.join(f'{axis} {sizes[axis]}' for axis in shape)}", tensor)
    if whole and len(tensor) and not (int(tensor.min()) >= 0 and int(tensor.max()) < sizes["d_in"]):
        raise WrongFormError(name, f"columns from 0 to {sizes['d_in'] - 1}", tensor)
    return tensor
