"""The sum of steps: what the family tends to where ordinary keys count for everything."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_edit.solvers.base import EditProblem, Factors, Solution, Solver
from lightning_edit.solvers.blocks import BlockBasis
from lightning_edit.solvers.preservation import Preservation, ScaledIdentity


@dataclass(frozen=True)
class Sum(Solver):
    """The sum of all pairs' products, as MEND (Mitchell et al., 2022, arXiv 2110.11309) writes them; nothing is solved.

        Delta = R K^T = lim c R K^T (c I + K K^T)^-1,      c -> infinity

    Pairs do not know of each other: what several of them share is written several times, which is why MALMEN solves
    instead. Take it with values from gradients (`Gradient`), whose residuals are steps; that of a search says what W K
    must gain, and a sum does not heed it.

    Preconditions: small steps. Instead: `Ridge`.
    """

    needs_second_moment: ClassVar[bool] = False
    solves: ClassVar[bool] = False
    second_moment_weight: ClassVar[float] = 0.0  # type: ignore[misc]
    ridge: ClassVar[float] = 1.0  # type: ignore[misc]

    def lam(self, edits: int) -> float:
        """1; nothing is solved with it."""
        return 1.0

    def factor(
        self,
        second_moment: Tensor,
        previous_keys_moment: Tensor | None = None,
        basis: Tensor | BlockBasis | None = None,
    ) -> Preservation:
        """The identity, see `Solver.factor`; of the second moment only the shape counts."""
        return Preservation(ScaledIdentity(self.ridge, second_moment.shape[:-1].numel(), second_moment))

    def is_dual(self, state: Preservation, problem: EditProblem) -> bool:
        """Always; see `Solver.is_dual`."""
        return True

    def solve(self, state: Preservation, problem: EditProblem) -> Solution:
        """R K^T; see `Solver.solve`."""
        d_in, n = problem.keys.shape
        writer = problem.keys.T
        update = Factors(problem.residual, writer) if n <= d_in else Factors(problem.residual @ writer)
        return Solution(update, ScaledIdentity(1.0, n, problem.keys), state)
