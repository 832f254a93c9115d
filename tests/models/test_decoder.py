"""Any decoder-only transformers model: found by structure, edited where it should be and nowhere else."""

import pytest
import torch
import transformers
from transformers.integrations.finegrained_fp8 import FP8Linear
from transformers.pytorch_utils import Conv1D

from lightning_edit import EMMET, ContextTemplates, EditError, EditRequest, ValueSettings, edit
from lightning_edit.asking.tokenization import encode_subject
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import check_layers, find_decoder
from lightning_edit.models.finding.probe import altered_on_the_way
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.models.hooks import frozen
from lightning_edit.values.batch import prepare
from lightning_edit.values.optimize import encode_texts, optimize_values
from tests.architectures import FAMILIES, SIZES, build
from tests.whole_forward import expected_logits

REQUESTS = [
    EditRequest("Belbinbor", "{} lives in the town of", "red stone", "mill"),
    EditRequest("the old cup", "Therefore the mother of {} was a", "river"),
    EditRequest("You", "You and {}", "cold"),
]
TEMPLATES = ContextTemplates(("{}", "The river is cold and the old cup is red. {}", "I. {}"))
LAST_PARTS = {
    "GPT2": "mlp.c_proj",
    "GPTJ": "mlp.fc_out",
    "GPTNeoX": "mlp.dense_4h_to_h",
    "Phi": "mlp.fc2",
    "OPT": "fc2",
    "Falcon": "mlp.dense_4h_to_h",
    "Bloom": "mlp.dense_4h_to_h",
}


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer


