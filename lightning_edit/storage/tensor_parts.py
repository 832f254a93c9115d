"""The plain tensors that a tensor is made of: itself, or the codes and scales of one that a library has quantized."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def plain_parts(tensor: "Tensor") -> Iterator[tuple[str, "Tensor"]]:
    """The plain tensors that a tensor is made of, with names that say what each of them is.

    Args:
        tensor: Any tensor; one of a subclass that says what it is made of (``__tensor_flatten__``) is taken apart. One
            that is divided between processes counts as plain.
    """
    from torch.distributed.tensor import DTensor

    if not hasattr(tensor, "__tensor_flatten__") or isinstance(tensor, DTensor):
        yield "", tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        for inner, part in plain_parts(getattr(tensor, name)):
            yield f"{type(tensor).__name__}.{name}{inner}", part
