"""MEMIT: many edits at once, memorization traded against preservation."""

from dataclasses import dataclass

from lightning_edit.settings import NotNegative, Positive
from lightning_edit.solvers.base import Solver


@dataclass(frozen=True)
class MEMIT(Solver):
    """MEMIT (Meng et al., 2023, equation 14): the least squares with both goals in the objective.

        Delta = R K^T (C' + K K^T)^-1,      C' = w C + l2 I

    Prefer it for many edits, also more than d_in, and for keys that depend on each other. Nothing is written exactly: a
    large w preserves more and memorizes less. For one update after another let the run preserve earlier keys too (C_p
    is added to C'), which is sequential MEMIT; with a ridge of 10-20 and MPES as the stopping rule of the values it is
    ENCORE (arXiv 2502.01636).

    Preconditions: C of full rank, or a ridge. Instead: `EMMET` with a small lambda where every edit must take;
    `AlphaEdit` where ordinary keys leave a large null space.
    """

    second_moment_weight: Positive = 20000.0
    """w, the weight of preservation (`mom2_update_weight` of the published code)."""

    ridge: NotNegative = 0.0
    """l2, added to the diagonal of w C; needed where the text is too short for C to have full rank."""

    def lam(self, edits: int) -> float:
        """1, which is what makes MEMIT of EMMET."""
        return 1.0
