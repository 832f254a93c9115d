"""Anchors: what holds the updates of a long sequence to the unedited model and to what earlier updates wrote.

An anchor remembers something of each layer from update to update and changes the least squares of the next one with it:
by a pull G on the right-hand side, by the space that is free, or by what becomes of the solution. What it remembers are
plain tensors, which belong to the run as C_p does. D is the sum of a layer's updates so far, W - W0.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from lightning_edit.settings import Checked
from lightning_edit.solvers.base import EditProblem, Factors, Solution, Solver
from lightning_edit.solvers.layer_solver import LayerSolver
from lightning_edit.solvers.previous_keys import PreviousKeys

Memory = Mapping[str, Tensor]


@dataclass(frozen=True)
class Standing:
    """Where one layer stands before an update.

    Args:
        added: D ``(d_out, d_in)`` in float64; None where nothing is edited yet.
        previous: The keys of earlier edits; None where they are not preserved.
        memory: What the anchor remembers of the layer, empty at first.
    """

    added: Tensor | None = None
    previous: PreviousKeys | None = None
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True)
class AnchoredSolution:
    """A solution under an anchor.

    Args:
        solution: The update and its system.
        previous: See `LayerSolver.solve`.
        memory: What the anchor will remember if the update is written.
    """

    solution: Solution
    previous: PreviousKeys | None
    memory: Memory


class Anchor(Checked, ABC):
    """What holds the updates of a run to what came before them.

    Attributes:
        keeps_keys: Whether C_p belongs to the method; if not, there must be none.
        writes_dense: Whether its updates are matrices as a whole, and not products of few columns.
        from_unedited: Whether each update is solved on the unedited weights, whatever was written before.
        remembers: The names in its memory.
    """

    keeps_keys: ClassVar[bool] = False
    writes_dense: ClassVar[bool] = True
    from_unedited: ClassVar[bool] = False
    remembers: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def check(self, solver: Solver) -> None:
        """Refuses a solver with which the anchor means nothing.

        Args:
            solver: That of the run.

        Raises:
            EditError: Says which would do.
        """

    @abstractmethod
    def numbers(self, weight: tuple[int, int], keys: int, of_all: int, tokens: int) -> tuple[int, int]:
        """How many numbers are remembered of a layer, and how many more there are while it is solved and written.

        Args:
            weight: ``(d_out, d_in)``.
            keys: How many an update writes.
            of_all: How many all updates write.
            tokens: Of the texts of an update.
        """

    def solve(self, layer_solver: LayerSolver, problem: EditProblem, standing: Standing) -> AnchoredSolution:
        """The update of one layer.

        Args:
            layer_solver: That of the layer.
            problem: The least squares of its edits.
            standing: Where the layer stands.

        Raises:
            SingularError: See `Solver.solve`.
        """
        solution, previous = layer_solver.solve(problem, standing.previous)
        return AnchoredSolution(solution, previous, standing.memory)

    def written(
        self, memory: Memory, problem: EditProblem, update: Factors, standing: Standing
    ) -> tuple[Memory, dict[str, float]]:
        """What is remembered once an update is written, and figures of it.

        Args:
            memory: That of the `AnchoredSolution`.
            problem: The least squares that was solved.
            update: What is added to the weight, after all processing.
            standing: Where the layer stood before it.
        """
        return memory, {}
