"""Settings under the names that they had before: on the command line, in files, in checkpoints and in Python."""

import contextlib
import io
import warnings

import pytest
import yaml

import lightning_edit
from lightning_edit.cli import main as cli
from lightning_edit.commands.argument_words import in_order, under_current_names
from lightning_edit.commands.comparison.settings import flat_settings
from lightning_edit.errors import EditError
from lightning_edit.old_names import current
from lightning_edit.run.module import EditingModule

OLD = {"separate_updates": True, "layer_distribution": "ends", "layers": [0]}
NEW = {"independent_updates": True, "layer_distribution": "first_last", "layers": [0]}


def parsed(*words, section="model"):
    """What the command line makes of the settings of a section."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        cli.main(["fit", *words, "--print_config"])
    return yaml.safe_load(shown.getvalue())[section]


def test_nested_settings_get_their_current_names_with_a_warning():
    with pytest.warns(FutureWarning) as told:
        assert current({"model": {"init_args": OLD}, "kept": [1]}) == {"model": {"init_args": NEW}, "kept": [1]}
    texts = [str(warning.message) for warning in told]
    assert "`separate_updates` has been renamed to `independent_updates`" in texts[0]
    assert "`layer_distribution: ends` has been renamed to `first_last`" in texts[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert current(NEW) == NEW
        assert current(OLD, warn=False) == NEW


def test_words_of_a_command_line_get_their_current_names():
    words = ["fit", "--model.separate_updates", "true", "--model.layer_distribution=highest", "--x", "ends"]
    with pytest.warns(FutureWarning):
        found = under_current_names(words)
    assert found == ["fit", "--model.independent_updates", "true", "--model.layer_distribution=last", "--x", "ends"]


def test_python_takes_old_names():
    with pytest.warns(FutureWarning):
        module = EditingModule("tiny", layers=[0, 1], separate_updates=True, layer_distribution="ends")
    assert module.loop.independent
    assert module.distribution == "first_last"
    assert module.hparams.independent_updates
    with pytest.warns(FutureWarning), pytest.raises(EditError, match="micro_batch"):
        lightning_edit.edit(None, None, [], distribution="highest", micro_batch=0)


@pytest.mark.filterwarnings("ignore:.*is called")
@pytest.mark.slow
def test_files_and_flags_with_old_names_are_parsed(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": OLD}}))
    layers = ("--model.layers", "[0]")
    expected = parsed("--model.independent_updates", "true", "--model.layer_distribution", "first_last", *layers)
    assert parsed("--config", str(file)) == expected
    assert parsed("--model.separate_updates", "true", "--model.layer_distribution", "ends", *layers) == expected
    assert expected["init_args"]["layer_distribution"] == "first_last"


def test_runs_under_old_and_new_names_are_the_same_method():
    assert flat_settings({"model": OLD, "data": {}}) == flat_settings({"model": NEW, "data": {}})


@pytest.mark.parametrize(
    ("words", "ordered"),
    [
        ("fit --model.a 1 --config b.yaml --config=c.yaml", "fit --config b.yaml --config=c.yaml --model.a 1"),
        ("fit --data.path x --data.limit 2 --data OwnEdits", "fit --data OwnEdits --data.path x --data.limit 2"),
        ("fit --data A --data.x 1 --data B --data.y 2", "fit --data A --data.x 1 --data B --data.y 2"),
        (
            "fit --a.callbacks+=A --a.callbacks.x 1 --a.callbacks+=B",
            "fit --a.callbacks+=A --a.callbacks.x 1 --a.callbacks+=B",
        ),
        ("fit --x -1 -c y.yaml --help", "fit -c y.yaml --x -1 --help"),
        ("compare runs --metric S", "compare runs --metric S"),
    ],
)
def test_files_come_before_flags_and_classes_before_their_settings(words, ordered):
    assert in_order(words.split()) == ordered.split()
    assert in_order(ordered.split()) == ordered.split()


def test_a_flag_wins_over_a_file_wherever_it_stands(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"edits_per_update": 16}}}))
    for words in (
        ["--config", str(file), "--model.edits_per_update", "10"],
        ["--model.edits_per_update=10", f"--config={file}"],
    ):
        assert parsed(*words)["init_args"]["edits_per_update"] == 10


def test_a_setting_may_stand_before_its_class(tmp_path):
    found = parsed("--data.path", "edits.csv", "--data", "OwnEdits", section="data")
    assert found["class_path"].endswith("OwnEdits")
    assert found["init_args"]["path"] == "edits.csv"


def test_the_case_of_a_class_does_not_matter_and_one_layer_needs_no_list(tmp_path):
    file = tmp_path / "solver.yaml"
    file.write_text(yaml.safe_dump({"model": {"init_args": {"solver": {"class_path": "memit"}}}}))
    for words in (["--model.solver", "Memit"], ["--config", str(file)]):
        found = parsed(*words, "--model.solver.ridge", "2", "--model.model", "memit", "--model.layers", "1")[
            "init_args"
        ]
        assert found["solver"]["class_path"].endswith("MEMIT")
        assert found["solver"]["init_args"]["ridge"] == 2
        assert found["model"] == "memit"
        assert found["layers"] in (1, [1])
    assert EditingModule("tiny", 1).hparams.layers in (1, [1])


def test_names_of_classes_are_made_exact_wherever_a_class_is_meant():
    words = ["--data", "ownedits", "--model.solver=memit", "--model.post_processing+", "rect", "--model.model", "memit"]
    exact = ["--data", "OwnEdits", "--model.solver=MEMIT", "--model.post_processing+", "RECT", "--model.model", "memit"]
    assert under_current_names(["fit", *words]) == ["fit", *exact]