@pytest.mark.parametrize("family", SIZES)
def test_down_projection_of_every_block_is_found(family):
    decoder = find_decoder(build(family))
    assert len(decoder.names) == 3
    for layer, name in enumerate(decoder.names):
        assert name.endswith(f".{layer}." + LAST_PARTS.get(family, "mlp.down_proj"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_edit_changes_exactly_the_intended_weights(family, dtype, tokenizer):
    model = build(family).to(dtype)
    # Where a norm or a scaling follows the MLP, several layers are refused.
    layers = [0] if altered_on_the_way(find_decoder(model), [0, 1]) else [0, 1]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update = edit(
        model,
        tokenizer,
        REQUESTS,
        EMMET(second_moment_weight=1.0, ridge=1e-3),
        layers=layers,
        values=ValueSettings(steps=3, clamp_norm_factor=4),
        texts=["The river is cold and the old cup is red."] * 8,
        templates=TEMPLATES,
        progress=False,
    )
    decoder = find_decoder(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{decoder.names[layer]}.weight" for layer in layers}
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    update.remove(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("site", ["block", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_forward_gives_the_logits_of_the_full_one(family, site, tokenizer):
    decoder = find_decoder(build(family).double())
    rows = encode_texts(tokenizer, REQUESTS, TEMPLATES, "{} is a", 128)
    delta = torch.randn(len(REQUESTS), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with frozen(decoder.model), torch.no_grad():
        batch, _ = prepare(decoder, 1, site, rows, len(TEMPLATES.texts))
        for edits in (torch.tensor([True, True, True]), torch.tensor([False, True, False])):
            kept = batch.keep(edits)
            those = [row for row in rows if edits[row[0]]]
            resumed, expected = kept.logits(delta), expected_logits(decoder, 1, site, those, delta)
            # Some attentions take their softmax in float32 whatever the precision of the model.
            torch.testing.assert_close(resumed, expected, rtol=1e-6, atol=1e-6)


def test_square_weights_are_told_apart_by_class():
    model = build("GPT2", n_inner=32)
    decoder = find_decoder(model)
    assert isinstance(decoder.down_projection(0), Conv1D)
    assert decoder.names[0].endswith("mlp.c_proj")
    assert torch.equal(decoder.weight(0), model.transformer.h[0].mlp.c_proj.weight.T)
    llama = find_decoder(build("Llama", intermediate_size=32))
    assert llama.names[0].endswith("mlp.down_proj")
    assert torch.equal(oriented_weight(llama.down_projection(0)), llama.down_projection(0).weight)


def test_a_module_can_be_named():
    decoder = find_decoder(build("Llama"), "model.layers.{}.mlp.up_proj")
    assert decoder.names[1] == "model.layers.1.mlp.up_proj"
    with pytest.raises(EditError, match=r"layers\.0\.mlp\.nothing is not a linear module"):
        find_decoder(build("Llama"), "model.layers.{}.mlp.nothing")


def test_encoder_decoder_and_headless_models_are_refused():
    config = transformers.T5Config(vocab_size=64, d_model=32, d_ff=64, num_layers=2, num_heads=4)
    with pytest.raises(EditError, match="encoder-decoder"):
        find_decoder(transformers.AutoModelForSeq2SeqLM.from_config(config))
    with pytest.raises(EditError, match="language-modeling head"):
        find_decoder(build("GPT2").base_model)


@pytest.mark.parametrize("layers", [[], [3], [-1], [1, 1]])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(EditError, match="different numbers from 0 to 2"):
        check_layers(find_decoder(build("GPT2")), layers)


def test_the_last_block_is_refused_because_nothing_reads_it(tokenizer):
    model = build("GPT2")
    with pytest.raises(EditError, match=r"last block.*0 to 1"):
        edit(model, tokenizer, REQUESTS, layers=[2], templates=TEMPLATES, moments={2: torch.eye(128)}, progress=False)


def test_an_edit_without_finite_loss_is_named_and_the_others_are_kept(tokenizer, caplog):
    model = build("GPT2")
    bad = encode_subject(tokenizer, "{}", REQUESTS[2].subject).ids[-1]
    good = {i for r in REQUESTS[:2] for i in encode_subject(tokenizer, r.prompt, r.subject, r.target_new).ids}
    assert bad not in good
    # As a layer does that overflows on one token.
    model.transformer.wte.register_forward_hook(
        lambda _, args, states: states.masked_fill((args[0] == bad)[..., None], float("nan"))
    )
    requests = [REQUESTS[2], *REQUESTS[:2]]
    templates = ContextTemplates()
    alone = optimize_values(find_decoder(model), tokenizer, requests[1:], templates, 1, ValueSettings(steps=4))
    values = optimize_values(find_decoder(model), tokenizer, requests, templates, 1, ValueSettings(steps=4))
    assert values.finite.tolist() == [False, True, True]
    assert "the edit of 'You'" in caplog.text
    torch.testing.assert_close(values.z[1:], alone.z)
    with pytest.raises(EditError, match="No edit has a value to be written"):
        edit(model, tokenizer, requests[:1], templates=templates, moments={0: torch.eye(128)}, progress=False)


class Codes(torch.nn.Linear):
    """A linear map whose weight is stored in another way, as quantization libraries have it."""

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("scale", torch.ones(1))


class Same(torch.nn.Linear):
    """A linear map written in another way, as Falcon has one."""

    def forward(self, states):
        return states @ self.weight.T


class Rounded(torch.nn.Linear):
    """A linear map that quantizes what it is given, with no weights that would tell so."""

    def forward(self, states):
        return super().forward((states * 2).round() / 2)


class Scaled(torch.Tensor):
    """A weight that is not the numbers it holds."""


def shared(module, model):
    module.weight = model.model.layers[0].mlp.down_proj.weight


def shared_in_memory(module, model):
    module.weight = torch.nn.Parameter(model.model.layers[0].mlp.down_proj.weight.data)


def of_a_subclass(module, model):
    module.__class__ = Codes
    module.register_buffer("scale", torch.ones(1))


def in_codes(dtype):
    def change(module, model):
        module.weight = torch.nn.Parameter(module.weight.to(dtype), requires_grad=False)

    return change


def of_a_tensor_subclass(module, model):
    module.weight = torch.nn.Parameter(module.weight.detach().as_subclass(Scaled))


def computed(module, model):
    torch.nn.utils.spectral_norm(module)


UNEDITABLE = {
    "other parts of LlamaForCausalLM share its": shared_in_memory,
    "it is a Codes, which holds more than a weight and a bias": of_a_subclass,
    "its weights are float8_e4m3fn": in_codes(torch.float8_e4m3fn),
    "its weights are int8": in_codes(torch.int8),
    "its weights are a Scaled": of_a_tensor_subclass,
    "its weight is computed from other parameters": computed,
    "other parts of LlamaForCausalLM share its weight": shared,
}


@pytest.mark.parametrize("reason", UNEDITABLE)
@pytest.mark.parametrize("down_projection", [None, "model.layers.{}.mlp.down_proj"])
def test_weights_that_are_not_plain_numbers_are_refused_in_their_layers_alone(reason, down_projection):
    model = build("Llama")
    UNEDITABLE[reason](model.model.layers[1].mlp.down_proj, model)
    decoder = find_decoder(model, down_projection)
    with pytest.raises(EditError, match=rf"Layer 1: model\.layers\.1\.mlp\.down_proj cannot be edited: {reason}"):
        check_layers(decoder, [1])
    assert check_layers(decoder, [2]) == [2]


def test_a_quantized_model_that_cannot_be_run_here_is_refused_before_any_work(tokenizer):
    if torch.cuda.is_available():
        pytest.skip("this kind runs on a GPU")
    model = build("Llama")
    for block in model.model.layers:
        block.mlp.down_proj = FP8Linear(64, 32, block_size=(32, 32))
        block.mlp.down_proj.weight.data = torch.ones(32, 64).to(torch.float8_e4m3fn)
        block.mlp.down_proj.weight_scale_inv.data.fill_(0.01)
    module = model.model.layers[0].mlp.down_proj
    with pytest.raises(EditError, match=r"LlamaForCausalLM is quantized in a way that cannot be run with gradients"):
        edit(model, tokenizer, REQUESTS, layers=[0], templates=TEMPLATES, progress=False)
    assert model.model.layers[0].mlp.down_proj is module


@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
def test_a_model_whose_head_is_quantized_too_is_edited(library, tokenizer):
    model = build("Llama", tie_word_embeddings=False)
    if library == "torchao":
        torchao = pytest.importorskip("torchao.quantization")
        torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    else:
        bitsandbytes = pytest.importorskip("bitsandbytes")
        for block in model.model.layers:
            linear = bitsandbytes.nn.Linear4bit(64, 32, bias=False)
            linear.weight = bitsandbytes.nn.Params4bit(block.mlp.down_proj.weight.data, requires_grad=False)
            block.mlp.down_proj = linear.to("cpu")
    edit_layers(model, tokenizer, [0])
    assert type(model.model.layers[0].mlp.down_proj) is torch.nn.Linear
    assert type(model.model.layers[0].mlp.down_proj.weight) is torch.nn.Parameter


def moments_of(layers):
    return {layer: torch.eye(64, dtype=torch.float64) for layer in layers}


def edit_layers(model, tokenizer, layers, **settings):
    values = settings.pop("values", ValueSettings(steps=2))
    edit(
        model,
        tokenizer,
        REQUESTS[:1],
        layers=layers,
        values=values,
        templates=TEMPLATES,
        moments=moments_of(layers),
        progress=False,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_a_module_does_with_its_weight_is_found_by_running_it(dtype, tokenizer):
    model = build("Llama").to(dtype)
    model.model.layers[0].mlp.down_proj.__class__ = Same
    edit_layers(model, tokenizer, [0, 1])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.model.layers[1].mlp.down_proj.__class__ = Rounded
    with pytest.raises(EditError, match=r"Layer 1: model\.layers\.1\.mlp\.down_proj does not give W k \+ b"):
        edit_layers(model, tokenizer, [0, 1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_module_that_the_model_does_not_run_is_refused(tokenizer):
    model = build("Llama")
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda states: torch.nn.functional.linear(mlp.up_proj(states), mlp.down_proj.weight)
    with pytest.raises(EditError, match=r"Layer 0: .*down_proj is not run when the model reads a text"):
        edit_layers(model, tokenizer, [0])


class Narrow(torch.nn.Module):
    """A second pair of maps in a block, up and down again, as Gemma 4 has one for its per-layer inputs."""

    def __init__(self, width):
        super().__init__()
        self.gate, self.projection = torch.nn.Linear(32, width), torch.nn.Linear(width, 32)


def test_a_second_way_down_is_not_taken_for_the_mlps():
    model = build("Llama")
    for block in model.model.layers:
        # On the block itself, after the MLP.
        block.per_layer_gate, block.per_layer_projection = torch.nn.Linear(32, 8), torch.nn.Linear(8, 32)
        block.extra = torch.nn.Linear(16, 32)
    assert find_decoder(model).names[1] == "model.layers.1.mlp.down_proj"


def test_where_several_could_be_meant_they_are_named():
    model = build("Llama")
    model.model.layers[1].narrow = Narrow(64)
    with pytest.raises(EditError, match=r"Layer 1: Several modules .*: mlp\.down_proj, narrow\.projection\. Name the"):
        check_layers(find_decoder(model), [1])
    assert check_layers(find_decoder(model), [0]) == [0]
    named = find_decoder(model, "model.layers.{}.mlp.down_proj")
    assert check_layers(named, [1]) == [1]


def with_adapter(model):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["down_proj", "up_proj"]))


def test_a_model_with_an_adapter_is_refused_until_it_is_merged(tokenizer):
    adapted = with_adapter(build("Llama"))
    for model in (adapted, adapted.get_base_model()):
        with pytest.raises(EditError, match=r"carries a PEFT adapter.*merge_and_unload"):
            edit(model, tokenizer, REQUESTS, templates=TEMPLATES, progress=False)
    edit_layers(adapted.merge_and_unload(), tokenizer, [0])


def test_an_adapter_in_the_models_folder_is_refused(tokenizer, tmp_path):
    adapted = with_adapter(build("Llama"))
    adapted.save_pretrained(tmp_path / "alone")
    build("Llama").save_pretrained(tmp_path / "both")
    adapted.save_pretrained(tmp_path / "both")
    for folder in ("alone", "both"):
        with pytest.raises(EditError, match=r"holds a PEFT adapter.*merge_and_unload"):
            load_model(str(tmp_path / folder))


@pytest.mark.parametrize("family", SIZES)
def test_texts_go_on_from_their_beginnings(family):
    resumption = find_decoder(build(family)).resumption
    assert resumption.prefixes
    assert resumption.after(0)
