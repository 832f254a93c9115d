"""The preservation metric M = C'^-1 as what multiplies keys; earlier keys are added to C' batch after batch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lightning_edit.solvers.cholesky import Cholesky, SingularError, condition_number

# How much smaller earlier keys may make k^T M k before too many digits are lost: six of the sixteen.
MOST_CANCELLED = 1e6


class CancelledError(ArithmeticError):
    """Earlier keys take so much away from M k that too few digits of it are left; C' must be factored with them."""


class Invertible(Protocol):
    """A symmetric positive definite matrix A that can be divided by."""

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 B ``(m, n)``."""

    def product(self, right: Tensor) -> Tensor:
        """A B ``(m, n)``."""

    def condition(self) -> float:
        """The condition number in the 1-norm."""


@dataclass(frozen=True)
class Scaled:
    """The identity times a positive number.

    Args:
        scale: The number.
    """

    scale: float

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
class Metric:
    """M, the inverse of C'_0 + K_p K_p^T, for keys K_p of earlier edits that came batch after batch.

        M = C'_0^-1 - V V^T,      V = [M_1 K_1 G_1^-T, M_2 K_2 G_2^-T, ...],      G_i G_i^T = I + K_i^T M_i K_i

    M_i is M before batch i (Woodbury). A batch of n keys costs 2 n^2 d_in beside M_i K_i, which solving needs anyway; a
    new factor costs d_in^3 / 3.

    Args:
        base: C'_0 ``(m, m)``.
        earlier: K_p^T ``(N, m)``.
        columns: V^T ``(N, m)``.
    """

    base: Invertible
    earlier: Tensor | None = None
    columns: Tensor | None = None

    def weighted(self, keys: Tensor) -> Tensor:
        """M K ``(m, n)`` for keys K ``(m, n)``.

        Raises:
            CancelledError: If too little of C'_0^-1 K is left to trust the difference.
        """
        weighted = self.base.solve(keys)
        if self.columns is None:
            return weighted
        before = (keys * weighted).sum(0)
        weighted -= self.columns.T @ (self.columns @ keys)
        if not bool(((keys * weighted).sum(0) * MOST_CANCELLED > before).all()):
            raise CancelledError
        return weighted

    def extended(self, keys: Tensor, weighted: Tensor) -> "Metric":
        """The metric that preserves more keys.

        Args:
            keys: K ``(m, n)``.
            weighted: M K ``(m, n)``.

        Raises:
            CancelledError: If they are too large beside 1 to be told from keys that depend on each other.
        """
        try:
            system = Cholesky.of(dual_system(keys, weighted, 1.0), "keys")
        except SingularError as error:
            # I + K^T M K is positive definite but for rounding.
            raise CancelledError from error
        new = torch.linalg.solve_triangular(system.factor.mT, weighted, upper=True, left=False)
        return Metric(self.base, _below(self.earlier, keys.T), _below(self.columns, new.T))

    def shortened(self, edits: int) -> "Metric":
        """The metric with only the first earlier keys.

        Args:
            edits: How many of them stay.
        """
        if self.earlier is None or self.columns is None or edits == len(self.columns):
            return self
        return Metric(self.base, self.earlier[:edits], self.columns[:edits]) if edits else Metric(self.base)

    @cached_property
    def condition(self) -> float:
        """The condition number of C'_0 + K_p K_p^T, estimated."""
        earlier, columns = self.earlier, self.columns
        if earlier is None or columns is None:
            return self.base.condition()
        return condition_number(
            _with(self.base.product, earlier, 1.0), _with(self.base.solve, columns, -1.0), earlier[:1].T
        )


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


def _below(known: Tensor | None, new: Tensor) -> Tensor:
    return new.contiguous() if known is None else torch.cat([known, new])
