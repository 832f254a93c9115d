"""What `test` of a checkpoint takes from the command line, and what the checkpoint decides."""

import json
import shutil

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.tiny import MODEL_PATH


@pytest.mark.parametrize(
    ("words", "decides"),
    [
        (["--model.dtype=bfloat16", "--model.layers", "[1]"], r"`model.dtype` (auto), `model.layers` ([0])"),
        (["--model.solver", "ROME"], "`model.solver` (EMMET)"),
        (["--model.values.steps=77"], "`model.values.steps` ("),
    ],
)
def test_what_a_checkpoint_decides_is_not_given_anew(finished, words, decides, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["test", "--ckpt_path", str(finished), f"--trainer.logger.save_dir={tmp_path}", *words])
    assert f"the model as the checkpoint holds it, which decides {decides}" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_model_that_lies_elsewhere_by_now_is_named_and_has_to_be_the_same(finished, tmp_path, capsys):
    moved = shutil.copytree(MODEL_PATH, tmp_path / "moved")
    words = ["test", "--ckpt_path", str(finished), f"--trainer.logger.save_dir={tmp_path}", "--collateral.prompts=0"]
    cli.main([*words, f"--model.model={moved}"])
    content = json.loads((tmp_path / "version_0" / "metrics.json").read_text())
    assert content["config"]["model"]["model"] == str(moved)
    assert content["after"] == json.loads((finished / "metrics.json").read_text())["after"]
    with pytest.raises(SystemExit):
        cli.main([*words, "--model.model=tiny-moe"])
    assert "was made from other weights than layer 0 of tiny-moe holds" in " ".join(capsys.readouterr().err.split())
