"""The preservation-memorization least squares: its data, its one formula and what a solver is.

One edited layer W (d_out x d_in) is to answer n keys K (d_in x n) with the residual R (d_out x n) added, and to answer
ordinary keys, whose second moment is C, as before. With the inverse preservation metric M and lam >= 0 the update is

    Delta = R (K^T M K + lam I)^-1 K^T M,      M = C'^-1,      C' = w C + l2 I

(ROME, equation 2; MEMIT, equation 14; EMMET, section 4, arXiv 2403.14236). With earlier edits C_p is added to C'. The
update is linear in the residual: Delta = R S, where the writer S ``(n, d_in)`` depends on keys alone.

An update of n edits takes, beside its data, room for d_in^2 + n d_in + n^2 numbers in the dual form (n <= d_in), the
factor of C' and the writer among them, and for d_in^2 + 2 d_out d_in in the primal one: at most 3 d_in^2.
"""

import math
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from lightning_edit.solvers.cholesky import Cholesky, SingularError
from lightning_edit.solvers.preservation import Metric, dual_system
from lightning_edit.solvers.previous_keys import SHARE


@dataclass(frozen=True)
class EditProblem:
    """The least squares of one edited layer; all float64, on one device.

    Args:
        keys: K ``(d_in, n)``, one column for each edit.
        residual: R ``(d_out, n)``, what W K must gain.
        second_moment: C ``(d_in, d_in)``, E[k k^T] over ordinary text.
        previous_keys_moment: C_p ``(d_in, d_in)``, sum of k k^T over earlier edits, preserved as well.
        bare_keys: ``(d_in, n)`` keys in the bare prompt, which the original ROME mixes with the mean keys.
        basis: What `Solver.basis` made of ``second_moment``, so that a run makes it once; None lets the solver make it.
        metric: What `Solver.metric` made of both moments, likewise; it is then used in their place in the dual form.
    """

    keys: Tensor
    residual: Tensor
    second_moment: Tensor
    previous_keys_moment: Tensor | None = None
    bare_keys: Tensor | None = None
    basis: Tensor | None = None
    metric: Metric | None = None

    def preservation_error(self, update: "Factors") -> float:
        """RMS over ordinary keys of ``|Delta k0|``: sqrt(trace(Delta C Delta^T)), in units of W's output."""
        left, moment = update.left, self.second_moment
        if update.right is not None and len(update.right) < len(left):
            moment = update.right @ moment @ update.right.T
        else:
            left = update.dense()
        return float((left @ moment).mul_(left).sum().clamp(min=0).sqrt())

    def memorization_error(self, update: "Factors") -> float:
        """Frobenius norm ``|Delta K - R| / |R|``: the part of the residual that is not written."""
        return float((update.apply(self.keys) - self.residual).norm() / self.residual.norm())


@dataclass(frozen=True)
class Factors:
    """An update Delta (d_out x d_in) as a product, or dense where that is smaller.

    Solvers give their normal form, ``left`` the residual R and ``right`` the writer S, while n <= d_in.

    Args:
        left: ``(d_out, r)``, or Delta itself.
        right: ``(r, d_in)``, or None if ``left`` is Delta.
    """

    left: Tensor
    right: Tensor | None = None

    def dense(self) -> Tensor:
        """Delta ``(d_out, d_in)``."""
        return self.left if self.right is None else self.left @ self.right

    def apply(self, keys: Tensor) -> Tensor:
        """Delta K ``(d_out, n)`` for keys ``(d_in, n)``."""
        return self.left @ (keys if self.right is None else self.right @ keys)


@dataclass(frozen=True)
class Solution:
    """An update and what was needed for it.

    Args:
        problem: The least squares, with the basis if there is one.
        update: Delta.
        system: What was solved, see `Solver.condition_numbers`.
        metric: M, None in the primal form.
        weighted: M K, likewise and None where n > `SHARE` d_in.
    """

    problem: EditProblem
    update: Factors
    system: Cholesky
    metric: Metric | None = None
    weighted: Tensor | None = None


