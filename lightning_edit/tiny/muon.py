"""Muon for stacks of matrices, as experts are: each is orthogonalized by itself."""

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

# Of the quintic iteration (https://kellerjordan.github.io/posts/muon/).
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS, TINY = 5, 1e-7


class StackedMuon(Optimizer):
    """Muon in the precision of the parameters.

    ``torch.optim.Muon`` takes single matrices only, and computes in bfloat16, for which not every CPU has instructions.
    Step sizes are matched to those of AdamW.

    Args:
        parameters: Matrices, or stacks of them, (..., rows, columns).
        lr: Learning rate.
        momentum: Share of the mean gradient that a step keeps; Nesterov's look-ahead is used.
    """

    def __init__(self, parameters: Iterable[Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step.

        Args:
            closure: Computes the loss and its gradients anew.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"], group["momentum"])
        return loss

    def _move(self, parameter: Parameter, gradient: Tensor, lr: float, momentum: float) -> None:
        mean = self.state[parameter].setdefault("mean", torch.zeros_like(gradient))
        mean.lerp_(gradient, 1 - momentum)
        direction = orthogonalized(gradient.lerp(mean, momentum))
        parameter.add_(direction, alpha=-0.2 * max(parameter.shape[-2:]) ** 0.5 * lr)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Set all singular values of each matrix to about 1 by a Newton-Schulz iteration.

    Args:
        matrices: (..., rows, columns).

    Returns:
        Of the same shape.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if tall else matrices
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=TINY)
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        found = A * found + (B * gram + C * gram @ gram) @ found
    return found.mT if tall else found
