"""Sums of updates as factors, and weights with a sum in them."""

import torch
from torch import Tensor

from lightning_edit.distributed.sharded_weights import whole, write_whole
from lightning_edit.solvers.base import Factors

ALIGNMENT = 64
# How far two sums of the same products in float64 may be apart, relative to the largest.
SAME_SUM = 1e-12


def dense_update(factors: Factors) -> Tensor:
    """Delta ``(d_out, d_in)``, the same bits whether the factors come from a solver or from a file.

    Args:
        factors: The update.
    """
    if factors.right is None:
        return factors.left
    return _as_allocated(factors.left) @ _as_allocated(factors.right)


def _as_allocated(tensor: Tensor) -> Tensor:
    # A matrix product rounds differently for a transposed or an unaligned operand of the same numbers.
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def add_factors(first: Factors, second: Factors) -> Factors:
    """The sum of two updates of one weight, dense as soon as the factors would take more room.

    Args:
        first: An update ``(d_out, d_in)``.
        second: Another of the same shape.
    """
    if first.right is None or second.right is None:
        return Factors(dense_update(first) + dense_update(second))
    rank = len(first.right) + len(second.right)
    d_out, d_in = len(first.left), first.right.shape[1]
    if rank * (d_out + d_in) > d_out * d_in:
        return Factors(dense_update(first) + dense_update(second))
    return Factors(torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right]))


@torch.no_grad()
def write_weight(weight: Tensor, base: Tensor, factors: Factors) -> None:
    """Writes cast(base + Delta) into a weight: the algebra in float64, one rounding.

    Args:
        weight: ``(d_out, d_in)``, of experts ``(d_out, E, d_in)``, changed in place.
        base: The unedited weight, of the same shape; like the other it may be divided between processes.
        factors: Delta.
    """
    delta = dense_update(factors).to(weight.device).view(weight.shape)
    # In the memory of the product, where it is one.
    total = delta + whole(base).double() if factors.right is None else delta.add_(whole(base))
    write_whole(weight, total)


def is_sum(weight: Tensor, base: Tensor, factors: Factors) -> bool:
    """Whether a weight is cast(base + Delta), on whatever machine that was computed.

    Kernels add up products in different orders, so the sums in float64 differ in their last bits, and where one is next
    to the middle between two numbers of the weight's precision, the other may be rounded to the other one.

    Args:
        weight: ``(d_out, d_in)``, of experts ``(d_out, E, d_in)``.
        base: The unedited weight, of the same shape.
        factors: Delta.
    """
    delta = dense_update(factors).to(weight.device).view(weight.shape)
    total = whole(base).to(weight.device).double() + delta
    slack = SAME_SUM * (total.abs() + delta.abs().max())
    return bool(((total - slack).to(weight.dtype) <= weight).all() & (weight <= (total + slack).to(weight.dtype)).all())


def same_update(first: Factors, second: Factors) -> bool:
    """Whether two updates of one weight are one: factors to the last bit, dense sums up to the order of adding up.

    Args:
        first: An update ``(d_out, d_in)``.
        second: Another.
    """
    if first.right is not None and second.right is not None:
        return torch.equal(first.left, second.left) and torch.equal(first.right, second.right)
    one, other = dense_update(first), dense_update(second)
    slack = SAME_SUM * float(other.abs().max()) if other.numel() else 0.0
    return one.shape == other.shape and torch.allclose(one, other, rtol=SAME_SUM, atol=slack)
