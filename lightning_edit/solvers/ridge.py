"""Ridge regression: nothing is known of ordinary keys, and a change costs the same in every direction."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_edit.settings import Positive
from lightning_edit.solvers.base import Solver
from lightning_edit.solvers.blocks import BlockBasis
from lightning_edit.solvers.preservation import Preservation, ScaledIdentity


@dataclass(frozen=True)
class Ridge(Solver):
    """Ridge regression of the residual on the keys: the family with C' = l2 I, as MALMEN and UltraEdit solve it.

        Delta = R K^T (l2 I + K K^T)^-1

    Prefer it with values from gradients (`Gradient`), which are small and many. No second moment is counted. With
    earlier keys preserved too, C_p is added to l2 I, which is recursive least squares.

    Preconditions: none. Instead: `MEMIT`, whose C knows which directions ordinary keys have.
    """

    ridge: Positive = 1.0
    """l2, in units of squared keys: what a change costs in every direction (1 in UltraEdit, 10 in StableEdit)."""

    needs_second_moment: ClassVar[bool] = False
    second_moment_weight: ClassVar[float] = 0.0  # type: ignore[misc]

    def lam(self, edits: int) -> float:
        """1, as in MEMIT."""
        return 1.0

    def factor(
        self,
        second_moment: Tensor,
        previous_keys_moment: Tensor | None = None,
        basis: Tensor | BlockBasis | None = None,
    ) -> Preservation:
        """C' = l2 I (+ C_p), see `Solver.factor`; of the second moment only the shape counts."""
        if previous_keys_moment is None:
            return Preservation(ScaledIdentity(self.ridge, second_moment.shape[:-1].numel(), second_moment))
        return super().factor(second_moment, previous_keys_moment, basis)
