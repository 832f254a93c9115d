"""SimIE: each update as if it were the first, blended over all tokens."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_edit.settings import Positive
from lightning_edit.solvers.anchors.base import Anchor, Memory, Standing
from lightning_edit.solvers.base import Solver
from lightning_edit.solvers.cholesky import Cholesky


@dataclass(frozen=True)
class SimIE(Anchor):
    """SimIE (Towards Lifelong Model Editing via Simulating Ideal Editor, 2025): each update as if it were the first.

        W_t = W_{t-1} + (B_t - W_{t-1}) T T^T P_t^-1,      P_t = lambda I + sum of T T^T so far, this update's included

    B_t = W0 + Delta_t is what the solver makes of the unedited weights with the update's edits alone, and T are the
    keys of all tokens of their prompts and answers on the unedited model. It is the recursive least squares of all B_t
    on all tokens, so what an update gave its own texts is kept. As all values are found on the unedited model
    (`values.on: unedited`), those of a whole stream can be found at once.

    Preconditions: values on the unedited model; a solver that works by itself for one update. Instead: `MEMIT` with
    earlier keys, which takes no second moment of all tokens.
    """

    ridge: Positive = 1e4
    """lambda, in units of squared keys: what a change costs in every direction (1e4 as published)."""

    from_unedited: ClassVar[bool] = True
    remembers: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def check(self, solver: Solver) -> None:
        """Any solver will do."""

    def numbers(self, weight: tuple[int, int], keys: int, of_all: int, tokens: int) -> tuple[int, int]:
        """T T^T of all texts; T, that of an update, the system and its factor, and three matrices like W."""
        d_out, d_in = weight
        return d_in**2, d_in * tokens + 3 * d_in**2 + 3 * d_out * d_in

    def blended(self, update: Tensor, tokens: Tensor, standing: Standing) -> tuple[Tensor, Memory]:
        """What is added to the weight for an update that was solved on the unedited one.

        Args:
            update: Delta_t ``(d_out, d_in)``.
            tokens: T ``(d_in, tokens)``.
            standing: Where the layer stands.

        Returns:
            ``(d_out, d_in)``, and what is remembered then.
        """
        own = tokens @ tokens.T
        every = own if not standing.memory else own + standing.memory["tokens"].to(own.device)
        system = every.clone()
        system.diagonal().add_(self.ridge)
        wanted = update if standing.added is None else update - standing.added
        return Cholesky.of(system, "keys").solve((wanted @ own).T).T.contiguous(), {"tokens": every}
