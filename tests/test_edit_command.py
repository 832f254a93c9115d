"""``lightning-edit edit``: the fit that it is, what it makes of what people write, and what it refuses."""

import csv
import itertools
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_edit.cli import fit
from lightning_edit.cli import main as cli
from lightning_edit.cli.edit import METHODS, method_named, module_of
from lightning_edit.commands.layer_words import layer_list
from lightning_edit.configs import shipped
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


class Unrun(fit.EditCLI):
    """The command line up to where the trainer begins."""

    def _run_subcommand(self, subcommand):
        pass


def printed(capsys, *args):
    cli.main(["edit", *map(str, args), "--dry-run"])
    return shlex.split(capsys.readouterr().out)


@pytest.mark.slow
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
        *("lightning-edit", "fit", "--config", "configs/models/tiny.yaml"),
        *("--model.model", "tiny", "--model.layers", "[0, 1]"),
        *("--data", "OwnEdits", "--data.path", "edits.csv", "--data.limit", "1"),
        *("--data.preservation", "TextFile", "--data.preservation.path", "text.txt"),
    ]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_every_method_makes_settings_that_the_fit_takes(method, folder, capsys):
    kind, options = module_of(method), ["--batch-size=2", "--device=cpu"]
    options += ["--edits-per-update=1"] if kind in ("EditingModule", "CrispEdit", "MemoryEditing") else []
    # A replay gives every layer a target of its own.
    layers = [0, 1] if method == "memit_fe" else [1]
    options += [] if kind == "InContext" else [f"--layers={layers}"]
    words = printed(capsys, "tiny", "edits.csv", "--method", method, "--out=7", *options)
    with pytest.raises(SystemExit) as left:
        cli.main([*words[1:], "--print_config"])
    shown = capsys.readouterr()
    assert not left.value.code, shown.err
    settings = yaml.safe_load(shown.out)
    assert settings["model"]["init_args"].get("layers") == (None if kind == "InContext" else layers)
    assert settings["data"]["init_args"]["path"] == "edits.csv"
    assert settings["trainer"]["logger"]["init_args"]["name"] == "7"
    # What the preset of the model brings must not be refused.
    made = fit.run(["fit", *map(shipped, words[2:])], Unrun)
    assert type(made.model).__name__ == kind


ODD_NAMES = ["#c", "&x", "*x", "'", "7", "[a]", "a: b", "null", "x #y", "{a}", "a: &b", "a:"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_yaml_of_something_else_stays_what_it_is(name, folder, capsys):
    # What has no suffix is read as JSON.
    (folder / name).write_text('[{"subject": "Ann", "prompt": "{} lives in", "target_new": "Rome"}]')
    words = printed(capsys, "tiny", name, "--preserve", name, f"--out=runs {name}/{name}", "--method=memit")
    made = fit.run(["fit", *map(shipped, words[2:])], Unrun)
    settings = made.config["fit"]
    assert Path(settings.data.init_args.path) == Path(name)
    assert Path(settings.data.init_args.preservation.init_args.path) == Path(name)
    assert Path(made.trainer.logger.log_dir) == Path(f"runs {name}", name)


def test_a_models_folder_may_have_such_a_name(folder, capsys):
    model = of_shape(folder, "#m: 1")
    words = printed(capsys, model, "edits.csv")
    assert words[words.index("--model.init_args") + 1] == '{"model": "#m: 1"}'


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


def of_shape(folder, name, **shape):
    """A folder with the configuration of a model, as far as presets look at it."""
    (folder / name).mkdir()
    config = {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336, **shape}
    (folder / name / "config.json").write_text(json.dumps(config))
    return name


def settings_said(capsys, *args):
    """The files of settings of the equal command, its layers, and what is said of the settings."""
    cli.main(["edit", *args, "--dry-run"])
    shown = capsys.readouterr()
    words = shlex.split(shown.out)
    files = [word.removeprefix("configs/") for name, word in itertools.pairwise(words) if name == "--config"]
    return files, words[words.index("--model.layers") + 1] if "--model.layers" in words else None, shown.err.strip()


def test_a_preset_is_chosen_by_the_shape_of_the_model_and_the_method(folder, capsys):
    model = of_shape(folder, "my-chat-model")
    said = "settings: configs/models/llama_3_8b_memit.yaml (published)"
    assert settings_said(capsys, model, "edits.csv", "--method=memit") == (["models/llama_3_8b_memit.yaml"], None, said)
    files = ["models/llama_3_8b_memit.yaml", "solvers/alphaedit.yaml"]
    found = settings_said(capsys, model, "edits.csv", "--method=alphaedit")
    assert found == (files, None, f"{said}, with alphaedit in place of MEMIT")
    assert settings_said(capsys, model, "edits.csv")[0] == ["models/llama_3_8b.yaml", "solvers/emmet.yaml"]
    assert settings_said(capsys, model, "edits.csv", "--method=ft") == (["solvers/ft.yaml"], None, "")
    model = of_shape(folder, "qwen", model_type="qwen3", num_hidden_layers=36, intermediate_size=12288)
    said = settings_said(capsys, model, "edits.csv", "--method=memit")[2]
    assert said == "settings: configs/models/qwen3_8b.yaml (by analogy, untested)"


def test_a_method_of_one_layer_gets_one_of_a_preset_of_several(folder, capsys):
    model = of_shape(folder, "mistral", model_type="mistral")
    files = ["models/mistral_7b.yaml", "solvers/rome.yaml"]
    assert settings_said(capsys, model, "edits.csv", "--method=rome")[:2] == (files, "[5]")
    assert settings_said(capsys, model, "edits.csv", "--method=rome", "--layers=6")[1] == "[6]"
    (folder / "own.yaml").write_text("model: {layers: [7]}")
    assert settings_said(capsys, model, "edits.csv", "--method=rome", "--config=own.yaml")[1] is None
    assert settings_said(capsys, model, "edits.csv", "--method=memit")[1] is None


def test_without_a_preset_the_layers_are_left_to_the_fit(folder, capsys):
    model = of_shape(folder, "other", num_hidden_layers=31)
    assert settings_said(capsys, model, "edits.csv") == (["solvers/emmet.yaml"], None, "")
    assert settings_said(capsys, "tiny", "edits.csv", "--layers=1")[1] == "[1]"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tiny"], "the following arguments are required: EDITS"),
        (["tiny", "none.csv"], "there is no file none.csv"),
        (["tiny", "edits.csv", "--preserve", "."], "`--preserve`: . is a folder; a file is needed."),
        (["tiny", "edits.csv", "--preserve", "none.txt"], "there is no file none.txt"),
        (
            ["tiny", "edits.csv", "--method=lora", "--edits-per-update=2"],
            "lora writes no updates one after the other",
        ),
        (["tiny", "edits.csv", "--method=retrieval", "--layers=1"], "retrieval changes no layer"),
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


@pytest.mark.parametrize("model", ["./no-such-folder", ".", "nope.gguf", "models/nope.Q8_0.GGUF"])
def test_a_model_that_is_not_there_is_refused(model, folder, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["edit", model, "edits.csv"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "`model`: " in said
    assert "huggingface" not in said


def test_the_help_is_one_screen(folder):
    ended = subprocess.run(
        [sys.executable, "-m", "lightning_edit.cli", "edit", "--help"], capture_output=True, text=True, check=True
    )
    lines = ended.stdout.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
