"""EvoEdit: AlphaEdit whose null space shrinks with every update."""

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.settings import NotNegative
from lightning_edit.solvers.alphaedit import AlphaEdit
from lightning_edit.solvers.anchors.base import Anchor, AnchoredSolution, Standing
from lightning_edit.solvers.base import EditProblem, Factors, Solver
from lightning_edit.solvers.layer_solver import LayerSolver
from lightning_edit.solvers.preservation import Without, without
from lightning_edit.solvers.previous_keys import PreviousKeys

logger = logging.getLogger(__name__)

# Of P K: what is below it counts as no direction.
SMALLEST = 1e-10


@dataclass(frozen=True)
class EvoEdit(Anchor):
    """EvoEdit (beside RLSEdit, 2026): what an update wrote leaves the null space, so later ones cannot touch it.

        Delta = R K^T P (P K K^T P + L2 I)^-1 P,      then P <- P - Q Q^T

    where the columns of Q are an orthonormal basis of P K. Earlier edits are kept exactly, as ordinary text is, and
    the space for later ones shrinks by their number: once it is used up nothing more is written. An update whose keys
    or residuals are almost nothing is passed over.

    Preconditions: `AlphaEdit` (L2 4 as published) without earlier keys, and fewer edits in all than the null space has
    dimensions. Instead: `AlphaEdit` with earlier keys, which holds them by a weight and never runs out of space.
    """

    least_keys: NotNegative = 1e-3
    """An update with a smaller norm of P K is passed over (1e-3 as published)."""

    least_residual: NotNegative = 1e-2
    """An update whose residuals have a smaller norm on average is passed over (1e-2 as published)."""

    writes_dense: ClassVar[bool] = False
    remembers: ClassVar[frozenset[str]] = frozenset({"removed"})

    def check(self, solver: Solver) -> None:
        """Refuses all solvers without a null space.

        Raises:
            EditError: For any but AlphaEdit.
        """
        if not isinstance(solver, AlphaEdit):
            raise EditError(
                "`anchor: EvoEdit` shrinks the null space of ordinary keys, which only `solver: AlphaEdit` writes "
                f"into, got {type(solver).__name__}."
            )

    def numbers(self, weight: tuple[int, int], keys: int, of_all: int, tokens: int) -> tuple[int, int]:
        """The directions of all earlier keys, which are there once more inside of the null space."""
        d_in = weight[1]
        directions = min(of_all, d_in)
        return d_in * directions, d_in * (directions + 3 * keys)

    def solve(self, layer_solver: LayerSolver, problem: EditProblem, standing: Standing) -> AnchoredSolution:
        """AlphaEdit's update in what is left of the null space."""
        state, removed = layer_solver.state(PreviousKeys()), standing.memory.get("removed")
        removed = None if removed is None else removed.to(problem.keys.device)
        free = Without(state.base, state.basis, removed=None if removed is None else state.inside(removed))
        solution = layer_solver.solver.solve(free, problem)
        inside = without(state.inside(problem.keys), free.removed)
        if float(inside.norm()) < self.least_keys or float(problem.residual.norm(dim=0).mean()) < self.least_residual:
            logger.warning(
                "An update of %d edits is passed over, because next to nothing of their keys is in the null space, or "
                "of their residuals is left to write.",
                problem.keys.shape[1],
            )
            nothing = Factors(torch.zeros_like(problem.residual), solution.update.right)
            return AnchoredSolution(replace(solution, update=nothing), standing.previous, standing.memory)
        return AnchoredSolution(solution, standing.previous, {"removed": _with(removed, inside, free)})


def _with(removed: Tensor | None, inside: Tensor, free: Without) -> Tensor:
    """The directions ``(d_in, r)`` with those of more keys.

    Args:
        removed: Those so far ``(d_in, r)``.
        inside: P K ``(m, n)`` in the coordinates of the null space.
        free: What of the null space was left for them.
    """
    left, values, _ = torch.linalg.svd(inside, full_matrices=False)
    # Small ones have parts along the others that are rounding alone.
    new = torch.linalg.qr(without(left[:, values > SMALLEST], free.removed)).Q
    new = free.outside(new.T).T
    return new.contiguous() if removed is None else torch.cat([removed, new], dim=1)
