"""Files of tensors: written atomically, read whole, and a hash by which damage is recognized."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.fingerprint import fingerprint


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
