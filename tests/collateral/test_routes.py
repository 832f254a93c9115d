"""How many routes to experts are other ones after an edit."""

import pytest
import torch

from lightning_edit.collateral.asking import Asking
from lightning_edit.collateral.routes import changed_routes
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.routed_keys import is_experts, routes_of
from lightning_edit.solvers import Factors
from lightning_edit.updates.edited_weights import EditedWeights
from tests.architectures import build

PROMPTS = ["The river is cold", "Everybody in the town knows the old cup, and nobody knows the red stone.", "I"]


def asking(model, tokenizer, layers, scale):
    """The model with a random update in it, and how it was before."""
    decoder = find_decoder(model)
    weights = EditedWeights(decoder, layers)
    for layer in layers:
        delta = torch.randn(weights.base[layer].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        weights.add(layer, Factors(scale * delta))
    return Asking(decoder, tokenizer, 4, weights.unedited, edited_layers=layers)


def routes(model, tokenizer, layer):
    """The experts of each token, prompt by prompt."""
    found = []
    experts = next(filter(is_experts, model.model.layers[layer].modules()))
    with experts.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(routes_of(module, args, kwargs)), with_kwargs=True
    ):
        for prompt in PROMPTS:
            model(torch.tensor([tokenizer(prompt)["input_ids"]]))
    return torch.cat(found).tolist()


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_share_is_that_of_a_plain_loop(scale, tiny_tokenizer):
    model = build("Qwen3Moe")
    asked = asking(model, tiny_tokenizer, [0], scale)
    after = [routes(model, tiny_tokenizer, layer) for layer in (1, 2)]
    with asked.before():
        before = [routes(model, tiny_tokenizer, layer) for layer in (1, 2)]
    pairs = [(b, a) for old, new in zip(before, after, strict=True) for b, a in zip(old, new, strict=True)]
    expected = sum(len(set(b) - set(a)) for b, a in pairs) / sum(len(b) for b, _ in pairs)
    assert changed_routes(asked, PROMPTS) == pytest.approx(expected)
    assert (expected > 0) == (scale > 0)


def test_without_experts_behind_the_edit_there_are_no_routes(tiny_tokenizer):
    assert changed_routes(asking(build("Qwen3Moe"), tiny_tokenizer, [2], 1.0), PROMPTS) is None
    assert changed_routes(asking(build("Llama"), tiny_tokenizer, [0], 1.0), PROMPTS) is None
    assert changed_routes(asking(build("Qwen3Moe"), tiny_tokenizer, [0], 1.0), []) is None
