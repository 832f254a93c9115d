"""The solver of one layer, which keeps what is preserved there from update to update."""

from dataclasses import replace
from itertools import takewhile

from torch import Tensor

from lightning_edit.solvers.base import EditProblem, Solution, Solver
from lightning_edit.solvers.output_memit import OutputDirections
from lightning_edit.solvers.preservation import CancelledError, Preservation
from lightning_edit.solvers.previous_keys import PreviousKeys


class LayerSolver:
    """Solves the updates of one layer, with one factor of C' for as many of them as it serves.

    Its state follows from C and the previous keys alone, to the bit, so a run that is resumed need not store it.

    Args:
        solver: Any solver.
        second_moment: C ``(d_in, d_in)``.
        output_moment: B ``(d_out, d_out)`` for a solver that needs it.

    Attributes:
        factored: How many factors of C' the updates so far have needed.
    """

    def __init__(self, solver: Solver, second_moment: Tensor, output_moment: Tensor | None = None) -> None:
        self.solver = solver
        self.second_moment = second_moment
        self._directions = None if output_moment is None else OutputDirections.of(output_moment)
        self.factored = 1
        self._state = solver.factor(second_moment)
        self._preserved = PreviousKeys()
        self._latest: tuple[Preservation, Tensor, Tensor] | None = None

    def solve(self, problem: EditProblem, previous: PreviousKeys | None) -> tuple[Solution, PreviousKeys | None]:
        """The update of one layer.

        Args:
            problem: The least squares; its moments are those of the layer.
            previous: The keys to be preserved, None where none ever are.

        Returns:
            The solution, and the previous keys: all in one matrix if too many digits would have been lost otherwise.

        Raises:
            SingularError: See `Solver.solve`.
            ValueError: See `Solver.solve`.
        """
        keys = previous or PreviousKeys()
        problem = replace(problem, output_moment=self._directions or problem.output_moment)
        if problem.text_keys is not None:
            preserved = keys.extended(problem.text_keys, problem.second_moment.dim() == 3)
            return self.solve(replace(problem, text_keys=None), preserved)[0], previous
        if not self.solver.is_dual(self._state, problem):
            # The primal form needs the matrix C', not its factor, so there is nothing to extend.
            return self.solver.solve(self.state(keys.folded()), problem), previous
        try:
            return self._solve(problem, keys, previous is not None), previous
        except CancelledError:
            folded = keys.folded()
            return self._solve(problem, folded, True), folded

    def _solve(self, problem: EditProblem, previous: PreviousKeys, extended_later: bool) -> Solution:
        state = self.state(previous)
        # Room for M K of this update.
        self._latest = None
        solution = self.solver.solve(state, problem)
        # To the next update these are previous keys, and M K is what it needs of them.
        if extended_later and solution.weighted is not None:
            self._latest = (state, problem.keys, solution.weighted)
        return solution

    def state(self, previous: PreviousKeys) -> Preservation:
        """What is preserved: ordinary text and previous keys.

        Args:
            previous: The keys to be preserved.

        Raises:
            CancelledError: If too many digits are lost on the way; never without recent keys.
            SingularError: If C' is singular and there are recent keys.
        """
        if previous.moment is not self._preserved.moment:
            self.factored += 1
            self._latest = None
            self._state = self.solver.factor(self.second_moment, previous.moment, self._state.basis)
            self._preserved = PreviousKeys(previous.moment)
        recent, pairs = previous.recent, zip(self._preserved.recent, previous.recent, strict=False)
        shared = len(list(takewhile(lambda pair: pair[0] is pair[1], pairs)))
        state = self._state.shortened(sum(block.shape[1] for block in recent[:shared]))
        for block in recent[shared:]:
            state = self._extended(state, block)
        self._state, self._preserved = state, previous
        return state

    def _extended(self, state: Preservation, block: Tensor) -> Preservation:
        weighted = None
        if self._latest is not None and self._latest[0] is state and self._latest[1] is block:
            weighted = self._latest[2]
        return state.extended(block.to(self.second_moment.device), weighted)
