"""What config.json states by itself chooses the preset that transformers' reading of it chooses, or says nothing."""

import json

import pytest
import transformers
from transformers import AutoConfig

from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import read_config
from lightning_edit.loading.stated_config import NotStatedError, stated_config
from lightning_edit.models.presets import has_presets, preset_for, presets

SHAPES = {tuple(preset.fits.items()): dict(preset.fits) for preset in presets()}


def written(folder, config):
    """The folder of a model, as transformers writes its configuration."""
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("solver", ["EMMET", pytest.param("MEMIT", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fits", SHAPES.values(), ids=lambda fits: "-".join(map(str, fits.values())))
@pytest.mark.slow
def test_the_same_preset_is_chosen_as_by_transformers(tmp_path, fits, solver):
    name = written(tmp_path, AutoConfig.for_model(**fits))
    stated = stated_config(name)
    assert has_presets(stated)
    assert preset_for(stated, solver) == preset_for(read_config(name), solver) is not None


def test_the_part_for_text_counts(tmp_path):
    text = {"num_hidden_layers": 34, "hidden_size": 2560, "intermediate_size": 10240}
    name = written(tmp_path, transformers.Gemma3Config(text_config=text))
    assert preset_for(stated_config(name), "RROME").name == "configs/models/gemma_3_4b.yaml"


def test_what_the_file_leaves_to_transformers_is_not_guessed(tmp_path):
    def stated(**content):
        (tmp_path / "config.json").write_text(json.dumps(content))
        return stated_config(str(tmp_path))

    with pytest.raises(NotStatedError):
        preset_for(stated(model_type="llama", num_hidden_layers=32, hidden_size=4096), "EMMET")
    with pytest.raises(NotStatedError):
        has_presets(stated(hidden_size=4096))
    with pytest.raises(NotStatedError):
        has_presets(stated(model_type="llama", decoder={"model_type": "llama"}))
    assert not has_presets(stated(model_type="bert"))


def test_a_damaged_folder_is_refused_and_what_is_elsewhere_left_to_transformers(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EditError, match="not JSON"):
        stated_config(str(tmp_path))
    assert stated_config("nobody/has-downloaded-this") is None
    assert stated_config("no--hub-name") is None


def test_a_downloaded_model_of_the_hub_is_read_where_it_lies(tmp_path, monkeypatch):
    made = AutoConfig.for_model(**next(iter(SHAPES.values())))
    folder = tmp_path / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    made.save_pretrained(folder / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert preset_for(stated_config("some/model"), "EMMET") == preset_for(made, "EMMET")
