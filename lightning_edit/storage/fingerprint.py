"""Short names for long things: equal fingerprints mean equal bytes, so a cache can tell what it depends on."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, cast

import xxhash

if TYPE_CHECKING:
    from torch import Tensor


class RawTensor(NamedTuple):
    """A tensor as it lies in a file; its fingerprint is that of the tensor.

    Args:
        dtype: As torch names it, e.g. ``float64``.
        shape: Its shape.
        data: Its bytes, contiguous.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray


def fingerprint(*parts: "str | Tensor | RawTensor | Iterable[int]") -> str:
    """A 128-bit hash of texts, tensors (with shape and dtype) and token ids, in hexadecimal.

    Args:
        *parts: What to hash; their order and kinds count.
    """
    digest = Digest()
    for part in parts:
        digest.add(part)
    return str(digest)


class Digest:
    """A `fingerprint` whose parts come one after the other."""

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_128()

    def add(self, part: "str | Tensor | RawTensor | Iterable[int]") -> None:
        """Adds a part.

        Args:
            part: What to hash.
        """
        if isinstance(part, str):
            self._digest.update(f"text {len(part)} {part} ".encode())
        elif isinstance(part, RawTensor):
            self._digest.update(f"tensor torch.{part.dtype} {part.shape} ".encode())
            self._digest.update(part.data)
        elif hasattr(part, "detach"):
            _add_tensor(self._digest, cast("Tensor", part))
        else:
            self._digest.update(f"ids {list(part)} ".encode())

    def __str__(self) -> str:
        """The hash of the parts so far, in hexadecimal."""
        return self._digest.hexdigest()


def _add_tensor(digest: xxhash.xxh3_128, tensor: "Tensor") -> None:
    # Who has a tensor has torch; who has none need not wait for it.
    import torch

    from lightning_edit.distributed.sharded_weights import whole
    from lightning_edit.storage.tensor_parts import plain_parts

    for name, part in plain_parts(tensor.detach()):
        if name:
            digest.update(f"part {name} ".encode())
        plain = whole(part).cpu().contiguous()
        digest.update(f"tensor {plain.dtype} {tuple(plain.shape)} ".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
