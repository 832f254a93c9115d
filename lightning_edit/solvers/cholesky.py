"""Cholesky factors: what is solved with them, what is refused, and how well a matrix can be inverted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

CAUSES = {
    "preservation": "too little ordinary text, or too much of the same, for a second moment of full rank; inputs of "
    "the layer that are always zero. A larger ridge mends both.",
    "keys": "edits of the same subject in one update; more edits in one update than the layer's input has dimensions. "
    "A larger lambda or ridge, or smaller updates, mend both.",
}


class SingularError(ArithmeticError):
    """A matrix of the least squares has no usable Cholesky factor; the message lists the likely causes.

    Args:
        what: ``"preservation"`` for C' or ``"keys"`` for the system of the edits.
    """

    def __init__(self, what: Literal["preservation", "keys"]) -> None:
        self.what = what
        super().__init__(
            f"The {what} matrix is singular to working precision. Likely causes, most probable first: {CAUSES[what]}"
        )


@dataclass(frozen=True)
class Cholesky:
    """A symmetric positive definite matrix A = L L^T, known by its factor.

    Args:
        factor: L ``(m, m)``, lower triangular, in float64.
    """

    factor: Tensor

    @staticmethod
    def of(matrix: Tensor, what: Literal["preservation", "keys"]) -> "Cholesky":
        """Factors a matrix in its own memory; no other of its size is used.

        Args:
            matrix: A ``(m, m)``, contiguous; overwritten.
            what: Names the matrix in the error: C' or the system of the edits.

        Raises:
            SingularError: If the matrix is not positive definite to working precision.
        """
        diagonal = matrix.diagonal().clone()
        # LAPACK wants columns, which the rows of a symmetric matrix are just as well.
        columns, info = matrix.mT, torch.empty((), dtype=torch.int32, device=matrix.device)
        torch.linalg.cholesky_ex(columns, out=(columns, info))
        # Rounding can carry a rank-deficient matrix through; its last pivots are then of the size of the rounding.
        left = columns.diagonal().square() / diagonal
        rounding = 10 * len(matrix) * torch.finfo(matrix.dtype).eps
        if info.item() or not bool((left > rounding).all()):
            raise SingularError(what)
        return Cholesky(columns)

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 B ``(m, n)`` for B of that shape; unlike `torch.cholesky_solve` without a copy of the factor."""
        half = torch.linalg.solve_triangular(self.factor, right, upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True, out=half)

    def divide(self, left: Tensor) -> Tensor:
        """B A^-1 ``(n, m)`` in the memory of B, which must lie there by columns."""
        torch.linalg.solve_triangular(self.factor.mT, left, upper=True, left=False, out=left)
        return torch.linalg.solve_triangular(self.factor, left, upper=False, left=False, out=left)

    def product(self, right: Tensor) -> Tensor:
        """A B ``(m, n)``."""
        return self.factor @ (self.factor.mT @ right)

    def condition(self) -> float:
        """The condition number; see `condition_number`."""
        return condition_number(self.product, self.solve, self.factor[:, :1])


def condition_number(product: Callable[[Tensor], Tensor], solve: Callable[[Tensor], Tensor], like: Tensor) -> float:
    """The condition number ``|A|_1 |A^-1|_1`` of a symmetric matrix, both norms estimated; see `norm_estimate`.

    About 1e16 in float64 nothing is left to trust.

    Args:
        product: A x for x ``(m, 1)``.
        solve: A^-1 x.
        like: Any ``(m, 1)`` of the right precision and device.
    """
    return norm_estimate(product, like) * norm_estimate(solve, like)


def norm_estimate(apply: Callable[[Tensor], Tensor], like: Tensor) -> float:
    """The 1-norm of a symmetric matrix from a few products with vectors.

    Never larger than it is, and nearly always within a factor of 3 (Higham, 1988, algorithm 4.1, LAPACK's `lacn2`).

    Args:
        apply: A x for x ``(m, 1)``.
        like: Any ``(m, 1)`` of the right precision and device.
    """
    m = len(like)
    image = apply(torch.full_like(like, 1 / m, memory_format=torch.contiguous_format))
    norm, highest = image.abs().sum(), -1
    for _ in range(4):
        gradient = apply(image.sign() + (image == 0)).abs()
        # Where the steepest column is the one just looked at, no other is larger nearby.
        if int(gradient.argmax()) == highest:
            break
        highest = int(gradient.argmax())
        column = torch.zeros_like(gradient)
        column[highest] = 1.0
        image = apply(column)
        if image.abs().sum() <= norm:
            break
        norm = image.abs().sum()
    # A vector of growing entries and changing signs finds what cancels in all of the above.
    growing = torch.linspace(1, 2, m, dtype=like.dtype, device=like.device)
    growing[1::2] *= -1
    return float(torch.maximum(norm, apply(growing[:, None]).abs().sum() * 2 / (3 * m)))
