"""Preservation: C' and its inverse M as what multiplies keys; keys of earlier edits are added batch after batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lightning_edit.solvers.blocks import BlockBasis, inside, outside
from lightning_edit.solvers.cholesky import Cholesky, SingularError, condition_number

# How much smaller earlier keys may make k^T M k before too many digits are lost: six of the sixteen.
MOST_CANCELLED = 1e6


class CancelledError(ArithmeticError):
    """Earlier keys take so much away from M k that too few digits of it are left; C' must be factored with them."""


class Invertible(Protocol):
    """A symmetric positive definite matrix A that can be divided by."""

    def matrix(self) -> Tensor:
        """A ``(m, m)`` in memory of its own, which the caller may overwrite."""

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 B ``(m, n)``."""

    def product(self, right: Tensor) -> Tensor:
        """A B ``(m, n)``."""

    def condition(self) -> float:
        """The condition number in the 1-norm."""


@dataclass(frozen=True)
class ScaledIdentity:
    """The identity times a positive number; nothing needs to be factored.

    Args:
        scale: The number.
        size: m.
        like: Any tensor of the right precision and device.
    """

    scale: float
    size: int
    like: Tensor

    def matrix(self) -> Tensor:
        """A ``(m, m)``."""
        matrix = self.like.new_zeros(self.size, self.size)
        matrix.diagonal().add_(self.scale)
        return matrix

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 B ``(m, n)``."""
        return right / self.scale

    def product(self, right: Tensor) -> Tensor:
        """A B ``(m, n)``."""
        return right * self.scale

    def condition(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class LazyCholesky:
    """A matrix that is factored once, when it is first divided by: larger updates than d_in do not divide by it.

    Args:
        make: Makes A ``(m, m)`` in new memory, contiguous.
    """

    make: Callable[[], Tensor]

    @cached_property
    def factor(self) -> Cholesky:
        """The factor of A.

        Raises:
            SingularError: If A is not positive definite to working precision.
        """
        return Cholesky.of(self.make(), "preservation")

    def matrix(self) -> Tensor:
        """A ``(m, m)``."""
        return self.make()

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 B ``(m, n)``."""
        return self.factor.solve(right)

    def product(self, right: Tensor) -> Tensor:
        """A B ``(m, n)``."""
        return self.factor.product(right)

    def condition(self) -> float:
        """The condition number in the 1-norm, estimated."""
        return self.factor.condition()


@dataclass(frozen=True)
class Preservation:
    """What updates of one layer preserve: C' = C'_0 + K_p K_p^T, for keys K_p of earlier edits, as M = C'^-1.

        M = C'_0^-1 - V V^T,      V = [M_1 K_1 G_1^-T, M_2 K_2 G_2^-T, ...],      G_i G_i^T = I + K_i^T M_i K_i

    K_i are the keys of batch i and M_i is M before it (Woodbury). A batch of n keys costs 2 n^2 d_in beside M_i K_i,
    which solving needs anyway; a new factor costs d_in^3 / 3. `Solver.factor` makes one; it never changes.

    Args:
        base: C'_0 ``(m, m)``.
        basis: U ``(d_in, m)``, orthonormal columns, if C' lies in their span and updates do too; None if m = d_in.
        earlier: K_p^T ``(N, m)``, in the coordinates of the basis.
        columns: V^T ``(N, m)``.

    Attributes:
        dual_only: Whether there is no C' to write the primal form with, but only M.
    """

    dual_only: ClassVar[bool] = False
    base: Invertible
    basis: Tensor | BlockBasis | None = None
    earlier: Tensor | None = None
    columns: Tensor | None = None

    def inside(self, keys: Tensor) -> Tensor:
        """Keys ``(d_in, n)`` in the coordinates of the basis, U^T K ``(m, n)``."""
        return inside(self.basis, keys)

    def outside(self, rows: Tensor) -> Tensor:
        """Rows ``(n, m)`` in the coordinates of the basis as rows of d_in, X U^T."""
        return outside(self.basis, rows)

    def matrix(self) -> Tensor:
        """C' ``(m, m)`` in new memory."""
        matrix = self.base.matrix()
        return matrix if self.earlier is None else matrix.addmm_(self.earlier.T, self.earlier)

    def weighted(self, keys: Tensor) -> Tensor:
        """M K ``(m, n)``, which costs a factor of C'_0 the first time.

        Args:
            keys: K ``(m, n)``, see `inside`.

        Raises:
            SingularError: If C'_0 is singular.
            CancelledError: If too little of C'_0^-1 K is left to trust the difference.
        """
        weighted = self.base.solve(keys)
        if self.columns is None:
            return weighted
        before = (keys * weighted).sum(0)
        weighted -= self.columns.T @ (self.columns @ keys)
        if not bool(((keys * weighted).sum(0) * MOST_CANCELLED >= before).all()):
            raise CancelledError
        return weighted

    def extended(self, keys: Tensor, weighted: Tensor | None = None) -> "Preservation":
        """With more keys preserved, at the cost of their number.

        Args:
            keys: K ``(d_in, n)``.
            weighted: M K ``(m, n)`` where it is known, as in a `Solution` for these keys.

        Raises:
            SingularError: If C'_0 is singular.
            CancelledError: If the keys are too large beside 1 to be told from keys that depend on each other.
        """
        keys = self.inside(keys)
        weighted = self.weighted(keys) if weighted is None else weighted
        try:
            system = Cholesky.of(dual_system(keys, weighted, 1.0), "keys")
        except SingularError as error:
            # I + K^T M K is positive definite but for rounding.
            raise CancelledError from error
        columns = torch.linalg.solve_triangular(system.factor.mT, weighted, upper=True, left=False)
        return replace(self, earlier=_below(self.earlier, keys.T), columns=_below(self.columns, columns.T))

    def shortened(self, edits: int) -> "Preservation":
        """With only the first earlier keys.

        Args:
            edits: How many of them stay.
        """
        if self.earlier is None or self.columns is None or edits == len(self.columns):
            return self
        if not edits:
            return replace(self, earlier=None, columns=None)
        return replace(self, earlier=self.earlier[:edits], columns=self.columns[:edits])

    @cached_property
    def condition(self) -> float:
        """The condition number of C', estimated in the 1-norm; infinite if C'_0 is singular."""
        earlier, columns = self.earlier, self.columns
        try:
            if earlier is None or columns is None:
                return self.base.condition()
            return condition_number(
                _with(self.base.product, earlier, 1.0), _with(self.base.solve, columns, -1.0), earlier[:1].T
            )
        except SingularError:
            return math.inf


@dataclass(frozen=True)
class Without(Preservation):
    """A preservation under which nothing at all may change along some directions, as if they had infinite weight.

    Args:
        removed: Q ``(m, r)``, these directions in the coordinates of the basis, orthonormal.
    """

    dual_only: ClassVar[bool] = True
    removed: Tensor | None = None

    def weighted(self, keys: Tensor) -> Tensor:
        """M K ``(m, n)`` of what the keys have outside of these directions; nothing is lost where that is little."""
        return self.base.solve(without(keys, self.removed))


def without(vectors: Tensor, removed: Tensor | None) -> Tensor:
    """X - Q Q^T X ``(m, n)``.

    Args:
        vectors: X ``(m, n)``.
        removed: Q ``(m, r)``, orthonormal columns; None for none.
    """
    if removed is None:
        return vectors
    vectors = vectors - removed @ (removed.T @ vectors)
    # Once more, for what rounding has left of vectors that lie almost within them.
    return vectors - removed @ (removed.T @ vectors)


def dual_system(keys: Tensor, weighted: Tensor, lam: float) -> Tensor:
    """K^T M K + lam I ``(n, n)``.

    Args:
        keys: K ``(m, n)``.
        weighted: M K ``(m, n)``.
        lam: Added to the diagonal.
    """
    system = keys.T @ weighted
    system.diagonal().add_(lam)
    return system


def _with(apply: Callable[[Tensor], Tensor], rows: Tensor, sign: float) -> Callable[[Tensor], Tensor]:
    return lambda x: apply(x) + sign * (rows.T @ (rows @ x))


def _below(rows: Tensor | None, more: Tensor) -> Tensor:
    return more.contiguous() if rows is None else torch.cat([rows, more])
