"""NaN and infinity: refused where they are to become weights, null where they are figures."""

import json

import pytest
import torch

from lightning_edit import EditError
from lightning_edit.cli.main import main
from lightning_edit.loading.pretrained import load_model
from lightning_edit.storage.numbers import to_json
from lightning_edit.updates.model_update import ModelUpdate


def spoil_weights(content):
    next(iter(content["state_dict"].values()))[2, 3] = float("nan")


def spoil_sums(content):
    next(iter(content["run"]["added"].values()))["left"][0, 0] = float("inf")


@pytest.mark.parametrize(
    ("spoil", "place"),
    [(spoil_weights, "state_dict.model.transformer.h.0.mlp.c_proj.weight"), (spoil_sums, "run.added.0.left")],
)
@pytest.mark.slow
def test_a_checkpoint_that_is_not_finite_is_refused(spoil, place, finished, tmp_path, capsys):
    content = torch.load(finished / "edited.ckpt", weights_only=True)
    spoil(content)
    torch.save(content, tmp_path / "edited.ckpt")
    for words in (["test", "--ckpt_path"], ["fit", "--model.on_top_of"]):
        more = [f"--trainer.logger.save_dir={tmp_path / 'runs'}", "--data.edits=1"]
        with pytest.raises(SystemExit) as refused:
            main([words[0], words[1], str(tmp_path / "edited.ckpt"), *more])
        assert refused.value.code == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert f"{place}: expected finite numbers" in shown
        assert "use an earlier checkpoint or another run" in shown


def test_an_update_that_is_not_finite_is_refused(finished, tmp_path):
    update, model = ModelUpdate.load(finished / "update.safetensors"), load_model("tiny")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update.layers[0].factors.left[0, 0] = float("nan")
    update.save(tmp_path / "update.safetensors")
    with pytest.raises(EditError, match=r"left\.0: expected finite numbers"):
        ModelUpdate.load(tmp_path / "update.safetensors").insert(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_figures_that_are_no_numbers_are_null_in_json():
    nan, inf = float("nan"), float("inf")
    text = to_json({"a": nan, "b": [1.5, inf, {"c": -inf}], "d": (True, None, "NaN", 3)}, indent=2)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == {"a": None, "b": [1.5, None, {"c": None}], "d": [True, None, "NaN", 3]}
