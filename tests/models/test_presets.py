"""Presets: which one is for a model, that each is what it says, and that they are read as they were written."""

import re
import runpy

import pytest
import transformers
import yaml
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import read_config
from lightning_edit.models.presets import PRESETS, STATUSES, Preset, preset_for, presets, render_preset
from tests.conftest import ROOT

SHIPPED = list(presets())
ONE_EACH = pytest.mark.parametrize("preset", SHIPPED, ids=lambda preset: preset.file.stem)
LLAMA = {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336}


def config(**changes):
    return AutoConfig.for_model(**{**LLAMA, **changes})


@ONE_EACH
@pytest.mark.slow
def test_transformers_has_the_models_that_a_preset_is_for(preset):
    assert preset.fits["model_type"] in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert {"num_hidden_layers", "hidden_size"} < set(preset.fits)
    made = AutoConfig.for_model(**preset.fits)
    assert preset.is_for(made)
    chosen = [preset_for(made, solver) for solver in (preset.solver, "EMMET", "MEMIT", "AlphaEdit", "ROME")]
    assert preset.file in [one.file for one in chosen]
    assert len({tuple(one.fits.items()) for one in chosen}) == 1


@ONE_EACH
def test_the_layers_can_be_edited(preset):
    depth = preset.fits["num_hidden_layers"]
    for layers in (preset.layers, preset.layers_for(several=False)):
        # The last block cannot.
        assert layers == sorted(set(layers)) and layers[0] >= 0 and layers[-1] < depth - 1
    assert len(preset.layers_for(several=False)) == 1


@ONE_EACH
def test_numbers_have_a_source(preset):
    if preset.status == "published":
        assert re.search(r"arXiv \d{4}\.\d{5}|^[\w-]+/[\w-]+(, hparams/\w+)?", preset.source)
    if preset.status == "analogy":
        named = re.findall(r"\w+\.yaml", preset.source)
        assert named and all((PRESETS / name).is_file() for name in named)
    assert preset.models and preset.settings["model"] in preset.models


def test_models_in_use_have_presets():
    families = {preset.fits["model_type"] for preset in SHIPPED}
    assert families >= {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "smollm3", "olmo2"}
    assert len({tuple(preset.fits.values()) for preset in SHIPPED}) > 35
    assert {preset.status for preset in SHIPPED} <= set(STATUSES)


def test_shape_decides_and_not_the_name():
    found = preset_for(config(), "MEMIT")
    assert found.name == "configs/models/llama_3_8b_memit.yaml"
    assert str(found) == "configs/models/llama_3_8b_memit.yaml (published)"
    assert preset_for(config(_name_or_path="meta-llama/Llama-2-7b-hf"), "MEMIT") == found
    assert preset_for(config(vocab_size=128_300, max_position_embeddings=131_072), "MEMIT") == found
    assert preset_for(config(intermediate_size=11008), "MEMIT").name == "configs/models/llama_2_7b_memit.yaml"
    for other in ({"num_hidden_layers": 33}, {"hidden_size": 4224}, {"model_type": "mistral", "hidden_size": 64}):
        assert preset_for(config(**other), "MEMIT") is None
    assert preset_for(read_config("tiny"), "EMMET").name == "configs/models/tiny.yaml"


def test_what_a_model_of_images_says_of_its_text_counts():
    text = {"num_hidden_layers": 34, "hidden_size": 2560, "intermediate_size": 10240}
    found = preset_for(transformers.Gemma3Config(text_config=text), "RROME")
    assert found.name == "configs/models/gemma_3_4b.yaml"


def test_a_solver_gets_its_own_preset_or_one_with_as_many_layers():
    names = {solver: preset_for(config(), solver).file.stem for solver in ("EMMET", "ROME", "AlphaEdit", "MySolver")}
    assert names == {
        "EMMET": "llama_3_8b",
        "ROME": "llama_3_8b",
        "AlphaEdit": "llama_3_8b_memit",
        "MySolver": "llama_3_8b_memit",
    }


def test_one_layer_of_several_is_the_one_that_is_named_or_the_middle_one():
    several = Preset.read(PRESETS / "qwen3_4b.yaml")
    assert several.layers_for(several=True) == several.layers == [4, 5, 6, 7, 8]
    assert several.layers_for(several=False) == [17]
    assert Preset.read(PRESETS / "qwen3_8b.yaml").layers_for(several=False) == [6]


SETTINGS = {
    "model": "./my-model",
    "layers": [1, 2],
    "solver": {"class_path": "MEMIT", "init_args": {"second_moment_weight": 300.0}},
    "values": {"lr": 0.1, "clamp_norm_factor": 4.0},
}


def test_what_is_rendered_is_read_again(tmp_path):
    about = f"What was tried: {'many things, ' * 20}\nefficacy 97.5, collateral 99.0."
    shape = {"num_hidden_layers": 5, "hidden_size": 64, "intermediate_size": 96}
    made = config(**shape)
    source = "lightning-edit tune, 24 trials: {layers: '1-2'} # best\nof all"
    text = render_preset(made, SETTINGS, "tuned", source, about, ["me/mine: 5"], one_layer=2)
    assert max(map(len, text.splitlines())) <= 120
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    read = Preset.read(file)
    assert read.fits == {"model_type": "llama", **shape}
    assert (read.settings, read.status, read.models, read.one_layer) == (SETTINGS, "tuned", ["me/mine: 5"], 2)
    assert read.source == "lightning-edit tune, 24 trials: {layers: '1-2'} # best of all"
    assert str(read) == f"{file} (found by tune)"
    assert preset_for(made, "MEMIT", tmp_path) == read
    assert yaml.safe_load(text) == {"model": {"class_path": "EditingModule", "init_args": SETTINGS}}
    assert "collateral 99.0" in text


@pytest.mark.parametrize(
    "change",
    [
        ("# preset:", "# presets:"),
        ("status: tuned", "status: great"),
        ("status: tuned", "state: tuned"),
        ("#   fits: {", "#   fits: {}  # {"),
        ("#   status", "#   surprise: 1\n#   status"),
        ("layers: [1, 2]", "layers: []"),
        ("layers: [1, 2]", "other: 1"),
        ("layers: [1, 2]", "layers: 3"),
        ("  init_args:\n    model", "  args:\n    model"),
        ("class_path: MEMIT", "class: MEMIT"),
    ],
)
def test_what_is_no_preset_is_refused(change, tmp_path):
    text = render_preset(config(), SETTINGS, "tuned", "a test")
    assert change[0] in text
    (tmp_path / "wrong.yaml").write_text(text.replace(*change))
    with pytest.raises(EditError, match=r"wrong\.yaml"):
        Preset.read(tmp_path / "wrong.yaml")


def test_the_table_of_the_documentation_is_current():
    script = runpy.run_path(str(ROOT / "docs" / "scripts" / "preset_table.py"))
    (shown,) = script["TABLE"].findall(script["PAGE"].read_text(encoding="utf-8"))
    assert shown == script["table"](), "run `python docs/scripts/preset_table.py`"
    assert len(shown.splitlines()) == len(SHIPPED) + 2
