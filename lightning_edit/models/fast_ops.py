"""Faster forms of a model's own operations, put back afterwards; nothing changes but rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.activations import NewGELUActivation

from lightning_edit.models.decoder import Decoder

FUSED, PLAIN = "sdpa", "eager"


@contextmanager
def fast(decoder: Decoder) -> Iterator[None]:
    """The fastest form of all operations for few tokens, as in the optimization of values.

    Args:
        decoder: The model.
    """
    with short_texts(decoder), fused_activations(decoder.model), weight_first(decoder.head):
        yield


@contextmanager
def short_texts(decoder: Decoder) -> Iterator[None]:
    """On a processor, attention by plain matrix products, put back afterwards.

    The fused one that models take by default is made for long texts: with ten to thirty tokens a step of value
    optimization takes 1.2 times as long with it (measured on GPT-2, 124 M, two cores). The result is the same up to
    float32's rounding. Models in another precision, set to another attention, or with one only, keep theirs.

    Args:
        decoder: The model.
    """
    model: Any = decoder.model
    set_to = model.config._attn_implementation
    # In float64 some plain attentions still take their softmax in float32.
    slow = decoder.device.type == "cpu" and set_to == FUSED and model.dtype == torch.float32
    if not slow or not model._can_set_attn_implementation():
        yield
        return
    model.set_attn_implementation(PLAIN)
    try:
        yield
    finally:
        model.set_attn_implementation(set_to)


@contextmanager
def weight_first(head: nn.Module) -> Iterator[None]:
    """On a processor, the head as E h^T instead of h E^T, which takes two thirds of the time with few rows of h.

    Args:
        head: The language-modeling head; only a plain linear map that nothing else steers is changed.
    """
    # The weight of a quantized head is a kind of its own.
    plain = type(head) is nn.Linear and type(head.weight) in (nn.Parameter, Tensor)
    if not plain or "forward" in vars(head) or head.weight.device.type != "cpu":
        yield
        return
    linear: Any = head

    def forward(hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        logits = (linear.weight @ rows.T).T.reshape(*hidden.shape[:-1], linear.out_features)
        return logits if linear.bias is None else logits + linear.bias

    vars(head)["forward"] = forward
    try:
        yield
    finally:
        del vars(head)["forward"]


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
