"""What ``lightning-edit updates`` lists and shows, and which runs and words it refuses."""

import re
import shutil

import pytest

from lightning_edit import EditError, ModelUpdate
from lightning_edit.cli.main import main as command_line
from lightning_edit.commands.updates import main
from lightning_edit.configs import CONFIGS
from lightning_edit.updates.history import History
from lightning_edit.updates.undo import change_updates
from tests.commands.updates.material import BATCHES, drawn, equal, exported, said


@pytest.mark.parametrize("action", ["list", "remove"])
def test_a_folder_without_updates_is_refused(tmp_path, action):
    numbers = ["1"] if action == "remove" else []
    with pytest.raises(EditError, match=r"holds no updates: expected .*update-00001\.safetensors"):
        main([action, str(tmp_path), *numbers])
    with pytest.raises(EditError, match="There is no folder"):
        main([action, str(tmp_path / "none"), *numbers])


def test_a_run_that_goes_on_is_listed_and_not_changed(run, capsys):
    shutil.rmtree(run / "model")
    (run / "update.safetensors").rename(run / "elsewhere")
    main(["list", str(run)])
    assert "kept" in said(capsys)
    with pytest.raises(EditError, match=r"the run is not finished, .*Wait for its end"):
        main(["remove", str(run), "4"])
    # Gone on with after it was finished once.
    (run / "elsewhere").rename(run / "update.safetensors")
    history = History(run / "updates")
    stored = history.read(4)
    history.write(5, stored.updates, stored.keys, BATCHES[3], {})
    with pytest.raises(EditError, match=r"is not the sum of the updates .*still going on"):
        main(["remove", str(run), "4"])
    assert history.removed() == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"config\.yaml, line 2, column 1: not YAML"),
        ("[]", r"config\.yaml is not the configuration of a run"),
        ("model: 3", r"config\.yaml is not the configuration of a run"),
        ("model: {init_args: {model: 5}}", r"config\.yaml: `model\.model` must be a name .* got 5 and 'bfloat16'"),
        (
            "model: {init_args: {model: tiny, dtype: [1]}}",
            r"`model\.dtype` one of auto, float64, .* got 'tiny' and \[1\]",
        ),
        ("a: &a [*a]", r"config\.yaml, line 1: the alias \*a stands inside of what it stands for"),
    ],
)
def test_a_broken_configuration_is_refused(run, text, message):
    (run / "config.yaml").write_text(text)
    with pytest.raises(EditError, match=message):
        main(["remove", str(run), "1"])


def test_without_a_configuration_the_updates_tell_the_model(run, finished):
    (run / "config.yaml").unlink()
    path = run / "update.safetensors"
    update = ModelUpdate.load(path)
    ModelUpdate(update.layers, update.info | {"dtype": "bfloat16"}).save(path)
    main(["remove", str(run), "4"])
    assert equal(exported(run), finished[1][3])


@pytest.mark.parametrize("args", [[], ["remove", "x"], ["show", "x", "one"], ["forget", "x"]])
def test_a_wrong_command_leaves_with_status_2(args, capsys):
    with pytest.raises(SystemExit) as error:
        main(args)
    assert error.value.code == 2
    assert re.search(r"^error: .*`lightning-edit updates .*--help` shows what is accepted", capsys.readouterr().err)


# -- list and show -----------------------------------------------------------------------------------------------------


def test_the_list_shows_every_update(run):
    change_updates(run, "remove", [2])
    path = run / "updates" / "update-00003.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    lines = drawn(run).splitlines()
    rows = {
        line.split()[0]: line for line in lines if line.split() and line.split()[-1] in ("kept", "removed", "damaged")
    }
    assert {number: row.split()[-1] for number, row in rows.items()} == {
        "1": "kept",
        "2": "removed",
        "3": "damaged",
        "4": "kept",
    }
    record = History(run / "updates").record(1)
    figures = record.figures
    assert record.when[:10] in rows["1"]
    assert f"3: {BATCHES[0][0].subject}, {BATCHES[0][1].subject} and 1 more" in rows["1"]
    for name in ("update_norm", "memorization_error", "preservation_error"):
        assert f"{figures[f'layer_0/{name}']:.3g}" in rows["1"]
        assert f"{figures[f'layer_1/{name}']:.3g}" in lines[lines.index(rows["1"]) + 1]
    conditions = (figures["layer_0/preservation_condition"], figures["layer_0/keys_condition"])
    assert f"{max(conditions):.3g}" in rows["1"]


def test_the_list_fits_a_terminal_of_80_columns(run):
    change_updates(run, "remove", [2])
    lines = drawn(run, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert all(heading in lines[0] + lines[1] for heading in ("no.", "when", "edits", "layer", "|update|", "state"))
    assert [sum(line.rstrip().endswith(state) for line in lines) for state in ("kept", "removed")] == [3, 1]


def test_show_gives_the_edits_of_one_update(run, capsys):
    main(["show", str(run), "2"])
    text = said(capsys)
    assert text.startswith("update 2, 20")
    assert "3 edits, kept" in text
    for request in BATCHES[1]:
        assert request.rewrite_prompt in text
        assert request.target_new in text
    assert BATCHES[0][0].rewrite_prompt not in text


def test_updates_that_were_each_made_by_themselves_have_no_sum_and_every_command_says_so(tmp_path, capsys):
    """The run is finished, so neither to wait for it nor to take its checkpoint would help."""
    given = [
        "--data.edits=4",
        "--model.edits_per_update=2",
        "--model.independent_updates=true",
        "--collateral.prompts=0",
    ]
    config = str(CONFIGS / "solvers" / "ultraedit.yaml")
    command_line(["fit", "--config", config, "--collateral.prompts=0", *given, f"--trainer.logger.save_dir={tmp_path}"])
    run = tmp_path / "version_0"
    main(["list", str(run)])
    (*_, checkpoint) = sorted((run / "checkpoints").glob("*.ckpt"))
    capsys.readouterr()
    for words in (
        ["updates", "remove", str(run), "1"],
        ["export", str(run)],
        ["export", str(checkpoint)],
        ["ask", str(run), "--once", "Why?"],
    ):
        with pytest.raises(SystemExit):
            command_line(words)
        said = capsys.readouterr().err
        assert "was made by itself (`independent_updates`), so there is no edited model" in said, words
        assert "finished" not in said
        assert "checkpoint can be given" not in said
