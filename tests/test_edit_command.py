"""``lightning-edit edit``: the fit that it is, what it makes of what people write, and what it refuses."""

import csv
import json
import shlex
import subprocess
import sys

import pytest
import yaml

from lightning_edit.cli import main as cli
from lightning_edit.cli.edit import METHODS, default_layer, layer_list, method_named, published_settings
from lightning_edit.configs import CONFIGS
from lightning_edit.errors import EditError
from lightning_edit.tiny import World

RECORDS = World.generate().records(2, seed=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with edits and ordinary text in it, and the user is there."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "edits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["subject", "prompt", "target_new"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(RECORDS)
    (tmp_path / "text.txt").write_text("\n".join(record["subject"] for record in RECORDS))
    (tmp_path / "quick.yaml").write_text(
        yaml.safe_dump(
            {
                "model": {
                    "init_args": {
                        "values": {"steps": 3},
                        "second_moment": {"tokens": 4000, "cache_dir": str(tmp_path / "cache")},
                    }
                }
            }
        )
    )
    return tmp_path


def printed(capsys, *args):
    cli.main(["edit", *map(str, args), "--dry-run"])
    return shlex.split(capsys.readouterr().out)


def test_it_edits_and_the_command_that_it_prints_does_the_same(folder, capsys):
    cli.main(["edit", "tiny", "edits.csv", "--method", "MEMIT", "--out", "my model/1", "--config", "quick.yaml"])
    shown = capsys.readouterr().out
    assert "2 edits" in shown
    run = folder / "my model" / "1"
    assert (run / "model" / "config.json").is_file()
    command = shlex.split(next(line for line in shown.splitlines() if line.startswith("lightning-edit fit ")))
    run.rename(folder / "first")
    cli.main(command[1:])
    first, second = (json.loads((at / "metrics.json").read_text()) for at in (folder / "first", run))
    assert first["after"] == second["after"]
    assert first["config"]["model"]["solver"]["class_path"].endswith("MEMIT")


def test_the_equal_command_holds_what_was_asked_for_and_no_more(folder, capsys):
    words = printed(capsys, "tiny", "edits.csv", "--layers", "0-1", "--preserve", "text.txt", "--limit", "1")
    assert words == [
        *("lightning-edit", "fit", "--config", "configs/solvers/emmet.yaml"),
        *("--model.model", "tiny", "--model.layers", "[0, 1]"),
        *("--data", "OwnEdits", "--data.path", "edits.csv", "--data.limit", "1"),
        *("--data.preservation", "TextFile", "--data.preservation.path", "text.txt"),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_settings_that_the_fit_takes(method, folder, capsys):
    numbers = ["--batch-size=2", "--device=cpu"] + ([] if method.startswith("ft") else ["--edits-per-update=1"])
    words = printed(capsys, "tiny", "edits.csv", "--method", method, "--layers=1", "--out=7", *numbers)
    with pytest.raises(SystemExit) as left:
        cli.main([*words[1:], "--print_config"])
    shown = capsys.readouterr()
    assert not left.value.code, shown.err
    settings = yaml.safe_load(shown.out)
    assert settings["model"]["init_args"]["layers"] == [1]
    assert settings["data"]["init_args"]["path"] == "edits.csv"
    assert settings["trainer"]["logger"]["init_args"]["name"] == "7"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("MEMIT", "memit"), ("r-ROME", "rrome"), ("FT-L", "ft_l"), ("AlphaEdit", "alphaedit"), ("memit sequential", None)],
)
def test_methods_are_known_however_they_are_written(written, meant):
    assert method_named(written) == (meant or "memit_sequential")


@pytest.mark.parametrize(
    ("written", "layers"),
    [("5", [5]), ("3-5", [3, 4, 5]), ("3,7", [3, 7]), ("[3, 4]", [3, 4]), ("1-2,5", [1, 2, 5]), ("[0]", [0])],
)
def test_layers_are_read_as_people_write_them(written, layers):
    assert layer_list(written) == layers


@pytest.mark.parametrize("written", ["", "x", "-1", "5-3", "1,,2", "1.5", "1-2-3", "all", "²"])
def test_what_is_no_layer_is_refused(written):
    with pytest.raises(EditError, match="--layers"):
        layer_list(written)


def test_published_settings_are_those_of_the_model_and_the_method():
    assert published_settings("openai-community/gpt2-xl", "memit") == ["configs/models/gpt2_xl_memit.yaml"]
    assert published_settings("openai-community/gpt2-xl", "rrome")[1:] == ["configs/solvers/rrome.yaml"]
    assert published_settings("openai-community/gpt2-xl", "ft") == []
    assert published_settings("./gpt2-xl", "memit") == []
    for path in (CONFIGS / "models").glob("*.yaml"):
        model = yaml.safe_load(path.read_text())["model"]["init_args"]["model"]
        assert published_settings(model, "emmet")


def test_without_layers_a_block_a_quarter_up_is_edited(folder, tmp_path, capsys):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 22}))
    assert default_layer("gpt") == 5
    assert "[0]" in printed(capsys, "tiny", "edits.csv")
    (tmp_path / "layers.yaml").write_text("model: {layers: [1]}")
    assert "--model.layers" not in printed(capsys, "gpt", "edits.csv", "--config", "layers.yaml")
    assert "[5]" in printed(capsys, "gpt", "edits.csv", "--config", "quick.yaml")
    assert "[5]" in printed(capsys, "gpt", "edits.csv")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tiny"], "the following arguments are required: EDITS"),
        (["tiny", "none.csv"], "there is no file none.csv"),
        (["tiny", "edits.csv", "--preserve", "none.txt"], "there is no file none.txt"),
        (["tiny", "edits.csv", "--method", "FOO"], "there is no method FOO. There are: alphaedit, "),
        (["tiny", "edits.csv", "--layers", "last"], "numbers of blocks such as 5, 3-8"),
        (["tiny", "edits.csv", "--limit", "0"], "`--limit` must be a positive number, got 0"),
        (["tiny", "edits.csv", "--batch-size", "many"], "invalid int value: 'many'"),
        (["tiny", "edits.csv", "--device", "tpu"], "choose from"),
        (["tiny", "edits.csv", "--out", "."], "is not empty. Give a new"),
        (["tiny", "edits.csv", "--config", "none.yaml"], "there is no file none.yaml"),
        (["tiny", "edits.csv", "--layer", "3"], "unrecognized arguments: --layer"),
    ],
)
def test_a_mistake_is_answered_at_once(args, message, folder, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["edit", *args])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("model", ["./no-such-folder", "."])
def test_a_model_that_is_not_there_is_refused(model, folder, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["edit", model, "edits.csv"])
    assert left.value.code == 2
    assert "`model`: " in capsys.readouterr().err


def test_the_help_is_one_screen(folder):
    ended = subprocess.run(
        [sys.executable, "-m", "lightning_edit.cli", "edit", "--help"], capture_output=True, text=True, check=True
    )
    lines = ended.stdout.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
