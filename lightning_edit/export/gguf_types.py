"""Rounding edited matrices to the numbers that a GGUF file keeps, and what that leaves of their updates.

A matrix W that an update Delta is added to is kept as Q(W + Delta). Two figures say what rounding does to the update,
with E = Q(W + Delta) - (W + Delta):

    error = |E| / |Delta|        kept = <Q(W + Delta) - W, Delta> / |Delta|^2

Where E is noise that knows nothing of Delta, the matrix gets coarser and the update is still in it: kept is 1. A W that
lies on the same grid already takes no change below half a step: E is -Delta, and kept is 0.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from gguf import GGML_QUANT_SIZES, dequantize, quantize
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.messages import readable

logger = logging.getLogger(__name__)

AUTO = "auto"
# By size; what the package gguf can write. K-quants and IQ it only reads.
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4", "TQ2_0", "TQ1_0")
# The least share of an update that must be left, and the error above which the edits should be asked again.
LEAST, NOTABLE = 0.5, 0.1
# The largest error that `auto` accepts of float16.
FINE = 0.1


@dataclass(frozen=True, repr=False)
class Rounded:
    """An edited matrix as the file keeps it.

    Args:
        name: What the file calls it.
        before: The type it had.
        kind: The type it has.
        data: Its bytes, as an array.
        error: See the module.
        kept: The same.
    """

    name: str
    before: Kind
    kind: Kind
    data: Any = field(repr=False)
    error: float
    kept: float

    def matrix(self) -> Tensor:
        """Its numbers, in float32, of the shape that they had."""
        return torch.from_numpy(numpy.array(dequantize(self.data, self.kind)))


def round_to(name: str, weight: Tensor, update: Tensor, before: Kind, wanted: str) -> Rounded:
    """Adds an update to a matrix and rounds the sum.

    Args:
        name: What the file calls the matrix.
        weight: W, of any shape, the last dimension being its rows'.
        update: Delta, of the same shape.
        before: The type that the file keeps W in.
        wanted: The type to round to; ``auto`` takes float16, and float32 where the matrix had that already or float16
            changes more than a tenth of what the update does.

    Raises:
        EditError: If the matrix cannot be kept in that type.
    """
    if wanted != AUTO:
        return _round(name, weight, update, before, Kind[wanted])
    if before is not Kind.F32:
        rounded = _round(name, weight, update, before, Kind.F16)
        # One that is too large for float16 has an error that is not finite.
        if rounded.error <= FINE:
            return rounded
    return _round(name, weight, update, before, Kind.F32)


def _round(name: str, weight: Tensor, update: Tensor, before: Kind, kind: Kind) -> Rounded:
    block, _ = GGML_QUANT_SIZES[kind]
    if weight.shape[-1] % block:
        raise EditError(
            f"`--gguf_type {kind.name}` keeps numbers in blocks of {block}, and the rows of {name} have "
            f"{weight.shape[-1]}. Give F16."
        )
    target = weight.double() + update
    with numpy.errstate(over="ignore", invalid="ignore"):
        data = quantize(target.float().numpy(), kind)
        found = torch.from_numpy(numpy.array(dequantize(data, kind))).double()
    size = float(update.norm())
    if not size:
        return Rounded(name, before, kind, data, 0.0, 1.0)
    kept = float(((found - weight) * update).sum()) / size**2
    return Rounded(name, before, kind, data, float((found - target).norm()) / size, kept)


def check_rounded(rounded: Rounded, most: float | None) -> None:
    """Refuses a type in which an update would not be found again.

    Args:
        rounded: The matrix.
        most: The largest error that is accepted; None for any that leaves the update in place.

    Raises:
        EditError: With the figures, and what would do.
    """
    kind, better = rounded.kind.name, "Give --gguf_type F16 or F32, or leave it out"
    if not numpy.isfinite(rounded.error):
        raise EditError(f"`--gguf_type {kind}`: {rounded.name} has numbers too large for it. {better}.")
    if rounded.kept < LEAST:
        raise EditError(
            f"`--gguf_type {kind}` would take the edits out again: {max(rounded.kept, 0):.0%} of the update of "
            f"{rounded.name} would be left, as its numbers are smaller than the steps of {kind}. {better}; an adapter "
            "(--to gguf-lora) leaves the matrix in its type and loses nothing."
        )
    if most is not None and rounded.error > most:
        raise EditError(
            f"`--max_error {most:g}`: rounding {rounded.name} to {kind} makes an error of "
            f"{readable(rounded.error, 2)}, relative to the update. {better}; or accept a larger error."
        )
    if rounded.error > NOTABLE:
        logger.warning(
            "Rounding %s to %s changes its numbers by %s of what the update does; %.0f %% of the update are left.",
            *(rounded.name, kind, readable(rounded.error, 2), 100 * rounded.kept),
        )