class Solver(ABC):
    """Turns an `EditProblem` into an update; knows no model, device or logger.

    Attributes:
        edits_per_update: Most edits that one call takes, None if there is no limit.
        preserves_edits: Whether the published method preserves earlier edits too (`EditProblem.previous_keys_moment`).
        second_moment_weight: w, the weight of preservation.
        ridge: l2, added to the diagonal of the preservation metric.
    """

    edits_per_update: ClassVar[int | None] = None
    preserves_edits: ClassVar[bool] = False
    second_moment_weight: float
    ridge: float

    def __call__(self, problem: EditProblem) -> Factors:
        """The update of one layer.

        Raises:
            SingularError: If C' is singular, or the keys depend on each other where they must not.
            ValueError: If there are more edits than one call takes.
        """
        return self.solve(problem).update

    @abstractmethod
    def lam(self, edits: int) -> float:
        """The lambda with which so many edits are written; 0 writes them exactly.

        Args:
            edits: n, the edits of one update.
        """

    def basis(self, second_moment: Tensor) -> Tensor | None:
        """U ``(d_in, r)`` if all is solved in the span of its columns, which are orthonormal; None for most solvers.

        Args:
            second_moment: C ``(d_in, d_in)``.
        """
        return None

    def check(self, second_moment: Tensor) -> None:
        """Refuses a second moment that no update can be solved with; cheaper than solving one.

        Args:
            second_moment: C ``(d_in, d_in)``, finite.

        Raises:
            SingularError: If C' is singular.
            ValueError: If the solver cannot use it for another reason, which the message tells.
        """
        self.metric(second_moment)

    def preservation(
        self, second_moment: Tensor, previous_keys_moment: Tensor | None = None, basis: Tensor | None = None
    ) -> Tensor:
        """C' = w C + l2 I (+ C_p), ``(d_in, d_in)``: the matrix whose inverse is M. With a basis U, it inside of it.

        Args:
            second_moment: C ``(d_in, d_in)``.
            previous_keys_moment: C_p ``(d_in, d_in)``, or None.
            basis: See `basis`.
        """
        matrix = self.second_moment_weight * second_moment
        matrix.diagonal().add_(self.ridge)
        return matrix if previous_keys_moment is None else matrix.add_(previous_keys_moment)

    def metric(
        self, second_moment: Tensor, previous_keys_moment: Tensor | None = None, basis: Tensor | None = None
    ) -> Metric:
        """M as what multiplies keys, which the dual form needs of the moments; see `preservation`.

        Raises:
            SingularError: If C' is singular.
        """
        return Metric(Cholesky.of(self.preservation(second_moment, previous_keys_moment, basis), "preservation"))

    def solve(self, problem: EditProblem) -> Solution:
        """The update of the whole family, by whichever of its two forms is smaller.

        Dual (n <= d_in, or lam = 0): R (K^T M K + lam I)^-1 K^T M, an n x n system, in the normal form R S. Primal:
        R K^T (lam C' + K K^T)^-1, equal to it by the push-through identity for lam > 0, and dense.

        Raises:
            SingularError: If C' is singular, or the keys depend on each other and lam is 0.
            CancelledError: See `Metric.weighted`; only for a metric that was given and extended.
        """
        basis = self.basis(problem.second_moment) if problem.basis is None else problem.basis
        keys, lam = inside(problem.keys, basis), self.lam(problem.keys.shape[1])
        problem = replace(problem, basis=basis)
        if not self.is_dual(problem):
            return self._primal(problem, keys, lam)
        metric = problem.metric or self.metric(problem.second_moment, problem.previous_keys_moment, basis)
        weighted = metric.weighted(keys)
        system = Cholesky.of(dual_system(keys, weighted, lam), "keys")
        # Of a large update M K is not needed again, see `LayerSolver`, and the writer takes its place.
        few = keys.shape[1] <= SHARE * len(problem.keys)
        writer = system.divide(weighted.clone() if few else weighted).T
        update = Factors(problem.residual, outside(writer, basis))
        return Solution(problem, update, system, metric, weighted if few else None)

    def _primal(self, problem: EditProblem, keys: Tensor, lam: float) -> Solution:
        matrix = self.preservation(problem.second_moment, problem.previous_keys_moment, problem.basis).mul_(lam)
        system = Cholesky.of(matrix.addmm_(keys, keys.T), "preservation")
        if problem.keys.shape[1] > len(problem.keys):
            delta = system.solve(keys @ problem.residual.T).T
            return Solution(problem, Factors(outside(delta, problem.basis)), system)
        return Solution(problem, Factors(problem.residual, outside(system.solve(keys).T, problem.basis)), system)

    def is_dual(self, problem: EditProblem) -> bool:
        """Whether `solve` takes the dual form."""
        space = problem.keys if problem.basis is None else problem.basis.T
        return problem.keys.shape[1] <= len(space) or not self.lam(problem.keys.shape[1]) > 0

    def condition_numbers(self, problem: EditProblem, solution: Solution | None = None) -> dict[str, float]:
        """How well the matrices of an update can be inverted, in the 1-norm; estimates, infinite where singular.

        Args:
            problem: The least squares.
            solution: Of this problem, if there is one: then only the primal form needs a factor more, of C'.

        Returns:
            ``preservation``, of C' with C_p; ``keys``, of the system of the edits: K^T M K + lam I, or
            lam C' + K K^T where that is smaller and is what is solved.
        """
        with suppress(SingularError):
            solution = solution or self.solve(problem)
        metric = problem.metric if solution is None else solution.metric
        with suppress(SingularError):
            metric = metric or self.metric(problem.second_moment, problem.previous_keys_moment, problem.basis)
        return {
            "preservation": math.inf if metric is None else metric.condition,
            "keys": math.inf if solution is None else solution.system.condition(),
        }


def inside(keys: Tensor, basis: Tensor | None) -> Tensor:
    """Keys ``(d_in, n)`` in the coordinates of a basis, U^T K ``(r, n)``; as they are where there is none."""
    return keys if basis is None else basis.T @ keys


def outside(rows: Tensor, basis: Tensor | None) -> Tensor:
    """Rows ``(n, r)`` in the coordinates of a basis as rows of d_in, X U^T; as they are where there is none."""
    return rows if basis is None else rows @ basis.T
