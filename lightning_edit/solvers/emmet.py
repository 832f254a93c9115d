"""EMMET: many edits at once, memorization as a constraint."""

from dataclasses import dataclass

from lightning_edit.settings import NotNegative, Positive
from lightning_edit.solvers.base import Solver


@dataclass(frozen=True)
class EMMET(Solver):
    """EMMET (Gupta et al., 2024, arXiv 2403.14236, section 4): ROME's equality constraint for a whole batch.

        Delta = R (K^T M K + lam I)^-1 K^T M,      M = C'^-1,      C' = w C + l2 I

    Prefer it where every edit must take. With lam = 0 each is written exactly, Delta K = R. As in the published code
    lam is 0 for a single key, where EMMET is r-ROME. For n > 1 and lam > 0 it equals MEMIT(w lam, l2 lam).

    Preconditions: C of full rank, or a ridge; with lam = 0 linearly independent keys, so at most d_in edits and no two
    of one subject. Instead: a lambda above 0, or `MEMIT`, for keys that depend on each other or are many.
    """

    second_moment_weight: Positive = 1000.0
    """w, the weight of preservation."""

    ridge: NotNegative = 0.0
    """l2, added to the diagonal of w C; needed where the text is too short for C to have full rank."""

    emmet_lambda: NotNegative = 0.1
    """lam for n > 1 keys; 0 writes every edit exactly (0.1 as published)."""

    def lam(self, edits: int) -> float:
        """`emmet_lambda`, and 0 for a single edit."""
        return self.emmet_lambda if edits > 1 else 0.0
