"""Activation functions in one operation, where a model writes them in many."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import gelu
from transformers.activations import NewGELUActivation


@contextmanager
def fused_activations(model: Any) -> Iterator[None]:
    """The GELU of GPT-2, GPT-J and Phi as torch's one operation in place of eight, put back afterwards.

    Both are x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), equal up to rounding. The eight, with as many for the
    gradient, took a seventh of a step of value optimization, and a tenth of a forward pass (GPT-2, 124 M, two cores). A
    model in half precision rounds after each of the eight, which would not be the same, and keeps its own.

    Args:
        model: The model.
    """
    modules = model.modules() if model.dtype in (torch.float32, torch.float64) else ()
    slow = [module for module in modules if type(module) is NewGELUActivation and "forward" not in vars(module)]
    for module in slow:
        vars(module)["forward"] = partial(gelu, approximate="tanh")
    try:
        yield
    finally:
        for module in slow:
            del vars(module)["forward"]
