"""A run from which updates were removed is measured without them, also from the checkpoint that still holds them."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from lightning_edit import EditError, ModelUpdate
from lightning_edit.cli import main as cli
from lightning_edit.datamodules import TinyWorld
from lightning_edit.updates.files.update_list import UpdateList
from lightning_edit.updates.removed import removed_from
from tests.small_runs import module
from tests.trainers import quiet_trainer

HOLDS = "still holds update 1, which was removed from its run"


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def measured(folder, path):
    """What ``test`` wrote, and how likely each new answer was."""
    cli.main(["test", f"--ckpt_path={path}", f"--trainer.logger.save_dir={folder}", "--collateral.prompts=0"])
    found = max(folder.glob("version_*"), key=lambda one: int(one.name[8:]))
    lines = [json.loads(line) for line in (found / "records.jsonl").read_text().splitlines()]
    return json.loads((found / "metrics.json").read_text()), likely(lines)


def likely(lines):
    return {line["case_id"]: line["efficacy"][0]["log_prob_new"] for line in lines}


@pytest.mark.parametrize("name", ["", "edited.ckpt"])
def test_a_run_is_measured_without_what_was_removed(name, run, tmp_path):
    whole, all_likely = measured(tmp_path / "runs", run / name)
    cli.main(["updates", "remove", str(run), "1"])
    said = rf"{re.escape(str(run / 'edited.ckpt'))} {HOLDS}\. The run is taken as it is now, .* It holds 4 edits\."
    with pytest.warns(UserWarning, match=said):
        rest, rest_likely = measured(tmp_path / "runs", run / name)
    assert (whole["edits"], rest["edits"]) == (6, 4)
    lines = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    unedited = likely(line for line in lines if line["stage"] == "before")
    removed = [edit["case_id"] for edit in UpdateList(run / "updates").record(1).edits]
    assert len(removed) == 2
    for case in removed:
        assert abs(rest_likely[case] - unedited[case]) < 0.5 * abs(all_likely[case] - unedited[case])
    assert rest["after"]["efficacy_score"] < whole["after"]["efficacy_score"]


def test_what_was_removed_is_not_advised_upon_as_failed(run, tmp_path, capsys):
    cli.main(["updates", "remove", str(run), "1", "2"])
    capsys.readouterr()
    with pytest.warns(UserWarning, match="It holds 2 edits"):
        measured(tmp_path / "runs", run)
    said = " ".join(capsys.readouterr().out.split())
    assert "of 6 edits failed" not in said
    found = re.search(r"(\d) of 2 edits failed", said)
    assert found is None or int(found[1]) <= 2


def test_the_weights_that_are_measured_are_those_of_the_update_file(run, tmp_path):
    cli.main(["updates", "remove", str(run), "1", "3"])
    update = ModelUpdate.load(run / "update.safetensors")
    made = module(layers=list(update.layers), edits_per_update=2)
    given = {"datamodule": TinyWorld(edits=6), "ckpt_path": run / "edited.ckpt", "weights_only": True, "verbose": False}
    with pytest.warns(UserWarning, match="still holds updates 1, 3, which were removed"):
        quiet_trainer(tmp_path, logger=False).test(made, **given)
    for layer, one in update.layers.items():
        weight, base = made.decoder.weight(layer), made.weights.base[layer]
        assert torch.equal(weight, (base.double() + one.factors.dense()).to(weight.dtype))
    assert list(made.positions_so_far) == [2, 3]


def test_another_checkpoint_is_measured_as_it_is_and_this_is_said(run, tmp_path):
    file = run / "checkpoints" / "update-000003.ckpt"
    cli.main(["updates", "remove", str(run), "1"])
    said = f"{file} {HOLDS}. It is taken as it is, with all that it holds; {run} is the run without"
    with pytest.warns(UserWarning, match=re.escape(said)):
        found, _ = measured(tmp_path / "runs", file)
    assert found["edits"] == 6


def test_with_all_updates_removed_the_unedited_model_is_measured(run, tmp_path):
    whole = json.loads((run / "metrics.json").read_text())
    cli.main(["updates", "remove", str(run), "1", "2", "3"])
    with pytest.warns(UserWarning, match="It holds 0 edits"):
        found, _ = measured(tmp_path / "runs", run)
    assert (found["edits"], found["after"]) == (0, None)
    assert found["before"] == pytest.approx(whole["before"], rel=1e-5)


def test_a_checkpoint_from_before_the_removed_update_holds_nothing_of_it(run):
    assert removed_from(run / "edited.ckpt") is None
    cli.main(["updates", "remove", str(run), "3"])
    assert removed_from(run / "checkpoints" / "update-000002.ckpt", until=2) is None
    assert removed_from(run / "edited.ckpt", until=3).numbers == [3]


def test_the_sum_of_another_run_is_refused(run, tmp_path, capfd):
    cli.main(["updates", "remove", str(run), "1"])
    update = ModelUpdate.load(run / "update.safetensors")
    layers = {layer: replace(one, base="0" * 64) for layer, one in update.layers.items()}
    ModelUpdate(layers, update.info).save(run / "update.safetensors")
    with pytest.raises(SystemExit):
        measured(tmp_path / "runs", run)
    assert "holds the files of another run" in " ".join(capfd.readouterr().err.split())


def test_without_the_file_of_the_sum_the_updates_are_added_up(run):
    cli.main(["updates", "remove", str(run), "2"])
    removed = removed_from(run / "edited.ckpt")
    expected = removed.kept()
    (run / "update.safetensors").unlink()
    for layer, one in removed_from(run / "edited.ckpt").kept().items():
        assert torch.equal(one.factors.dense(), expected[layer].factors.dense())


def test_one_damaged_update_does_not_keep_the_others_from_being_counted(run):
    cli.main(["updates", "remove", str(run), "1"])
    removed = removed_from(run / "edited.ckpt")
    assert removed.places(6) == [0, 1]
    removed_file, kept_file = (run / "updates" / f"update-0000{number}.safetensors" for number in (1, 2))
    removed_file.write_bytes(b"cut")
    assert removed.places(6) == [0, 1]
    kept_file.write_bytes(b"cut")
    with pytest.raises(EditError, match="damaged"):
        removed.places(6)
