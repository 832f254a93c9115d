"""Steepest descent whose steps have a length of their own for each edit."""

import torch
from torch import Tensor

# What is left of the last direction in the next one.
MOMENTUM = 0.5
# What becomes of an edit's length after a step that did not lower its loss.
SHRINKAGE = 0.6


class Descent:
    """Normalized steepest descent with momentum, in steps whose length each edit finds for itself.

    With u(x) = x / |x|, the gradient g and the loss f of an edit at its delta,

        r <- growth r and v <- v     if f is less than it was before the last step,
        r <- 0.6 r and v <- 0        otherwise,
        v <- u(v / 2 - u(g)),        delta <- delta + r v.

    Adam moves all coordinates by about lr, a step of about lr sqrt(d) whatever the model's states are like; where lr
    suits the last steps, the way there takes many. Here the first step goes straight down over a set share of |z0|, and
    a step that was too long is followed by a shorter one from where it led: it is not taken back, as that would cost a
    pass.

    Args:
        delta: ``(n, d_model)``, what it moves.
        radius: ``(n,)``, the length of the first step.
        growth: See `ValueSettings`.
    """

    keeps_best = True

    def __init__(self, delta: Tensor, radius: Tensor, growth: float) -> None:
        self._delta, self._radius, self._growth = delta, radius, growth
        self._direction = torch.zeros_like(delta, requires_grad=False)
        self._before: Tensor | None = None

    def step(self, gradient: Tensor, loss: Tensor) -> None:
        """Moves every delta in place, see `Optimizer`.

        Args:
            gradient: ``(n, d_model)``.
            loss: ``(n,)``.
        """
        if self._before is not None:
            fell = loss < self._before
            self._radius = torch.where(fell, self._radius * self._growth, self._radius * SHRINKAGE)
            self._direction = torch.where(fell[:, None], self._direction, torch.zeros_like(self._direction))
        self._before = loss
        self._direction = _unit(MOMENTUM * self._direction - _unit(gradient))
        with torch.no_grad():
            self._delta += self._radius[:, None] * self._direction


def _unit(vectors: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one."""
    norms = vectors.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, vectors / norms, vectors)
