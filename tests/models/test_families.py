"""Every causal language model that transformers has is edited, or refused for the reason that is true of it."""

from dataclasses import replace

import pytest
import torch
import transformers

from lightning_edit import EditError
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.probe import check_readable
from lightning_edit.models.hooks import frozen
from lightning_edit.values.batch import prepare
from lightning_edit.values.optimize import encode_texts, optimize_values
from tests.families import build_family, experts_in_double, families
from tests.family_edits import REQUESTS, TEMPLATES, edit_two, editable, values_for
from tests.whole_forward import expected_logits

# Some in every run of the tests; all of them where tests may be slow.
COMMON = {"qwen3_moe", "gpt_oss", "qwen3_next", "gemma4_text"}
# Their own code computes something in float32, or does not know float64 at all.
REFUSED_LATER = {"reformer": "without gradients", "xlstm": "all zeros", "gemma3n_text": "is 0"}
NOT_IN_DOUBLE = {"xglm", "inkling2_text", "inkling2"}
PAIRS = [
    pytest.param(*pair, id=f"{pair[0]}-{pair[1]}", marks=[] if pair[0] in COMMON else [pytest.mark.slow])
    for pair in families()
]


def built(model_type, class_name, dtype=torch.float32):
    try:
        return build_family(model_type, class_name, dtype)
    except Exception as error:  # noqa: BLE001
        pytest.skip(f"cannot be built small: {type(error).__name__}: {str(error)[:200]}")


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(("model_type", "class_name"), PAIRS)
def test_exactly_the_intended_weights_change_and_come_back(model_type, class_name, dtype, tiny_tokenizer):
    model = built(model_type, class_name, dtype)
    try:
        # Rounding hides what is refused of a model in half precision.
        editable(built(model_type, class_name))
        place = editable(model)
    except EditError as refusal:
        pytest.skip(f"refused: {refusal}")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder, layer, _ = place
    if model_type in REFUSED_LATER:
        with pytest.raises(EditError, match=REFUSED_LATER[model_type]):
            edit_two(place, tiny_tokenizer)
        return
    how = (decoder, tiny_tokenizer, REQUESTS, TEMPLATES, layer)
    # One that ends with its first pass has the loss of the model as it is.
    first = optimize_values(*how, replace(values_for(place), early_stop_loss=1e9))
    # In half precision the loss has too few digits.
    assert dtype != torch.float32 or optimize_values(*how, values_for(place)).nll.sum() < first.nll.sum()
    result = edit_two(place, tiny_tokenizer)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {decoder.parameter_name(layer)}
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values() if tensor.is_floating_point())
    result.remove(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("model_type", "class_name"), PAIRS)
def test_the_search_computes_what_the_whole_model_does(model_type, class_name, tiny_tokenizer):
    if model_type in NOT_IN_DOUBLE or model_type in REFUSED_LATER:
        pytest.skip("its own code does not know float64, or it is refused")
    model = experts_in_double(built(model_type, class_name))
    try:
        decoder, layer, site = editable(model)
    except EditError as refusal:
        pytest.skip(f"refused: {refusal}")
    rows = encode_texts(tiny_tokenizer, REQUESTS, TEMPLATES, "{} is a", 128)
    width = len(decoder.weight(layer)) if site == "mlp" else model.config.get_text_config().hidden_size
    delta = torch.randn(len(REQUESTS), width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with frozen(model), torch.no_grad():
        batch, _ = prepare(decoder, layer, site, rows, len(TEMPLATES.texts))
        resumed, expected = batch.logits(delta), expected_logits(decoder, layer, site, rows, delta)
    # Some attentions take their softmax in float32 whatever the precision of the model, and some heads give float32.
    torch.testing.assert_close(resumed, expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "big_bird", "xlm-roberta"])
def test_encoders_are_refused(model_type):
    class_name = dict(families())[model_type]
    with pytest.raises(EditError, match="reads a text in both directions"):
        check_readable(find_decoder(build_family(model_type, class_name)))


@pytest.mark.parametrize("model_type", ["blip-2", "idefics"])
def test_models_that_need_an_image_are_refused(model_type):
    class_name = dict(families())[model_type]
    with pytest.raises(EditError, match="cannot be run on a text alone"):
        check_readable(find_decoder(build_family(model_type, class_name)))


def test_a_saved_model_of_experts_has_the_edit_in_it(tmp_path, tiny_tokenizer):
    model = build_family("qwen3_moe", "Qwen3MoeForCausalLM")
    edit_two(editable(model), tiny_tokenizer)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    own = dict(model.named_parameters())
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.named_parameters())
