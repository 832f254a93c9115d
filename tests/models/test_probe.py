"""What is written arrives where its value was found, in any model: tried with a random update, not known by name."""

from dataclasses import replace

import pytest
import torch

from lightning_edit import EMMET, EditError, EditRequest, ValueSettings, edit
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.edit_keys import current_values
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.probe import altered_on_the_way
from lightning_edit.models.hooks import capture_output, run_until
from lightning_edit.values.optimize import optimize_values
from lightning_edit.values.settings import settle_site
from tests.architectures import SIZES, build

REQUESTS = [
    EditRequest("Belbinbor", "{} lives in the town of", "red stone", "mill"),
    EditRequest("the old cup", "Therefore the mother of {} was a", "river"),
]
# A norm or a scaling stands between the MLP and the block's output.
ALTERING = {
    "Gemma2": {},
    "Gemma3Text": {},
    "Olmo2": {},
    "Granite": {},
    "OPT": {"do_layer_norm_before": False},
}
PLAIN = [family for family in SIZES if family not in ALTERING or family == "OPT"]


def brute_force(decoder, layer):
    """The same share in float64 with the weight itself changed: no hook at the down-projection."""
    ids = torch.tensor([[5, 6, 7, 8, 9]])

    def state(module):
        (seen,) = run_until(decoder.model, {"input_ids": ids}, capture_output(module, stop=True))
        return seen.value.reshape(5, -1)[-1].double()

    block, module = decoder.blocks[layer], decoder.down_projection(layer)
    before, written_before = state(block), state(module)
    with torch.no_grad():
        weight = decoder.weight(layer)
        weight += 0.5 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).to(weight)
    arrived, written = state(block) - before, state(module) - written_before
    return float((arrived - written).norm() / written.norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", PLAIN)
def test_a_plain_residual_alters_nothing(family, dtype):
    decoder = find_decoder(build(family).to(dtype))
    assert altered_on_the_way(decoder, [0, 1]) == {}
    if dtype == torch.float64:
        assert brute_force(decoder, 1) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", ALTERING)
def test_a_norm_or_a_scaling_after_the_mlp_is_found(family, dtype):
    decoder = find_decoder(build(family, **ALTERING[family]).to(dtype))
    altered = altered_on_the_way(decoder, [0, 1])
    assert altered.keys() == {0, 1}
    assert min(altered.values()) > 0.3
    if family == "Granite":
        assert altered[1] == pytest.approx(0.78, abs=0.03)
    if dtype == torch.float64:
        assert brute_force(decoder, 1) > 0.05


def test_only_the_layers_that_alter_are_named():
    decoder = find_decoder(build("Granite", residual_multiplier=1.0))
    decoder.blocks[1].residual_multiplier = 0.5
    altered = altered_on_the_way(decoder, [0, 1, 2])
    assert altered == {1: pytest.approx(0.5, abs=1e-3)}


@pytest.mark.parametrize("family", ["Gemma2", "Granite", "Llama"])
def test_the_value_that_was_found_is_the_value_that_is_written(family, tiny_tokenizer, caplog):
    """An exact solver must bring the state at the site to z, whatever stands between."""
    model = build(family).double()
    decoder, values = find_decoder(model), ValueSettings(steps=3, clamp_norm_factor=4)
    templates = ContextTemplates()
    settled = settle_site(decoder, [1], values)
    assert settled == (values if family == "Llama" else replace(values, site="mlp"))
    assert ("site: mlp` is used instead" in caplog.text) == (family != "Llama")
    z = optimize_values(decoder, tiny_tokenizer, REQUESTS, templates, 1, settled).z
    edit(
        model,
        tiny_tokenizer,
        REQUESTS,
        EMMET(second_moment_weight=1.0, emmet_lambda=0.0),
        layers=[1],
        values=values,
        moments={1: torch.eye(64, dtype=torch.float64)},
        templates=templates,
        progress=False,
    )
    now = current_values(decoder, tiny_tokenizer, REQUESTS, ContextTemplates(), 1, settled.site)
    torch.testing.assert_close(now, z.T.double(), rtol=1e-6, atol=1e-7)


def test_several_layers_are_refused_before_any_work(tiny_tokenizer):
    model = build("Gemma2")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(EditError, match=r"norm or a scaling after its MLP.* Edit one layer, with `values\.site: mlp`"):
        edit(model, tiny_tokenizer, REQUESTS, layers=[0, 1], progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_python_is_told_of_moments_and_modes_that_cannot_be_used(tiny_tokenizer):
    model = build("Llama")
    for moment in (torch.eye(32), torch.eye(64)[:, :63], torch.eye(64, dtype=torch.complex64), "C"):
        with pytest.raises(
            EditError, match=r"`moments`: that of layer 1 must be a tensor \(64, 64\) of floating point"
        ):
            edit(model, tiny_tokenizer, REQUESTS, layers=[1], moments={1: moment}, progress=False)
    with torch.inference_mode(), pytest.raises(EditError, match=r"torch\.inference_mode"):
        edit(model, tiny_tokenizer, REQUESTS, layers=[1], progress=False)
    with torch.inference_mode():
        made = build("Llama")
    with pytest.raises(EditError, match=r"torch\.inference_mode"):
        edit(made, tiny_tokenizer, REQUESTS, layers=[1], progress=False)
