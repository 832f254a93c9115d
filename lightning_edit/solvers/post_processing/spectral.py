"""Post-processing by directions that matter to a weight: none of them is touched by an update any more, or less."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_edit.settings import Range
from lightning_edit.solvers.post_processing.base import PostProcessor

Share = Annotated[float, Range(above=0, at_most=1)]


@dataclass(frozen=True)
class SPHERE(PostProcessor):
    """SPHERE (Energy-Regularized Sequential Model Editing on Hyperspheres, 2026): the main directions of rows stay.

        Delta <- Delta (I - alpha U U^T)

    The columns of U are the eigenvectors of W^^T W^ / d_out, W^ being the current W with rows of length 1, from the
    largest on until they have the share eta of the sum of all eigenvalues. It keeps the rows from moving towards each
    other, which is what spoils a weight that is edited again and again.

    Made for `AlphaEdit` (L2 1) in a long sequence. An edit's key has a part along these directions as well, so some of
    what it was to write is missing: measure efficacy.
    """

    eta: Share = 0.5
    """The share of energy that the directions have (0.5 as published)."""

    alpha: Share = 0.5
    """How much of an update's part along them is taken away; 1 takes all of it (0.5 as published)."""

    def __call__(self, update: Tensor, base: Tensor) -> Tensor:
        """The update with less along the main directions of the rows."""
        rows = torch.nn.functional.normalize(base.to(update), dim=1)
        _, right = dominant(rows, self.eta)
        return update - self.alpha * (update @ right) @ right.T


@dataclass(frozen=True)
class REVIVE(PostProcessor):
    """REVIVE (arXiv 2601.11042): what an update would change in the dominant singular subspace of W0 is taken away.

        Delta <- (I - U U^T) Delta (I - V V^T),      W0 = U0 S V0^T

    The columns of U and V are the singular vectors from the largest on until their s^2 have the share `energy` of the
    sum. In the basis of W0's singular vectors all components u_i v_j^T with u_i or v_j among them become 0.

    Made for thousands of edits one after the other, over `MEMIT`, `AlphaEdit` or RECT. The more is protected, the less
    of an edit is left: measure efficacy, and lower `energy`.
    """

    energy: Share = 0.1
    """The share of s^2 that is protected; no published value is known, and larger ones cost efficacy."""

    of_base: ClassVar[bool] = True

    def __call__(self, update: Tensor, base: Tensor) -> Tensor:
        """The update outside of the dominant subspace."""
        left, right = dominant(base.to(update), self.energy)
        update = update - left @ (left.T @ update)
        return update - (update @ right) @ right.T


def dominant(matrix: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The largest singular directions of a matrix, just so many that their s^2 have a share of the sum.

    They are found from the smaller one of its Gram matrices, which costs a part of what all singular vectors do.

    Args:
        matrix: ``(d_out, d_in)`` in float64.
        share: Above 0, at most 1.

    Returns:
        Left and right ones ``(d_out, r)`` and ``(d_in, r)``.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    rows = matrix if wide else matrix.T
    energies, vectors = torch.linalg.eigh(rows @ rows.T)
    energies, vectors = energies.flip(0).clamp(min=0), vectors.flip(1)
    # Rounding may leave the last sum below a share of 1.
    count = min(int((energies.cumsum(0) < share * energies.sum()).sum()) + 1, int((energies > 0).sum()))
    own = vectors[:, :count]
    other = torch.linalg.qr(rows.T @ own).Q
    return (own, other) if wide else (other, own)
