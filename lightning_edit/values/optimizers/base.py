"""What the search for values wants of an optimizer."""

from typing import Protocol

from torch import Tensor


class Optimizer(Protocol):
    """Moves the deltas of n edits between two passes, each by what is known of it alone.

    An edit's step must not depend on the other edits: which of them share a micro-batch is no part of a run's settings.
    The loss that a step leads to is seen in the next pass, so no pass is spent on trying a step.

    Attributes:
        keeps_best: Whether an edit that runs out of passes ends with the delta of its least loss, not with the last.
    """

    keeps_best: bool

    def step(self, gradient: Tensor, loss: Tensor) -> None:
        """Moves every delta in place; afterwards they are projected into their balls.

        Args:
            gradient: ``(n, d_model)`` of the loss at the deltas as they are.
            loss: ``(n,)`` there, in nats; not a number, or anything, for edits that have ended.
        """
