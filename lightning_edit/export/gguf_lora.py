"""A LoRA adapter for llama.cpp: one GGUF file that holds A and B of each edited matrix.

llama.cpp computes W x + s (alpha / r) B A x for each matrix, with the rank r of its B and the scale s that a user gives
(1). All matrices are filled up with zeros to the largest rank, which is alpha, so that alpha / r is 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFType, GGUFWriter, Keys, LlamaFileType
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.export.adapter import Adapter
from lightning_edit.export.gguf_base import Place
from lightning_edit.export.gguf_names import REORDERED, Names
from lightning_edit.models.finding.sites import experts_of


def file_names(adapter: Adapter, model: Any, names: Names, in_order: bool) -> dict[str, str]:
    """What a GGUF file of the base model calls each edited matrix.

    Args:
        adapter: The adapter.
        model: The model that it is for.
        names: The architecture's.
        in_order: Whether the file is at hand, so that the order of its rows is known.

    Raises:
        EditError: If there is no such matrix, or the order of its rows is not known.
    """
    found = {}
    for name in adapter.ranks:
        kind, found[name] = names.find(name, model.get_submodule(name))
        if kind in REORDERED and not in_order:
            raise EditError(
                f"The update edits {name}, and the order of its rows in a GGUF file depends on the converter. Edit a "
                "GGUF file of the model, or export --to lora and convert that by llama.cpp's convert_lora_to_gguf.py."
            )
    return found


def adapter_tensors(
    adapter: Adapter, model: Any, names: Mapping[str, str], places: Mapping[str, Place]
) -> dict[str, Tensor]:
    """A and B of all matrices, in float32, by the names that llama.cpp looks for.

    Args:
        adapter: The adapter.
        model: The model that it is for.
        names: See `file_names`.
        places: Where the matrices are in the base file, if that is one in GGUF.

    Returns:
        Each A ``(r, d_in)`` and B ``(d_out, r)``, of E experts ``(E, r, d_in)`` and ``(E, d_out, r)``.
    """
    rank, tensors = rank_of(adapter), {}
    for name, ranks in adapter.ranks.items():
        down, up = adapter.updates[name].adapter(ranks.kept, rank)
        if experts := experts_of(model.get_submodule(name)):
            down, up = down.view(experts, rank, -1), up.view(len(up), rank, experts).permute(2, 0, 1)
        place = places.get(name)
        if place is not None and place.rows is not None:
            up = up[place.rows]
        tensors[f"{names[name]}.lora_a"] = down.cpu().float().contiguous()
        tensors[f"{names[name]}.lora_b"] = up.cpu().float().contiguous()
    return tensors


def rank_of(adapter: Adapter) -> int:
    """The rank that all matrices have in the file.

    Args:
        adapter: The adapter.
    """
    return max(ranks.kept for ranks in adapter.ranks.values())


def write_adapter(path: Path, architecture: str, rank: int, tensors: Mapping[str, Tensor]) -> None:
    """Writes the file.

    Args:
        path: Where to.
        architecture: What the base model's file says as ``general.architecture``; llama.cpp compares it.
        rank: That of all matrices, and alpha.
        tensors: See `adapter_tensors`.

    Raises:
        OSError: If it cannot be written.
    """
    writer = GGUFWriter(path, architecture)
    try:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, float(rank))
        writer.add_file_type(LlamaFileType.ALL_F32)
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
