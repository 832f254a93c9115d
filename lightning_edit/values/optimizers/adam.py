"""Adam, as in the published search."""

import torch
from torch import Tensor


class Adam:
    """Adam with one learning rate for all edits (Kingma and Ba, arXiv 1412.6980; ROME and MEMIT's code).

    It looks at the gradient alone, and moves every coordinate by about the learning rate.

    Args:
        delta: ``(n, d_model)``, what it moves.
        lr: The learning rate.
    """

    keeps_best = False

    def __init__(self, delta: Tensor, lr: float) -> None:
        self._delta, self._adam = delta, torch.optim.Adam([delta], lr=lr)

    def step(self, gradient: Tensor, loss: Tensor) -> None:
        """Moves every delta in place, see `Optimizer`.

        Args:
            gradient: ``(n, d_model)``.
            loss: ``(n,)``, not looked at.
        """
        self._delta.grad = gradient
        self._adam.step()
