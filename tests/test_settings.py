"""Every number of every setting has a range on its field or argument, and one check refuses what is outside of it."""

import copy
import inspect
import math
import pickle
from dataclasses import is_dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

import lightning_edit
from lightning_edit import callbacks, datamodules
from lightning_edit.cli import main as cli
from lightning_edit.cli.default_config import explanations
from lightning_edit.datamodules import OwnEdits, TinyWorld
from lightning_edit.errors import EditError
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.run.methods.fine_tuning import FineTuning
from lightning_edit.run.module import EditingModule
from lightning_edit.settings import Checked, Range, Settings, accepted, not_compared
from lightning_edit.solvers import EMMET, MEMIT, RECT
from lightning_edit.values.settings import ValueSettings

NEEDED = {"model": "tiny", "layers": [0], "path": "edits.json", "name": "wikitext"}
# Ids of records are whatever the data set says.
FREE = {"case_ids"}


def owners():
    """All classes of the package that a user can give settings to."""
    waiting, found = [Checked, Settings], []
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("lightning_edit") and not inspect.isabstract(kind):
                found.append(kind)
    return sorted(set(found), key=lambda kind: kind.__name__)


def numbers(annotation, ranges=()):
    """The types of numbers that an annotation accepts, each with its ranges."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from numbers(inner, [*ranges, *(entry for entry in metadata if isinstance(entry, Range))])
    elif annotation in (int, float):
        yield annotation, ranges
    elif get_origin(annotation) in (Union, type(int | str)):
        for part in get_args(annotation):
            yield from numbers(part, ranges)
    elif get_origin(annotation) is list:
        yield from numbers(get_args(annotation)[0], ranges)


NUMBERS = [
    pytest.param(owner, name, kind, ranges, id=f"{owner.__name__}.{name}")
    for owner in owners()
    for name, annotation in accepted(owner).items()
    for kind, ranges in numbers(annotation)
    if name not in FREE and annotation is not Any and name != "device_map"
]


def make(owner, **settings):
    needed = {name: value for name, value in NEEDED.items() if name in accepted(owner)}
    return owner(**{**needed, **settings})


def test_all_kinds_of_settings_are_looked_at():
    kinds = {EditingModule, FineTuning, OwnEdits, TinyWorld, EMMET, MEMIT, RECT, ValueSettings, SecondMomentSettings}
    assert kinds | {callbacks.Watch, callbacks.Harness, callbacks.ShowExamples, EvaluationSettings} <= set(owners())
    assert len(NUMBERS) > 80


@pytest.mark.parametrize(("owner", "name", "kind", "ranges"), NUMBERS)
def test_a_number_out_of_its_range_is_refused_by_name(owner, name, kind, ranges):
    assert ranges, "the range stands on the field or argument"
    wrong = [math.nan, math.inf, -math.inf, True]
    for limits in ranges:
        wrong += [limits.at_least - 1] if limits.at_least is not None else [limits.above, limits.above - 1]
        wrong += [2 * limits.at_most + 1] if limits.at_most is not None else []
    for value in [*wrong, *([0.5] if kind is int else [])]:
        with pytest.raises(EditError, match=rf"`([a-z_]+\.)*{name}` must be .*, got "):
            make(owner, **{name: value})


@pytest.mark.parametrize("owner", owners(), ids=lambda owner: owner.__name__)
def test_defaults_are_in_their_range_and_objects_can_be_copied(owner):
    if owner not in (OwnEdits, datamodules.TextFile):
        made = make(owner)
        assert type(copy.copy(made)) is owner
    assert explanations(owner).keys() >= accepted(owner).keys()


def test_solvers_are_pickled_and_replaced_like_any_dataclass():
    assert pickle.loads(pickle.dumps(EMMET(ridge=2.0))) == EMMET(ridge=2.0)  # noqa: S301
    assert replace(EMMET(), ridge=2.0) == EMMET(ridge=2.0)
    with pytest.raises(EditError, match="EMMET: `ridge` must be a number of 0 or more, got -1"):
        replace(EMMET(), ridge=-1)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: ValueSettings(site="norm"), "`values.site` must be block or mlp, got 'norm'"),
        (lambda: EditingModule("tiny", [0], solver=EMMET), "`model.solver` must be a Solver or null, got <class"),
        (lambda: OwnEdits("x", conflicts="last"), "`data.conflicts` must be one of refuse, keep_first or replace"),
        (lambda: OwnEdits("x", limit=10**20), "`data.limit` is too large a number, got 1000000000000000000"),
        (lambda: ValueSettings(steps=10**20), "`values.steps` is too large a number"),
        (lambda: OwnEdits("x", limit="3"), "`data.limit` must be a whole number of 1 or more or null, got '3'"),
        (lambda: lightning_edit.edit(None, None, [], micro_batch=0), "edit: `micro_batch` must be a whole number"),
    ],
)
def test_texts_and_classes_are_checked_too(make_it, message):
    with pytest.raises(EditError, match=message):
        make_it()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.values.kl_factor", "-1"),
        ("model.values.weight_decay", "-1"),
        ("model.values.clamp_norm_factor", ".nan"),
        ("model.values.early_stop_loss", ".nan"),
        ("model.values.lr", ".inf"),
        ("model.solver.emmet_lambda", "-1"),
        ("watch.max_growth", ".nan"),
        ("data.seed", "-1"),
    ],
)
def test_the_command_line_refuses_them_before_anything_is_loaded(setting, value, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        "lightning_edit.run.measured_module.load_editable", lambda *_: pytest.fail("a model was loaded")
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", f"--{setting}={value}", f"--trainer.logger.save_dir={tmp_path}"])
    shown = capfd.readouterr().err
    assert left.value.code == 2
    assert f"{setting.rpartition('.')[2]}` must be" in shown
    assert not list(tmp_path.iterdir())


def test_what_tells_runs_apart_is_declared_on_the_setting():
    kept = {"values.cache_dir", "second_moment.cache_dir", "evaluation", "device_map", "offload_folder", "memory"}
    assert not_compared(EditingModule, "methods") == not_compared(EditingModule, "resuming") == kept
    assert not_compared(OwnEdits, "resuming") == {"eval_batch_size", "path", "preservation", "separator"}
    assert not_compared(OwnEdits, "methods") == {"eval_batch_size", "limit"}
    assert not_compared(TinyWorld, "methods") == {"eval_batch_size", "edits"}


@pytest.mark.parametrize("owner", (EditingModule, FineTuning))
def test_what_evaluation_measures_is_compared_nowhere(owner):
    for where in ("resuming", "methods"):
        assert "evaluation" in not_compared(owner, where)
        assert "layers" not in not_compared(owner, where)


@pytest.mark.parametrize("owner", owners())
def test_no_settings_class_stands_inside_of_annotated(owner):
    # From Python 3.12 on jsonargparse refuses its values.
    annotated = [kind for kind in accepted(owner).values() if get_origin(kind) is Annotated]
    assert not [kind for kind in annotated if is_dataclass(get_args(kind)[0])]
