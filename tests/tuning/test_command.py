"""``lightning-edit tune`` on the embedded model: what it writes, how it goes on, and mistakes."""

import json

import pytest
import yaml

from lightning_edit.cli import main as cli
from lightning_edit.cli.tune import read_requests
from lightning_edit.models.presets import Preset
from lightning_edit.tiny import World
from lightning_edit.tuning.bench import Bench
from lightning_edit.tuning.judge import Score
from tests.data_files import counterfact

pytestmark = pytest.mark.slow

WORLD = World.generate()


def tune(folder, *args):
    out, data, text = folder / "preset.yaml", folder / "edits.json", folder / "text.txt"
    given = ["--data", data, "--preserve", text, "--out", out, "--edits", 4, "--layers", 0, "--tokens", 4000]
    cli.main(["tune", "tiny", *map(str, [*given, *args])])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a tuning was made."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "edits.json").write_text(json.dumps(WORLD.records(12, seed=5)))
    (folder / "text.txt").write_text("\n".join(WORLD.sentences(0)))
    tune(folder)
    return folder


def test_it_writes_a_preset_that_fit_reads(folder, capsys):
    preset = Preset.read(folder / "preset.yaml")
    assert preset.status == "tuned"
    assert preset.layers == [0]
    assert preset.solver == "EMMET"
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", "--config", str(folder / "preset.yaml"), "--print_config"])
    assert not left.value.code
    printed = capsys.readouterr().out
    chosen = json.loads((folder / "preset.trials.json").read_text())["chosen"]["point"]
    assert f"clamp_norm_factor: {chosen['clamp']}" in printed
    assert f"second_moment_weight: {chosen['weight'] / 0.1:.1f}" in printed


def test_the_preset_counts_second_moments_from_the_text_of_the_tuning(folder, capsys):
    with pytest.raises(SystemExit):
        own = ["--data", "OwnEdits", "--data.path", str(folder / "edits.json")]
        cli.main(["fit", "--config", str(folder / "preset.yaml"), *own, "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["model"]["init_args"]["second_moment"]["tokens"] == 4000
    preserved = settings["data"]["init_args"]["preservation"]
    assert preserved["class_path"].endswith("TextFile")
    assert preserved["init_args"]["path"] == str(folder / "text.txt")


def test_the_preset_is_the_best_of_all_trials(folder):
    told = json.loads((folder / "preset.trials.json").read_text())
    means = {}
    for trial in told["trials"]:
        if trial["edits"] == 4:
            means[json.dumps(trial["point"])] = (Score(**trial["score"]).mean(), -trial["growth"])
    assert means[json.dumps(told["chosen"]["point"])] == max(means.values())
    assert told["chosen"]["score"]["efficacy"] > 0.5
    logged = [json.loads(line) for line in (folder / "preset.trials.jsonl").read_text().splitlines()[1:]]
    assert sorted(map(json.dumps, logged)) == sorted(map(json.dumps, told["trials"]))
    assert f"{len(logged)} trials with up to 4 edits" in (folder / "preset.yaml").read_text()
    assert (folder / "preset.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_makes_no_trial_again(folder, monkeypatch, capsys):
    log, preset = (folder / "preset.trials.jsonl").read_text(), (folder / "preset.yaml").read_text()
    made = []
    monkeypatch.setattr(Bench, "run", lambda *args: made.append(args))
    tune(folder)
    assert not made
    assert (folder / "preset.trials.jsonl").read_text() == log
    assert (folder / "preset.yaml").read_text() == preset
    shown = capsys.readouterr()
    assert "made before and read from" in shown.err
    assert "Chosen of " in shown.out


def test_trials_with_other_text_of_the_same_file_do_not_count(folder, tmp_path, capsys):
    for name in ("edits.json", "text.txt", "preset.trials.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "text.txt").write_text("\n".join(list(WORLD.sentences(0))[1:]))
    with pytest.raises(SystemExit) as left:
        tune(tmp_path)
    assert left.value.code
    assert "trials of another tuning" in capsys.readouterr().err


def test_what_was_tried_is_kept_when_it_is_stopped(folder, tmp_path, monkeypatch, capsys):
    for name in ("edits.json", "text.txt"):
        (tmp_path / name).write_text((folder / name).read_text())
    real, made = Bench.run, []

    def stopped(*args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(real(*args))
        return made[-1]

    monkeypatch.setattr(Bench, "run", stopped)
    with pytest.raises(SystemExit) as left:
        tune(tmp_path)
    assert left.value.code == 130
    kept = (tmp_path / "preset.trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["edits"] for line in kept[1:]] == [4, 4]
    assert "the same command goes on" in " ".join(capsys.readouterr().err.split())


def test_trials_of_another_tuning_are_not_mixed_in(folder, capsys):
    with pytest.raises(SystemExit) as left:
        tune(folder, "--seed", 1)
    assert left.value.code == 2
    assert "holds trials of another tuning" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "2"], "`--layers` must be among those that can be edited, [0, 1], got [2]"),
        (["--edits", "0"], "`--edits` must be a whole number of 1 or more"),
        (["--preserve", "none.txt"], "there is no file none.txt"),
        (["--data", "none.json"], "there is no file none.json"),
        (["--out", "preset.png"], "ends in .yaml"),
        (["--data", "a/edits.trials.json", "--out", "a/edits.yaml"], "edits.trials.json would be written over"),
    ],
)
def test_a_mistake_gets_one_clear_message(args, message, folder, capsys):
    with pytest.raises(SystemExit) as left:
        tune(folder, *args)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_edits_are_read_in_any_format(folder, tmp_path):
    own = read_requests(str(folder / "edits.json"))
    assert [request.subject for request in own] == [record["subject"] for record in WORLD.records(12, seed=5)]
    records = [counterfact(record) for record in WORLD.records(12, seed=5)]
    (tmp_path / "counterfact.json").write_text(json.dumps(records))
    read = read_requests(str(tmp_path / "counterfact.json"))
    assert [request.target_new for request in read] == [request.target_new for request in own]
