"""Finished second moments that a user gives."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.solvers import Solver

# So many rows are compared at once.
ROWS = 1024
ASYMMETRY = 1e-4


def check_moments(decoder: Decoder, layers: Sequence[int], moments: dict[int, Tensor], solver: Solver) -> None:
    """Refuses second moments that are not those of the edited layers.

    Args:
        decoder: The model.
        layers: The edited layers.
        moments: What was given for each.
        solver: Which member of the family writes.

    Raises:
        EditError: Says what is wrong with which.
    """
    if solver.needs_output_moment:
        raise EditError(
            f"`moments` are those of keys, and {type(solver).__name__} needs those of output gradients too: give "
            "`texts` instead, from which both are counted."
        )
    if not set(layers) <= set(moments):
        raise EditError(f"`moments` must hold layers {layers}, got {sorted(moments)}.")
    for layer in layers:
        shape, moment, whose = decoder.moment_shape(layer), moments[layer], f"that of layer {decoder.shown(layer)}"
        if not isinstance(moment, Tensor) or moment.shape != shape or not moment.is_floating_point():
            got = f"{moment.dtype} {tuple(moment.shape)}" if isinstance(moment, Tensor) else type(moment).__name__
            raise EditError(f"`moments`: {whose} must be a tensor {shape} of floating point numbers, got {got}.")
        if fault := _fault(moment.detach()):
            raise EditError(
                f"`moments`: {whose} {fault}, so it is no second moment, which is the mean of k k^T over "
                "keys k. Give one, or `texts`."
            )


def _fault(moment: Tensor) -> str | None:
    """What a second moment never does, as far as that is seen at a glance."""
    if not bool(moment.isfinite().all()):
        return "holds numbers that are not finite"
    if bool((moment.diagonal(dim1=-2, dim2=-1) < 0).any()):
        return "is not positive definite: it has negative numbers on its diagonal"
    # A product in low precision need not be symmetric to the last bit.
    most = max(ASYMMETRY, 4 * torch.finfo(moment.dtype).eps) * max(float(moment.max()), -float(moment.min()))
    for rows, columns in zip(moment.split(ROWS, -2), moment.mT.split(ROWS, -2), strict=True):
        if float((rows - columns).abs().max()) > most:
            return "is not symmetric"
    return None
