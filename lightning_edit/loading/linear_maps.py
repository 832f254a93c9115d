"""How many linear maps of a model are quantized, and the room that all of them take."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.loading.dequantization import holds_codes
from lightning_edit.loading.quantization import stated_method
from lightning_edit.storage.tensor_parts import plain_parts

MEGABYTE = 10**6


@dataclass(frozen=True)
class LinearMaps:
    """The linear maps of a model, those that share their weight with the embeddings left out.

    Args:
        method: How they are quantized, as transformers calls it; None where they were dequantized as they were read.
        maps: How many there are.
        quantized: How many of them are quantized.
        bytes_plain: The room that all weights would take as plain numbers, in the precision of the rest.
        bytes_kept: The room that they take, with scales and tables.
        dtype: The precision of the rest.
    """

    method: str | None
    maps: int
    quantized: int
    bytes_plain: int
    bytes_kept: int
    dtype: str

    def __str__(self) -> str:
        """All of it in a line."""
        if self.method is None:
            return f"the files were dequantized as they were read, so that all weights are in {self.dtype}."
        return (
            f"{self.method}, {self.quantized} of {self.maps} linear maps: these take {_megabytes(self.bytes_kept)} in "
            f"place of {_megabytes(self.bytes_plain)} in {self.dtype}; the others stay in {self.dtype}."
        )


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.{1 if size < 100 * MEGABYTE else 0}f} MB"


def linear_maps(model: Any, skeleton: Any) -> LinearMaps:
    """Counts the linear maps of a model whose files are quantized, or that was to be quantized.

    Args:
        model: The model.
        skeleton: The same model unquantized, without weights.
    """
    embeddings = skeleton.get_input_embeddings().weight
    maps = {
        name: module
        for name, module in skeleton.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module.weight is not embeddings
    }
    real = {name: model.get_submodule(name) for name in maps}
    quantized = sum(map(holds_codes, real.values()))
    method, dtype = stated_method(model.config) if quantized else None, model.dtype
    plain = sum(module.weight.numel() for module in maps.values()) * dtype.itemsize
    kept = sum(map(_room, real.values()))
    return LinearMaps(method, len(maps), quantized, plain, kept, str(dtype).removeprefix("torch."))


def _room(module: nn.Module) -> int:
    # Where libraries keep scales and tables differs; all of them save them.
    saved = [value for name, value in module.state_dict().items() if name != "bias" and isinstance(value, Tensor)]
    return sum(part.numel() * part.dtype.itemsize for value in saved for _, part in plain_parts(value))
