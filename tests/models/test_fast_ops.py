from contextlib import nullcontext

import pytest
import torch
from transformers.activations import NewGELUActivation

from lightning_edit import ContextTemplates, EditRequest, ValueSettings
from lightning_edit.asking.tokenization import encode_subject
from lightning_edit.keys.edit_keys import compute_keys
from lightning_edit.models import fast_ops
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.fast_ops import fused_activations, short_texts, weight_first
from lightning_edit.values import optimize as values
from tests.architectures import SIZES, build

TEMPLATES = ContextTemplates(("{}", "It is known. {}"))
REQUESTS = [EditRequest("Anna", "{} lives in", "Paris"), EditRequest("Rome", "The people of {} live in", "Paris")]


@pytest.mark.parametrize("family", SIZES)
def test_values_are_the_same_with_either_attention(family, tiny_tokenizer, monkeypatch):
    model = build(family)
    decoder, settings = find_decoder(model), ValueSettings(steps=5, early_stop_loss=0.0)
    set_to = model.config._attn_implementation
    if not model._can_set_attn_implementation():
        pytest.skip("this family knows one attention only")
    found = values.optimize_values(decoder, tiny_tokenizer, REQUESTS, TEMPLATES, 1, settings)
    assert model.config._attn_implementation == set_to
    monkeypatch.setattr(fast_ops, "short_texts", lambda decoder: torch.no_grad())
    fused = values.optimize_values(decoder, tiny_tokenizer, REQUESTS, TEMPLATES, 1, settings)
    assert (found.z - fused.z).norm() <= 1e-4 * (fused.z - fused.z0).norm()


def test_the_attention_is_put_back_after_an_error_and_a_chosen_one_is_kept():
    model = build("Llama")
    decoder = find_decoder(model)
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="stop"), short_texts(decoder):
        assert model.config._attn_implementation == "eager"
        raise ValueError("stop")
    assert model.config._attn_implementation == "sdpa"
    model.double()
    with short_texts(decoder):
        assert model.config._attn_implementation == "sdpa"


def test_it_is_the_plain_attention_that_runs(tiny_tokenizer, monkeypatch):
    model, called = build("Llama"), []
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: called.append(1) or attention(*a, **k)
    )
    ids = torch.tensor([encode_subject(tiny_tokenizer, "{} lives", "Anna").ids])
    with torch.no_grad():
        with short_texts(find_decoder(model)):
            model(input_ids=ids)
        assert not called
        model(input_ids=ids)
        assert called


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_gives_the_same_logits_and_gradients_the_other_way_round(bias):
    head = torch.nn.Linear(16, 200, bias=bias).double()
    hidden, seen = torch.randn(1, 5, 16, dtype=torch.float64, requires_grad=True), []
    for way in (weight_first(head), nullcontext()):
        with way:
            logits = head(hidden)
            assert logits.shape == (1, 5, 200) and head(hidden[:, :0]).shape == (1, 0, 200)
            (gradient,) = torch.autograd.grad(logits.square().sum(), hidden)
            seen.append((logits, gradient))
    for a, b in zip(*seen, strict=True):
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-13)
    assert "forward" not in vars(head)


def activations(model):
    return [module for module in model.modules() if type(module) is NewGELUActivation]


def test_the_gelu_of_eight_operations_is_the_same_in_one():
    model = build("GPT2").double()
    gelu, results = activations(model)[0], []
    x = torch.linspace(-6, 6, 200, dtype=torch.float64, requires_grad=True)
    for way in (fused_activations(model), nullcontext()):
        with way:
            y = gelu(x)
            results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", ["GPT2", "GPTJ", "Phi"])
def test_keys_and_values_take_the_one_operation_and_the_eight_are_put_back(family, tiny_tokenizer, monkeypatch):
    model = build(family)
    inner = activations(model)
    assert inner
    forward = NewGELUActivation.forward
    monkeypatch.setattr(NewGELUActivation, "forward", lambda *_: pytest.fail("the eight operations were run"))
    decoder = find_decoder(model)
    compute_keys(decoder, tiny_tokenizer, REQUESTS, TEMPLATES, 1)
    values.optimize_values(decoder, tiny_tokenizer, REQUESTS, TEMPLATES, 1, ValueSettings(steps=2))
    with pytest.raises(ValueError, match="stop"), fused_activations(model):
        raise ValueError("stop")
    monkeypatch.setattr(NewGELUActivation, "forward", forward)
    assert all("forward" not in vars(module) for module in inner)
    model.bfloat16()
    with fused_activations(model):
        assert all("forward" not in vars(module) for module in inner)
