"""Weights of which each process holds a part (FSDP2): read as a whole, and written back in parts."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor as a plain one; all processes must ask for a divided one at the same time.

    Args:
        tensor: A plain tensor, which is returned as it is, or a divided one, which is gathered.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def write_whole(tensor: Tensor, values: Tensor) -> None:
    """Writes a plain tensor into one that may be divided; all have then what the first process has.

    Args:
        tensor: Changed in place.
        values: Of the same shape and any precision, in every process.
    """
    if isinstance(tensor, DTensor):
        values = distribute_tensor(values.to(tensor.device, tensor.dtype), tensor.device_mesh, tensor.placements)
    tensor.copy_(values)
