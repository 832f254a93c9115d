"""ROME and r-ROME: one edit at a time, written exactly."""

from dataclasses import dataclass, replace
from typing import ClassVar

from lightning_edit.settings import NotNegative
from lightning_edit.solvers.base import EditProblem, Factors, Solution, Solver
from lightning_edit.solvers.preservation import Preservation


@dataclass(frozen=True)
class ROME(Solver):
    """ROME as published (Meng et al., 2022, equation 2): rank one, equality-constrained, one edit after the other.

        Delta = R u^T / (u^T k_bare),      u = C^-1 k_mean

    Prefer it only to reproduce published figures. Its published code mixes two keys: the mean over context templates in
    u, the bare prompt's in the denominator. The two can be nearly orthogonal in the metric of C, and then one edit
    destroys the model.

    Preconditions: one edit per update; C of full rank, or a ridge; `EditProblem.bare_keys`, without which it is
    `RROME`. Instead: `RROME` for single edits, `EMMET` or `MEMIT` for many at once.
    """

    ridge: NotNegative = 0.0
    """l2, added to the diagonal of C, 0 as published."""

    edits_per_update: ClassVar[int | None] = 1
    second_moment_weight: ClassVar[float] = 1.0  # type: ignore[misc]

    def lam(self, edits: int) -> float:
        """0: the edit is written exactly."""
        return 0.0

    def solve(self, state: Preservation, problem: EditProblem) -> Solution:
        """The rank-one update of a single edit; see the class for the formula."""
        solution = super().solve(state, problem)
        if problem.bare_keys is None:
            return solution
        direction = solution.update.right
        assert direction is not None
        return replace(solution, update=Factors(problem.residual, direction / (direction @ problem.bare_keys)))


@dataclass(frozen=True)
class RROME(Solver):
    """r-ROME (Gupta et al., 2024, "Rebuilding ROME"): ROME with the mean key in numerator and denominator.

        Delta = R k^T M / (k^T M k),      M = C'^-1

    Prefer it for a single edit that must take: of all exact updates it disturbs ordinary keys least. It is `EMMET` with
    one edit.

    Preconditions: one edit per update; C of full rank, or a ridge. Instead: `EMMET` or `MEMIT` for many edits at once;
    after many single edits a sequential `MEMIT` or `AlphaEdit`, because nothing here preserves earlier ones by default.
    """

    ridge: NotNegative = 0.0
    """l2, added to the diagonal of C."""

    edits_per_update: ClassVar[int | None] = 1
    second_moment_weight: ClassVar[float] = 1.0  # type: ignore[misc]

    def lam(self, edits: int) -> float:
        """0: the edit is written exactly."""
        return 0.0
