"""A class that is named in place of another one begins with its own defaults, and keeps what was given for it."""

import jsonargparse
import pytest
import yaml
from jsonargparse import _typehints

from lightning_edit import EMMET, MEMIT, RECT, SPHERE, AlphaEdit, OutputMEMIT
from lightning_edit.cli import main as cli
from lightning_edit.cli.default_config import defaults
from lightning_edit.commands.other_class import begun_anew
from lightning_edit.solvers import Solver


@pytest.fixture
def settings(capsys, tmp_path):
    """A function from what is typed, files of settings of the model among it, to the settings of a fit."""

    def parsed(*words, section="model"):
        typed = []
        for number, word in enumerate(words):
            if isinstance(word, dict):
                file = tmp_path / f"{number}.yaml"
                file.write_text(yaml.safe_dump({"model": {"class_path": "EditingModule", "init_args": word}}))
                typed += ["--config", str(file)]
            else:
                typed.append(word)
        with pytest.raises(SystemExit) as left:
            cli.main(["fit", *typed, "--print_config"])
        shown = capsys.readouterr()
        assert not left.value.code, shown.err
        return yaml.safe_load(shown.out)[section]["init_args"]

    return parsed


def spec(name, **given):
    return {"class_path": name, **({"init_args": given} if given else {})}


MINE = {"solver": spec("MEMIT", second_moment_weight=7.0)}


@pytest.mark.parametrize(
    ("words", "kind", "given"),
    [
        (["--model.solver", "MEMIT"], MEMIT, {}),
        (["--model.solver", "OutputMEMIT"], OutputMEMIT, {}),
        (["--model.solver=AlphaEdit"], AlphaEdit, {}),
        (["--model.solver", "AlphaEdit", "--model.solver", "MEMIT"], MEMIT, {}),
        (["--model.solver.ridge", "3", "--model.solver", "AlphaEdit"], AlphaEdit, {"ridge": 3.0}),
        (["--model.solver", "AlphaEdit", "--model.solver.ridge", "3"], AlphaEdit, {"ridge": 3.0}),
        (["--config", "configs/solvers/memit.yaml", "--model.solver", "EMMET"], EMMET, {}),
        (["--model.solver", "EMMET", "--config", "configs/solvers/memit.yaml"], EMMET, {}),
        ([MINE, {"solver": spec("EMMET")}], EMMET, {}),
        ([MINE, {"solver": "EMMET"}], EMMET, {}),
        ([MINE, {"solver": spec("AlphaEdit", threshold=0.5)}], AlphaEdit, {"threshold": 0.5}),
        # A later word for the same class, or for one of its settings, leaves the others as they are.
        ([MINE], MEMIT, {"second_moment_weight": 7.0}),
        ([MINE, "--model.solver", "MEMIT"], MEMIT, {"second_moment_weight": 7.0}),
        ([MINE, "--model.solver", "lightning_edit.solvers.memit.MEMIT"], MEMIT, {"second_moment_weight": 7.0}),
        ([MINE, "--model.solver.ridge", "3"], MEMIT, {"second_moment_weight": 7.0, "ridge": 3.0}),
        ([MINE, {"solver": {"init_args": {"ridge": 3.0}}}], MEMIT, {"second_moment_weight": 7.0, "ridge": 3.0}),
        ([MINE, {"solver": spec("MEMIT", ridge=3.0)}], MEMIT, {"second_moment_weight": 7.0, "ridge": 3.0}),
        (["--model.solver.emmet_lambda", "0.5"], EMMET, {"emmet_lambda": 0.5}),
    ],
)
def test_a_solver_has_its_own_defaults_and_what_was_given_for_it(words, kind, given, settings):
    found = settings(*words)["solver"]
    assert found["class_path"] == f"lightning_edit.{kind.__name__}"
    assert found["init_args"] == {**defaults(kind), **given}


def test_the_same_holds_for_what_follows_an_update(settings):
    first = {"post_processing": [spec("PRUNE", alpha=3.0)]}
    found = settings(first, "--model.post_processing", "SPHERE")["post_processing"]
    assert found["init_args"] == defaults(SPHERE)
    (found,) = settings(first, {"post_processing": [spec("SPHERE")]})["post_processing"]
    assert found["init_args"] == defaults(SPHERE)
    (found,) = settings(first, {"post_processing": [spec("PRUNE")]})["post_processing"]
    assert found["init_args"]["alpha"] == 3.0
    assert settings(first, "--model.post_processing", "RECT")["post_processing"]["init_args"] == defaults(RECT)


def test_a_text_does_not_take_the_file_of_another_one(settings, tmp_path):
    words = ["--data.preservation=TextFile", "--data.preservation.field=body", "--data.preservation.path=a.txt"]
    assert settings(*words, section="data")["preservation"]["init_args"] == {"path": "a.txt", "field": "body"}
    words += ["--data.preservation", "TinyWorldText"]
    assert "path" not in settings(*words, section="data")["preservation"].get("init_args", {})


def test_a_module_keeps_what_it_shares_with_another_one(settings):
    found = settings("--config", "configs/models/gpt2.yaml", "--model", "FineTuning")
    assert found["model"] == "openai-community/gpt2"


def test_other_parsers_are_left_as_they_are():
    before = _typehints.discard_init_args_on_class_path_change
    with pytest.raises(KeyError), begun_anew(Solver):
        raise KeyError
    assert _typehints.discard_init_args_on_class_path_change is before
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--solver", type=Solver)
    words = ["--solver=lightning_edit.EMMET", "--solver.ridge=3", "--solver=lightning_edit.MEMIT"]
    assert parser.parse_args(words).solver.init_args.ridge == 3
    with begun_anew(Solver):
        assert parser.parse_args(words).solver.init_args.ridge == 0
