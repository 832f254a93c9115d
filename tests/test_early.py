"""Settings that are refused before anything is imported for them, and those that are not; the help of a fit."""

import sys

import pytest
from jsonargparse import ArgumentParser

import lightning_edit
from lightning_edit import callbacks, datamodules, solvers
from lightning_edit.cli import main as cli
from lightning_edit.cli.startup.early import KINDS, SECTIONS, check
from lightning_edit.cli.startup.fit_help import help_text, settings
from lightning_edit.cli.startup.signatures import Module, kinds_of
from lightning_edit.errors import EditError
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.values.settings import ValueSettings

CLASSES = [
    *(lightning_edit.EditingModule, lightning_edit.FineTuning, lightning_edit.MemoryEditing),
    *(datamodules.TinyWorld, datamodules.OwnEdits, datamodules.CounterFact, datamodules.ZsRE),
    *(callbacks.Downstream, callbacks.Harness, callbacks.Retention, callbacks.Watch, callbacks.EditCheckpoint),
    *(ValueSettings, SecondMomentSettings, EvaluationSettings),
    *(solvers.EMMET, solvers.MEMIT, solvers.RROME, solvers.AlphaEdit),
]


@pytest.mark.parametrize("owner", CLASSES, ids=lambda owner: owner.__name__)
def test_the_source_tells_what_the_parser_accepts(owner):
    parser = ArgumentParser(exit_on_error=False)
    accepted = parser.add_class_arguments(owner, "x")
    source = Module(owner.__module__).find(owner.__name__)
    assert source is not None
    assert {f"x.{name}" for name in source.arguments()} == set(accepted)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_the_settings_is_found(section):
    module, name = SECTIONS[section]
    assert Module(module).find(name) is not None


def test_kinds_are_the_classes_that_can_be_made():
    found = [{kind.node.name for kind in kinds_of(Module(module).find(name))} for module, name in KINDS.values()]
    assert found[0] >= {"EditingModule", "FineTuning"}
    sources = Module("lightning_edit.gradients.source").find("Source")
    # In rooms of their own.
    assert {kind.node.name for kind in kinds_of(sources)} == {"Gradient", "Windows"}
    assert found[1] == {
        *(
            "AKEW",
            "CounterFact",
            "EasyEditCounterFact",
            "EditEverything",
            "FEVER",
            "HalluEditBench",
            "KnowEdit",
            "MQuAKE",
        ),
        *("OwnEdits", "QAEdit", "RippleEdits", "TinyWorld", "UltraEditBench", "UnKE", "WikiBigEdit", "ZsRE"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.layer 3", "There is no setting --model.layer. Did you mean layers?"),
        ("--model.init_args.values.rate=1", "Accepted by ValueSettings: lr, steps"),
        ("--model FineTuning --model.solver EMMET", "Accepted by FineTuning: "),
        ("--data ownedits --data.pth x", "Did you mean path?"),
        ("--wach.sample 3", "There is no setting --wach.sample. Did you mean watch?"),
        ("--watch.sample few", "`watch.sample` must be a number or null, got few"),
        ("--model.layers all", "`model.layers` must be auto or a list of whole numbers such as [5], got all"),
        ("--model.solver NOPE", "Known classes: AlphaEdit, EMMET, MEMIT, OutputMEMIT, ROME, RROME"),
        ("--config none.yaml", "there is no file none.yaml"),
    ],
)
def test_what_is_surely_wrong_is_refused(words, message):
    with pytest.raises(EditError) as raised:
        check(words.split())
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        "--model.layers auto --model.values.lr 1e-1 --model.values.mpes null --model.seed 1 --trainer.anything 3",
        "--model my.own.Module --model.own 3 --data some.Module --data.nothing 1",
        "--ckpt_path last --model.nokey 1",
        "--model.source windows --model.source.window 5",
        "--model.solver my.Solver --model.solver.own 3 --model.solver.ridge=.5",
        "--model.post_processing+ RECT --data.preservation TextFile --data.preservation.path a.txt",
        "--watch.perplexity_file 7 --downstream.tests [1,2] --harness.limit=null",
        "--data.case_ids [a,b] --data OwnEdits --data.limit 3",
        "--print_config --model.help FineTuning",
    ],
)
def test_all_else_is_left_to_the_parser(words):
    check(words.split())


def test_what_a_user_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "named.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    check(["--model", "named.Module", "--model.solver", "named.Solver", "--data.preservation=named.Text"])
    assert "named" not in sys.modules


def test_the_help_has_the_common_settings_first_and_the_trainer_last():
    shown = help_text("fit")
    places = [shown.index(f"\n{name}") for name in ("model:", "data:", "downstream:", "watch:", "trainer:")]
    assert places == sorted(places)
    assert max(map(len, shown.splitlines())) <= 80
    assert all(what for name, value, what in settings() if name.startswith("model.values.") and value is not None)


def test_the_full_help_has_the_trainer_last(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", "--help_all"])
    assert not left.value.code
    shown = capsys.readouterr().out.partition("\noptions:")[2]
    assert shown.index("--model.help") < shown.index("--ckpt_path CKPT") < shown.index("--trainer.max_epochs MAX")
