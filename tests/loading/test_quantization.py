"""Quantized models are edited in plain matrices, and nothing is ever added to codes."""

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM, TorchAoConfig
from transformers.integrations.finegrained_fp8 import FP8Linear

from lightning_edit import EMMET, EditError, ValueSettings, edit
from lightning_edit.cli import main as cli
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.loading import quantization
from lightning_edit.loading.dequantization import dequantized_weight, holds_codes, keep_usable
from lightning_edit.loading.editable import ModelSource, load_editable
from lightning_edit.loading.fingerprints import fingerprint_model
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import check_layers
from lightning_edit.storage.tensor_parts import plain_parts
from lightning_edit.updates.beside import load_beside, put_beside, save_beside, take_away
from tests import shared_runs
from tests.small_models import make_gpt2, make_llama, make_request, make_tokenizer

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("bitsandbytes", "torchao"))),
    reason="`make test-quantized` installs bitsandbytes and torchao",
)
KINDS = ["bnb-4bit", "bnb-8bit", "torchao-int8", pytest.param("torchao-float8", marks=pytest.mark.slow)]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
DOWN = "model.layers.1.mlp.down_proj"
IDS = torch.tensor([[5, 9, 200, 31, 7]])
REQUESTS = [
    make_request(),
    make_request(subject="Danielle Darrieux", prompt="{} speaks", target_new="French"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama in float32."""
    path = tmp_path_factory.mktemp("quantized") / "plain"
    make_llama(torch.float32, **SIZES).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def quantized_files(folder, tmp_path_factory):
    """The same model in files that are quantized, all of it, made when it is asked for."""
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("files") / kind
            load_model(str(folder), quantization=kind).save_pretrained(made[kind])
            make_tokenizer().save_pretrained(made[kind])
        return made[kind]

    return of


def loaded(folder, **settings):
    made = load_editable(ModelSource(str(folder), **settings), lambda decoder: check_layers(decoder, [1]))
    return made.model, made.layers, made.maps


def bits(model):
    """All plain tensors that the model is made of, by name."""
    return {
        f"{name} {inner}": part.detach().clone()
        for name, tensor in model.state_dict().items()
        for inner, part in plain_parts(tensor)
    }


def changed(before, model):
    after = bits(model)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def written(model):
    how = {"values": ValueSettings(steps=15, lr=0.5), "moments": {1: torch.eye(128, dtype=torch.float64)}}
    templates = ContextTemplates(("{}", "Well. {}"))
    return edit(model, make_tokenizer(), REQUESTS, EMMET(1.0), [1], templates=templates, progress=False, **how)


def loss(model):
    """Of the new answers, with the model as it is."""
    tokenizer, total = make_tokenizer(), 0.0
    for request in REQUESTS:
        prompt = tokenizer(request.prompt.format(request.subject), return_tensors="pt").input_ids
        target = tokenizer(f" {request.target_new}", return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(torch.cat([prompt, target], 1)).logits[:, prompt.shape[1] - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits[0].float(), target[0]))
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_edits_are_written_into_plain_matrices_and_all_codes_stay(kind, folder, tmp_path):
    model, layers, maps = loaded(folder, quantization=kind)
    assert layers == [1]
    assert type(model.get_submodule(DOWN)) is torch.nn.Linear
    assert torch.equal(model.get_submodule(DOWN).weight, load_model(str(folder)).get_submodule(DOWN).weight)
    assert (maps.maps, maps.quantized) == (22, 20)
    assert maps.bytes_kept < 0.5 * maps.bytes_plain
    before, worse, name = bits(model), loss(model), fingerprint_model(model)
    result = written(model)
    assert changed(before, model) == {f"{DOWN}.weight "}
    assert loss(model) < worse - 1
    assert fingerprint_model(model) != name
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), plain=[DOWN])
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert changed(bits(model), again) == set()
    result.remove(model)
    assert changed(before, model) == set()
    assert fingerprint_model(model) == name


def test_what_was_computed_from_a_model_depends_on_how_it_is_quantized(folder):
    kinds = (None, "bnb-4bit", "bnb-8bit", "torchao-int8")
    names = {kind: fingerprint_model(load_model(str(folder), quantization=kind, plain=[DOWN])) for kind in kinds}
    assert len(set(names.values())) == len(kinds)
    for kind in kinds:
        model = load_model(str(folder), quantization=kind, plain=[DOWN])
        model(IDS)
        assert fingerprint_model(model) == names[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_quantized_are_dequantized_where_they_are_edited(kind, quantized_files, tmp_path):
    files = quantized_files(kind)
    assert holds_codes(load_model(str(files)).get_submodule(DOWN))
    model, _, maps = loaded(files)
    numbers = dequantized_weight(DOWN, load_model(str(files)).get_submodule(DOWN))
    assert torch.equal(model.get_submodule(DOWN).weight, numbers)
    assert (maps.maps, maps.quantized) == (22, 20)
    whole, before = load_model(str(files)), bits(model)
    # The activations of 8-bit maps are rounded too.
    torch.testing.assert_close(model(IDS).logits, whole(IDS).logits, rtol=0.05, atol=0.2)
    result = written(model)
    assert changed(before, model) == {f"{DOWN}.weight "}
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path))
    assert type(again.get_submodule(DOWN)) is torch.nn.Linear
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    result.remove(model)
    assert changed(before, model) == set()


@pytest.mark.parametrize("kind", ["bnb-4bit", "bnb-8bit", "torchao-int8"])
def test_an_update_is_kept_beside_codes_that_nobody_changes(kind, folder, tmp_path):
    made = load_editable(
        ModelSource(str(folder), quantization=kind, beside=True), lambda decoder: check_layers(decoder, [1])
    )
    assert list(made.codes) == [DOWN]
    result = written(made.model)
    save_beside(made.model, made.codes, result, tmp_path)
    assert type(made.model.get_submodule(DOWN)) is torch.nn.Linear
    unedited, whole = load_model(str(tmp_path)), load_model(str(folder), quantization=kind)
    assert changed(bits(whole), unedited) == set()
    edited = load_beside(tmp_path)
    # Inputs of 8-bit maps are rounded as well, those of the dequantized matrix are not.
    tolerance = {"rtol": 0.05, "atol": 0.3} if kind == "bnb-8bit" else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(edited(IDS).logits, made.model(IDS).logits, **tolerance)
    assert loss(edited) < loss(unedited) - 1
    with pytest.raises(EditError, match="has an update beside it"):
        put_beside(edited, result)
    take_away(edited)
    assert changed(bits(whole), edited) == set()
    result.layers[1] = replace(result.layers[1], base="0" * 32)
    with pytest.raises(EditError, match="holds other weights than the update was made for"):
        put_beside(edited, result)
    with pytest.raises(EditError, match=r"is not quantized.*`update\.insert\(model\)`"):
        put_beside(load_model(str(folder)), result)
    with pytest.raises(EditError, match="set `quantization` as well"):
        load_editable(ModelSource(str(folder), beside=True), lambda decoder: [1])


@pytest.mark.slow
def test_a_run_whose_updates_are_kept_beside_codes(tmp_path):
    settings = {"model.quantization": "bnb-4bit", "model.write": "beside", "data.edits": 4}
    settings |= {"model.edits_per_update": 2, "model.values.steps": 6}
    run = shared_runs.command(tmp_path, **settings)
    section = json.loads((run / "metrics.json").read_text())["quantization"]
    assert (section["method"], section["maps"] - section["quantized"]) == ("bitsandbytes", 0)
    before = load_model("tiny", quantization="bnb-4bit")
    assert changed(bits(before), load_model(str(run / "model"))) == set()
    first = load_beside(run / "model")(IDS).logits
    cli.main(["updates", "remove", str(run), "2"])
    assert changed(bits(before), load_model(str(run / "model"))) == set()
    assert not torch.equal(load_beside(run / "model")(IDS).logits, first)
    cli.main(["updates", "apply", str(run), "2"])
    assert torch.equal(load_beside(run / "model")(IDS).logits, first)
    cli.main(["ask", str(run), "--once", "The guild lists Hulbin Larrem as a", "--tokens", "2"])


def test_a_quantized_model_in_memory_is_edited_or_left_as_it_was(quantized_files):
    for kind in ("bnb-4bit", "torchao-int8"):
        model = load_model(str(quantized_files(kind)))
        module, skipped = model.get_submodule(DOWN), dict(model.config.to_dict()["quantization_config"])
        with pytest.raises(EditError, match="tokens"):
            edit(model, make_tokenizer(), [replace(REQUESTS[0], prompt="{}" + " x" * 80)], layers=[1], progress=False)
        assert model.get_submodule(DOWN) is module
        known = model.config.to_dict()["quantization_config"]
        assert {name: known[name] for name in skipped if "modules" not in name} == {
            name: value for name, value in skipped.items() if "modules" not in name
        }
        before, worse = bits(model), loss(model)
        written(model)
        assert loss(model) < worse - 1
        assert {name for name in changed_of(before, model) if not name.startswith(DOWN)} == set()


def changed_of(before, model):
    """The same where some tensors are not there any more."""
    after = bits(model)
    return {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}


def test_a_model_whose_matrices_are_stored_the_other_way_round(tmp_path):
    make_gpt2(torch.float32, n_embd=64, n_inner=128, n_head=4).save_pretrained(tmp_path / "plain")
    load_model(str(tmp_path / "plain"), quantization="bnb-4bit").save_pretrained(tmp_path / "codes")
    model, _, maps = loaded(tmp_path / "codes")
    whole = load_model(str(tmp_path / "codes"))
    assert maps.quantized == maps.maps - 1
    torch.testing.assert_close(model(IDS).logits, whole(IDS).logits, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(load_model(str(tmp_path / "again"))(IDS).logits, model(IDS).logits)
    with pytest.raises(EditError, match=r"finds no linear map of GPT2LMHeadModel.*torch\.nn\.Linear only"):
        load_model(str(tmp_path / "plain"), quantization="torchao-int8")


def test_what_transformers_dequantizes_as_it_reads_it_is_an_ordinary_model(folder, tmp_path):
    files = tmp_path / "fp8"
    model = load_model(str(folder), "bfloat16")
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.layers") and tensor.ndim == 2:
            scale = tensor.float().abs().max() / 448
            weights[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scale.expand(-(-tensor.shape[0] // 128), -(-tensor.shape[1] // 128)).clone()
        else:
            weights[name] = tensor
    model.save_pretrained(files, state_dict=weights)
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    config = json.loads((files / "config.json").read_text()) | {"quantization_config": settings}
    (files / "config.json").write_text(json.dumps(config))
    if torch.cuda.is_available():
        pytest.skip("on a GPU it stays in 8 bits")
    read, layers, maps = loaded(files)
    assert (layers, maps.quantized, maps.method) == ([1], 0, None)
    torch.testing.assert_close(read(IDS).logits, model(IDS).logits, rtol=0.1, atol=3.0)
    read.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert torch.equal(load_model(str(tmp_path / "saved"))(IDS).logits, read(IDS).logits)


def test_experts_in_mxfp4_are_dequantized_as_they_are_read(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = GptOssConfig(
        **sizes, vocab_size=480, num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2
    )
    model, weights = GptOssForCausalLM(config).to(torch.bfloat16), {}
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, d_in, d_out = tensor.shape
            shape = (experts, d_out, d_in // 32)
            weights[f"{name}_blocks"] = torch.randint(256, (*shape, 16), dtype=torch.uint8, generator=generator)
            weights[f"{name}_scales"] = torch.full(shape, 122, dtype=torch.uint8)
        else:
            weights[name] = tensor
    model.save_pretrained(tmp_path, state_dict=weights)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    read = load_model(str(tmp_path))
    assert not holds_codes(read)
    assert not read.is_quantized
    assert read(IDS).logits.isfinite().all()


def test_blocks_of_8_bit_floats_are_scaled_each_by_its_own_number():
    module = FP8Linear(96, 64, block_size=(32, 32))
    module.weight.data = torch.randn(64, 96).to(torch.float8_e4m3fn)
    module.weight_scale_inv.data = torch.rand(2, 3) + 0.5
    scales = torch.tensor([[float(module.weight_scale_inv[i // 32, j // 32]) for j in range(96)] for i in range(64)])
    assert torch.equal(dequantized_weight("down", module), module.weight.float() * scales)


class Packed(torch.nn.Module):
    """A linear map that keeps its weight in whole numbers under a name of its own, as GPTQ and AWQ do."""

    def __init__(self, d_in, d_out, curve=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.in_features, self.out_features, self.curve = d_in, d_out, curve
        self.register_buffer("qweight", torch.randint(-7, 8, (d_in, d_out), dtype=torch.int32, generator=generator))
        self.register_buffer("scales", torch.rand(d_out, generator=generator))
        self.bias = torch.nn.Parameter(torch.ones(d_out), requires_grad=False)

    def forward(self, states):
        return states @ (self.qweight * self.scales) + self.bias + self.curve * states.square().sum(-1, keepdim=True)


def test_a_map_whose_library_is_not_known_is_asked_for_its_weight():
    module = Packed(1100, 8)
    assert holds_codes(module)
    torch.testing.assert_close(dequantized_weight("down", module), (module.qweight * module.scales).T)
    with pytest.raises(EditError, match=r"down is a Packed that does not give W k \+ b"):
        dequantized_weight("down", Packed(1100, 8, curve=0.5))


def test_codes_that_were_packed_for_a_processor_let_gradients_through_again(folder):
    from bitsandbytes.functional import _convert_weight_packed_for_cpu

    model = load_model(str(folder), quantization="bnb-4bit")
    before, module = bits(model), model.model.layers[0].mlp.up_proj
    module.support_avx512bf16_for_cpu = True
    module.weight.data, module.weight.quant_state = _convert_weight_packed_for_cpu(
        module.weight.data, module.weight.quant_state
    )
    keep_usable(model)
    assert not module.support_avx512bf16_for_cpu
    after = bits(model)
    # The scales were rounded to bfloat16 when they were packed.
    assert torch.equal(before["model.layers.0.mlp.up_proj.weight "], after["model.layers.0.mlp.up_proj.weight "])


REFUSED = {
    "`quantization` must be null or one of bnb-4bit, .* got 'int3'": {"quantization": "int3"},
    "computes in 32 bits or fewer": {"quantization": "bnb-8bit", "dtype": "float64"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_settings_that_cannot_be(message, folder):
    with pytest.raises(EditError, match=message):
        ModelSource(str(folder), **REFUSED[message])


@pytest.mark.parametrize(
    ("kind", "package", "extra"), [("bnb-4bit", "bitsandbytes", "bnb"), ("torchao-int8", "torchao", "torchao")]
)
def test_a_missing_library_is_named_before_anything_is_loaded(kind, package, extra, quantized_files, monkeypatch):
    files = quantized_files(kind)
    real = quantization.find_spec
    monkeypatch.setattr(quantization, "find_spec", lambda name: None if name == package else real(name))
    message = rf"needs {package}, which is missing: pip install 'lightning-edit\[{extra}\]'"
    with pytest.raises(EditError, match=f"`quantization: {kind}` {message}"):
        ModelSource("nowhere", quantization=kind)
    with pytest.raises(EditError, match=message):
        load_model(str(files))


def test_files_that_are_quantized_are_not_quantized_again(quantized_files):
    with pytest.raises(EditError, match=r"are quantized already \(bitsandbytes\). Leave the setting out"):
        load_model(str(quantized_files("bnb-4bit")), quantization="bnb-8bit")


def test_a_saved_model_of_torchao_says_which_matrices_are_plain(folder, tmp_path):
    model, _, _ = loaded(folder, quantization="torchao-int8")
    model.save_pretrained(tmp_path)
    settings = TorchAoConfig.from_dict(json.loads((tmp_path / "config.json").read_text())["quantization_config"])
    assert settings.modules_to_not_convert == ["lm_head", DOWN]


def test_weights_that_cannot_go_from_process_to_process_are_refused(folder, quantized_files, monkeypatch):
    # Whether there is a group is all that is asked; with one, torch's own broadcast fails in the library.
    monkeypatch.setattr("lightning_edit.loading.editable.in_a_group", lambda: True)
    for files, settings in ((folder, {"quantization": "torchao-int8"}), (quantized_files("torchao-int8"), {})):
        with pytest.raises(EditError, match="cannot be handed from process to process"):
            loaded(files, **settings)
    assert loaded(folder, quantization="bnb-8bit")[1] == [1]
