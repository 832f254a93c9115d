"""The GGUF file that a run has edited: its matrices, and whether they are the ones that were edited."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from gguf import GGUFEndian, GGUFReader, Keys, ReaderTensor, dequantize
from torch import Tensor, nn

from lightning_edit.errors import EditError
from lightning_edit.export.gguf_names import Names
from lightning_edit.messages import one_line
from lightning_edit.models.finding.sites import experts_of, oriented_weight, output_size


@dataclass(frozen=True)
class Place:
    """Where a matrix of a model is in a GGUF file.

    Args:
        tensor: The file's tensor.
        rows: For each row of the file the model's; None where they are in the same order.
    """

    tensor: ReaderTensor
    rows: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """Its numbers in the file's order, in float32: ``(d_out, d_in)``, of E experts ``(E, d_out, d_in)``."""
        return torch.from_numpy(numpy.array(dequantize(self.tensor.data, self.tensor.tensor_type)))


def open_gguf(path: Path) -> GGUFReader:
    """A GGUF file, of which nothing but the description is read.

    Args:
        path: The file.

    Raises:
        EditError: If it cannot be read, or is in the byte order of another kind of machine.
    """
    try:
        reader = GGUFReader(path)
    # What damaged lengths lead to has many names.
    except (ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise EditError(f"{path} is cut short or damaged ({one_line(error)}). Download it again.") from error
    if reader.endianess is not GGUFEndian.LITTLE or reader.byte_order != "I":
        raise EditError(f"{path} is written in big-endian order, and only little-endian files are edited here.")
    return reader


def names_of(reader: GGUFReader) -> Names:
    """The names of the matrices in a GGUF file.

    Args:
        reader: The file.

    Raises:
        EditError: If it does not say what it holds, or its architecture is not known.
    """
    architecture = _said(reader, Keys.General.ARCHITECTURE)
    return Names(str(architecture), int(_said(reader, Keys.LLM.BLOCK_COUNT.format(arch=architecture))))


def _said(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise EditError(f"The GGUF file has no `{key}`, so what its tensors are is not known.")
    return field.contents()


def find_places(reader: GGUFReader, model: Any, modules: Mapping[str, nn.Module]) -> dict[str, Place]:
    """Where the edited matrices are in the file.

    Args:
        reader: The file.
        model: The unedited model that was read from it.
        modules: The edited modules by name.

    Raises:
        EditError: If one is not in the file, or the file holds other numbers.
    """
    names, tensors = names_of(reader), {tensor.name: tensor for tensor in reader.tensors}
    places = {}
    for name, module in modules.items():
        tensor = tensors.get(names.find(name, module)[1])
        if tensor is None:
            raise EditError(f"The GGUF file holds no {names.find(name, module)[1]}, which is what {name} would be.")
        found = Place(tensor)
        rows = _rows(found.weight.to(model.dtype), stacked(module), f"{tensor.name} of the GGUF file")
        places[name] = Place(tensor, rows)
    return places


def stacked(module: nn.Module) -> Tensor:
    """The weight of a module as a GGUF file lays it out: ``(d_out, d_in)``, of E experts ``(E, d_out, d_in)``.

    Args:
        module: A linear map or the experts of a layer.

    Raises:
        EditError: If it is neither.
    """
    if output_size(module) is None:
        raise EditError(
            f"The update changes a {type(module).__name__}, and only matrices of linear maps (Linear, Conv1D or "
            "stacked experts) are written into a GGUF file. Export the edited model instead: --to model."
        )
    weight = oriented_weight(module).detach().cpu()
    return weight.transpose(0, 1) if experts_of(module) else weight


def in_file(delta: Tensor, module: nn.Module, place: Place) -> Tensor:
    """An update in the form and order of the file's matrix.

    Args:
        delta: Delta ``(d_out, d_in)``, of E experts ``(d_out, E d_in)``.
        module: The module that it is for.
        place: Where its matrix is.
    """
    experts = experts_of(module)
    whole = delta.view(len(delta), experts, -1).transpose(0, 1) if experts else delta
    return whole if place.rows is None else whole[place.rows]


def out_of_file(written: Tensor, module: nn.Module, place: Place) -> Tensor:
    """The inverse of `in_file`.

    Args:
        written: What is of the form and order of the file's matrix.
        module: The module whose matrix it is.
        place: Where that is.
    """
    if place.rows is not None:
        return written[place.rows.argsort()]
    return written.transpose(0, 1).flatten(1) if experts_of(module) else written


def _rows(stored: Tensor, loaded: Tensor, what: str) -> Tensor | None:
    """For each row of a stored matrix the row of the loaded one; llama.cpp reorders those of queries and keys."""
    if stored.shape == loaded.shape and torch.equal(stored, loaded):
        return None
    other = EditError(f"{what} holds other numbers than the model that was edited. Give that model's file by --model.")
    if stored.shape != loaded.shape or loaded.ndim != 2:
        raise other
    numbers = {row: number for number, row in enumerate(_bytes(loaded))}
    found = [numbers.get(row) for row in _bytes(stored)]
    # Of two rows that are the same it could not be told which is which.
    if None in found or len(set(found)) < len(loaded):
        raise other
    return torch.tensor(found)


def _bytes(matrix: Tensor) -> list[bytes]:
    return [row.tobytes() for row in matrix.contiguous().view(torch.uint8).numpy()]
