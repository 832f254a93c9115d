"""The preservation metric of one layer, kept from update to update."""

from dataclasses import replace

from torch import Tensor

from lightning_edit.solvers.base import EditProblem, Solution, Solver, inside
from lightning_edit.solvers.preservation import CancelledError, Metric
from lightning_edit.solvers.previous_keys import PreviousKeys


class LayerSolver:
    """Solves the updates of one layer, with one factor of C' for as many of them as it serves.

    What it keeps is found again from C and the earlier keys at any time, and to the same bits.

    Args:
        solver: Any solver.
        second_moment: C ``(d_in, d_in)``.

    Attributes:
        factored: How often a factor of C' was made.
    """

    def __init__(self, solver: Solver, second_moment: Tensor) -> None:
        self.solver = solver
        self.second_moment = second_moment
        self.basis = solver.basis(second_moment)
        self.factored = 0
        self._metric: Metric | None = None
        self._of = PreviousKeys()
        self._last: tuple[Metric, Tensor, Tensor] | None = None

    def solve(self, problem: EditProblem, earlier: PreviousKeys | None) -> tuple[Solution, PreviousKeys | None]:
        """The update of one layer.

        Args:
            problem: The least squares, without earlier keys.
            earlier: The keys to be preserved, None where none ever are.

        Returns:
            The solution, and the earlier keys: all in one matrix if too many digits would have been lost otherwise.

        Raises:
            SingularError: See `Solver.__call__`.
        """
        problem = replace(problem, basis=self.basis)
        if not self.solver.is_dual(problem):
            moment = None if earlier is None else self._here(earlier.dense())
            return self.solver.solve(replace(problem, previous_keys_moment=moment)), earlier
        try:
            solution = self._solve(problem, earlier)
        except CancelledError:
            assert earlier is not None
            earlier = earlier.folded()
            solution = self._solve(problem, earlier)
        return solution, earlier

    def _solve(self, problem: EditProblem, earlier: PreviousKeys | None) -> Solution:
        metric = self.given(earlier or PreviousKeys())
        self._last = None
        solution = self.solver.solve(replace(problem, metric=metric))
        # To the next update these are earlier keys, and M K is what it needs of them.
        if earlier is not None and solution.weighted is not None:
            self._last = (metric, problem.keys, solution.weighted)
        return solution

    def given(self, earlier: PreviousKeys) -> Metric:
        """M with the earlier keys in C'.

        Args:
            earlier: The keys to be preserved.

        Raises:
            CancelledError: If too many digits are lost on the way; never without recent keys.
            SingularError: If C' is singular.
        """
        if self._metric is None or earlier.moment is not self._of.moment:
            # Room for the new factor.
            self._metric = self._last = None
            self._metric = self._new(earlier.moment)
            self._of = PreviousKeys(earlier.moment)
        known, recent = self._of.recent, earlier.recent
        shared = next((i for i, (a, b) in enumerate(zip(known, recent, strict=False)) if a is not b), None)
        shared = min(len(known), len(recent)) if shared is None else shared
        metric = self._metric.shortened(sum(block.shape[1] for block in recent[:shared]))
        for block in recent[shared:]:
            metric = self._extended(metric, block)
        self._metric, self._of = metric, earlier
        return metric

    def _new(self, moment: Tensor | None) -> Metric:
        self.factored += 1
        return self.solver.metric(self.second_moment, self._here(moment), self.basis)

    def _here(self, moment: Tensor | None) -> Tensor | None:
        """C_p where C is; what is read from a checkpoint is on the CPU."""
        return None if moment is None else moment.to(self.second_moment.device)

    def _extended(self, metric: Metric, block: Tensor) -> Metric:
        keys = inside(block.to(self.second_moment.device), self.basis)
        if self._last is not None and self._last[0] is metric and self._last[1] is block:
            return metric.extended(keys, self._last[2])
        return metric.extended(keys, metric.weighted(keys))
