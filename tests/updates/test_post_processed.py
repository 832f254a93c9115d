"""Post-processing where the weights are: of a layer of experts each matrix is processed by itself."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import PRUNE, RECT, REVIVE, SPHERE, Factors
from lightning_edit.tiny import MODELS
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.post_processed import post_processed, process_sum


@pytest.fixture(scope="module")
def weights():
    return EditedWeights(find_decoder(AutoModelForCausalLM.from_pretrained(MODELS["tiny-moe"])), [0])


@pytest.fixture(scope="module")
def update(weights):
    """Of two experts, larger than their matrices."""
    base, experts = weights.base[0].double(), weights.decoder.experts(0)
    parts = [torch.zeros_like(part) for part in base.chunk(experts, dim=1)]
    for expert in (1, 4):
        generator = torch.Generator().manual_seed(expert)
        parts[expert] += torch.randn(parts[expert].shape, dtype=torch.float64, generator=generator)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("process", [RECT(0.3), SPHERE(), REVIVE(), PRUNE(20.0)], ids=lambda one: type(one).__name__)
def test_each_expert_is_processed_by_itself(weights, update, process):
    experts = weights.decoder.experts(0)
    if process.of_sum:
        weights.added = {0: Factors(update)}
        found = update + process_sum(weights, [process])[0].dense()
        weights.set({})
    else:
        found = post_processed(Factors(update), 0, weights, [process]).dense()
    pairs = zip(update.chunk(experts, dim=1), weights.base[0].double().chunk(experts, dim=1), strict=True)
    expected = torch.cat([process(part, own) if bool(part.any()) else part for part, own in pairs], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert float((found - update).norm()) > 0.01 * float(update.norm())
    if isinstance(process, RECT):
        assert int((found != 0).sum()) == pytest.approx(0.3 * int((update != 0).sum()), abs=2)
