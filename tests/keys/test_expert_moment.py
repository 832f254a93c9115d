"""Keys of experts, and their second moments."""

import pytest
import torch

from lightning_edit.keys.expert_moment import ExpertMoment
from lightning_edit.keys.moment_pass import compute_second_moments
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.routed_keys import RoutedKeys
from lightning_edit.models.finding.sites import bias_of, capture_keys, site_biases, stacked
from lightning_edit.models.hooks import capture_output, frozen, run_until
from tests.families import build_family, experts_in_double

IDS = torch.tensor([[1, 5, 9, 2, 7], [3, 3, 8, 1, 0]])
# A gate and none, transposed and not, with biases and without, a gate of its own, first blocks without experts.
MODELS = {
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "nemotron_h": "NemotronHForCausalLM",
    "aria_text": "AriaTextForCausalLM",
    "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
}


def experts(model_type):
    decoder = find_decoder(experts_in_double(build_family(model_type, MODELS[model_type])))
    return decoder, next(
        layer for layer in range(len(decoder.blocks)) if layer not in decoder.refusals and decoder.experts(layer)
    )


def keys_of(decoder, layer, ids=IDS):
    module = decoder.down_projection(layer)
    with frozen(decoder.model):
        keys, output = run_until(
            decoder.model,
            {"input_ids": ids, "use_cache": False},
            capture_keys(module),
            capture_output(module, stop=True),
        )
    return keys.value, output.value.reshape(ids.numel(), -1)


@pytest.mark.parametrize("model_type", MODELS)
def test_the_layer_is_linear_in_the_stacked_keys(model_type):
    decoder, layer = experts(model_type)
    keys, output = keys_of(decoder, layer)
    expected = stacked(keys) @ decoder.weight(layer).T
    biases = site_biases(decoder.down_projection(layer))
    if biases is not None:
        expected = expected + bias_of(keys, biases)
    assert stacked(keys).shape == (IDS.numel(), decoder.key_size(layer))
    assert (output - expected).norm() <= 1e-10 * expected.norm()


def test_second_moments_are_the_diagonal_blocks_of_the_stacked_one():
    decoder, layer = experts("qwen3_moe")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 500, (40, 12), generator=generator).tolist()
    found = compute_second_moments(decoder, rows, [layer])[layer]
    count, d_in = found.shape[:2]
    keys = stacked(keys_of(decoder, layer, torch.tensor(rows))[0]).view(-1, count, d_in)
    sums = torch.einsum("tea,teb->eab", keys, keys)
    visits = keys.any(-1).sum(0)
    # As if each expert had been visited d_in times more, by keys like those of all experts.
    average = sums.sum(0) / visits.sum()
    share = (visits + 1) / (len(keys) + count)
    expected = (sums + d_in * average) * (share / (visits + d_in))[:, None, None]
    assert (found - expected).norm() <= 1e-10 * expected.norm()


def test_with_many_visits_nothing_is_left_of_the_average():
    moment = ExpertMoment(2, 3)
    keys = torch.randn(20000, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys[::2, :, 0] *= 5
    moment.update(RoutedKeys(torch.arange(20000)[:, None] % 2, torch.ones(20000, 1), keys, 2))
    own = torch.stack([torch.diag(torch.tensor([25.0, 1.0, 1.0])), torch.eye(3)]).double() / 2
    torch.testing.assert_close(moment.compute(), own, rtol=0.05, atol=0.05)
    assert moment.hardly_visited() == 0


def test_experts_that_are_hardly_visited_are_reported(caplog):
    decoder, layer = experts("qwen3_moe")
    compute_second_moments(decoder, [[1, 2, 3]], [layer])
    assert "experts were visited by fewer of the 3 tokens than their keys have dimensions (24)" in caplog.text


def test_an_expert_nobody_visits_has_a_small_moment_of_full_rank():
    moment = ExpertMoment(2, 3)
    keys = torch.randn(100, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment.update(RoutedKeys(torch.zeros(100, 1, dtype=torch.long), torch.ones(100, 1), keys, 2))
    first, second = moment.compute()
    assert torch.linalg.matrix_rank(second) == 3
    assert second.norm() < first.norm() / 50
