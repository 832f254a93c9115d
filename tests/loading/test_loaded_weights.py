"""A model's files hold its weights, all of them and nothing else, and these are numbers, or nothing is edited."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_edit import EditError, edit
from lightning_edit.cli.main import main
from lightning_edit.loading.loaded_weights import check_finite
from lightning_edit.loading.pretrained import load_model
from tests.architectures import SIZES, build
from tests.small_models import make_gpt2, make_llama, make_request, make_tokenizer

DOWN = "model.layers.1.mlp.down_proj.weight"


def saved(folder, model=None):
    (model or make_llama(torch.float32)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def change(folder, *without, **additional):
    file = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name not in without}
    save_file({**tensors, **additional}, file, {"format": "pt"})


def configure(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


@pytest.mark.parametrize("family", SIZES)
def test_whole_models_are_loaded(family, tmp_path):
    model = build(family)
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path)).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [DOWN, "model.layers.0.input_layernorm.weight", "model.norm.weight", "lm_head.weight"])
def test_a_missing_weight_is_refused_by_name(name, tmp_path):
    change(saved(tmp_path), name)
    with pytest.raises(EditError, match=rf"lack {re.escape(name)}, which LlamaForCausalLM needs"):
        load_model(str(tmp_path))


def test_many_missing_weights_are_counted(tmp_path):
    configure(saved(tmp_path), num_hidden_layers=4)
    with pytest.raises(EditError, match=r"model\.layers\.3\.input_layernorm\.weight.* and 6 more"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.down_proj.weight_scale",
        "model.layers.1.mlp.down_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "lm_head.bias",
        "model.norm.bias",
    ],
)
def test_a_weight_without_a_place_in_the_decoder_is_refused_by_name(name, tmp_path):
    change(saved(tmp_path), **{name: torch.ones(16)})
    with pytest.raises(EditError, match=rf"hold {re.escape(name)}, for which LlamaForCausalLM has no place"):
        load_model(str(tmp_path))


def test_a_configuration_with_fewer_blocks_than_the_files_is_refused(tmp_path):
    configure(saved(tmp_path), num_hidden_layers=2)
    with pytest.raises(EditError, match=r"hold model\.layers\.2\..* has no place"):
        load_model(str(tmp_path))


def test_what_belongs_to_other_parts_is_no_concern(tmp_path):
    additional = {
        "vision_tower.encoder.layers.0.mlp.fc1.weight": torch.ones(4, 4),
        "score.weight": torch.ones(2, 16),
        # A layer that predicts further tokens.
        "model.layers.3.mlp.down_proj.weight": torch.ones(16, 24),
        "model.layers.3.eh_proj.weight": torch.ones(16, 32),
        "mtp.layers.0.mlp.down_proj.weight": torch.ones(16, 24),
        # Older versions of transformers kept constants.
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    change(saved(tmp_path / "llama"), **additional)
    assert not additional.keys() & load_model(str(tmp_path / "llama")).state_dict().keys()
    mask = torch.ones(1, 1, 64, 64).tril().bool()
    older = {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e9)}
    for family in ("GPT2", "GPTJ"):
        build(family).save_pretrained(tmp_path / family)
        change(tmp_path / family, **older)
        assert not older.keys() & load_model(str(tmp_path / family)).state_dict().keys()


def test_tied_heads_and_files_without_a_head_are_loaded(tmp_path):
    model = make_gpt2(torch.float32)
    model.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    model.transformer.save_pretrained(tmp_path / "headless")
    for folder in ("tied", "headless"):
        loaded = load_model(str(tmp_path / folder))
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight), folder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers_are_refused_by_name(value, dtype, tmp_path):
    model = make_llama(dtype)
    check_finite(model)
    with torch.no_grad():
        model.get_parameter(DOWN)[3, 5] = value
    with pytest.raises(EditError, match=rf"{re.escape(DOWN)} of LlamaForCausalLM has entries that are NaN or infinite"):
        load_model(str(saved(tmp_path, model)))
    with pytest.raises(EditError, match=rf"{re.escape(DOWN)} .* NaN or infinite"):
        edit(model, make_tokenizer(), [make_request()], progress=False)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_codes_are_not_taken_for_numbers(dtype, tmp_path):
    codes = load_file(saved(tmp_path) / "model.safetensors")[DOWN].to(dtype)
    change(tmp_path, **{DOWN: codes})
    with pytest.raises(EditError, match=rf"holds {re.escape(DOWN)} as codes .* does not say how to read them"):
        load_model(str(tmp_path))


def test_a_model_whose_answers_are_no_numbers_is_refused():
    model = make_llama(torch.float32)
    with torch.no_grad():
        model.model.norm.weight.fill_(3e38)
    with pytest.raises(EditError, match=r"logits that are NaN or infinite .*float32 or bfloat16"):
        edit(model, make_tokenizer(), [make_request()], layers=[1], progress=False)


def test_the_command_line_ends_before_any_work(tmp_path, capsys):
    change(saved(tmp_path / "model"), DOWN)
    with pytest.raises(SystemExit) as refused:
        main(["fit", f"--model.model={tmp_path / 'model'}", f"--trainer.logger.save_dir={tmp_path / 'runs'}"])
    assert refused.value.code == 2
    assert DOWN in capsys.readouterr().err
    assert not list(tmp_path.rglob("metrics.json"))
