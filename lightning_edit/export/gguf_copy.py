"""A GGUF file with some of its matrices replaced: all else is copied byte for byte, straight from disk to disk."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gguf import GGUFReader, ReaderTensor

from lightning_edit.export.gguf_types import Rounded

# Bytes that are held at once.
PIECE = 2**24


def write_copy(reader: GGUFReader, path: Path, edited: Mapping[str, Rounded]) -> None:
    """Writes a GGUF file again, with edited matrices.

    What stands before the list of tensors (version, counts and all metadata) is copied as it is. The list is written
    anew, as types and places change, and behind it the tensors in their order.

    Args:
        reader: The file that is copied.
        path: Where to; see `atomic_path` for how it takes another file's place.
        edited: The new matrices, by the names that the file has for them.

    Raises:
        OSError: If it cannot be written.
    """
    start = reader.tensors[0].field.offset
    with path.open("wb") as out:
        _copy(reader.data, 0, start, out)
        offset = 0
        for tensor in reader.tensors:
            kind = edited[tensor.name].kind if tensor.name in edited else tensor.tensor_type
            out.write(_described(tensor, kind, offset))
            offset += _padded(_size(tensor, edited), int(reader.alignment))
        _pad(out, int(reader.alignment))
        for tensor in reader.tensors:
            if tensor.name in edited:
                out.write(edited[tensor.name].data.tobytes())
            else:
                _copy(reader.data, tensor.data_offset, tensor.n_bytes, out)
            _pad(out, int(reader.alignment))


def parts_of(tensor: ReaderTensor) -> Iterator[bytes]:
    """What the list of tensors says of one, but for its type and place: name and dimensions.

    Args:
        tensor: The tensor.
    """
    # Length of the name, name, number of dimensions, dimensions; then type and place.
    return (part.tobytes() for part in tensor.field.parts[:4])


def _described(tensor: ReaderTensor, kind: int, offset: int) -> bytes:
    return b"".join(parts_of(tensor)) + struct.pack("<IQ", int(kind), offset)


def _size(tensor: ReaderTensor, edited: Mapping[str, Rounded]) -> int:
    return int(edited[tensor.name].data.nbytes) if tensor.name in edited else tensor.n_bytes


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _pad(out: BinaryIO, alignment: int) -> None:
    place = out.tell()
    out.write(bytes(_padded(place, alignment) - place))


def _copy(data: Any, start: int, size: int, out: BinaryIO) -> None:
    for place in range(start, start + size, PIECE):
        out.write(data[place : min(place + PIECE, start + size)].tobytes())
