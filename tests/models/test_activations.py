from contextlib import nullcontext

import pytest
import torch
from transformers.activations import NewGELUActivation

from lightning_edit import ContextTemplates, EditRequest, ValueSettings
from lightning_edit.keys.edit_keys import compute_keys
from lightning_edit.models.activations import fused_activations
from lightning_edit.models.decoder import find_decoder
from lightning_edit.values.optimize import optimize_values
from tests.architectures import build

TEMPLATES = ContextTemplates(("{}", "It is known. {}"))
REQUESTS = [EditRequest("Anna", "{} lives in", "Paris"), EditRequest("Rome", "The people of {} live in", "Paris")]


def activations(model):
    return [module for module in model.modules() if type(module) is NewGELUActivation]


def test_the_gelu_of_eight_operations_is_the_same_in_one():
    model = build("GPT2").double()
    gelu, seen = activations(model)[0], []
    x = torch.linspace(-6, 6, 200, dtype=torch.float64, requires_grad=True)
    for way in (fused_activations(model), nullcontext()):
        with way:
            y = gelu(x)
            seen.append((y, *torch.autograd.grad(y.square().sum(), x)))
    for a, b in zip(*seen, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", ["GPT2", "GPTJ", "Phi"])
def test_keys_and_values_take_the_one_operation_and_the_eight_are_put_back(family, tiny_tokenizer, monkeypatch):
    model = build(family)
    inner = activations(model)
    assert inner
    found = NewGELUActivation.forward
    monkeypatch.setattr(NewGELUActivation, "forward", lambda *_: pytest.fail("the eight operations were run"))
    decoder = find_decoder(model)
    compute_keys(decoder, tiny_tokenizer, REQUESTS, TEMPLATES, 1)
    optimize_values(decoder, tiny_tokenizer, REQUESTS, TEMPLATES, 1, ValueSettings(steps=2))
    with pytest.raises(ValueError, match="stop"), fused_activations(model):
        raise ValueError("stop")
    monkeypatch.setattr(NewGELUActivation, "forward", found)
    assert all("forward" not in vars(module) for module in inner)
    model.bfloat16()
    with fused_activations(model):
        assert all("forward" not in vars(module) for module in inner)
