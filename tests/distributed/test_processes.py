"""A run of several processes leaves what a run of one leaves: the same weights, figures and files, all once."""

import csv
import json

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DistributedSampler

from lightning_edit.datamodules import TinyWorld
from tests.downstream_reference import world_rows, write_rows, write_task
from tests.killing import TIMES, Command, outcome
from tests.watched_runs import write_text

pytestmark = pytest.mark.slow

EDITS = 7
# Neither 4 nor 3 divides 7, and neither 7 nor the parts of it divide into 2 or 3 equal shares.
SETTINGS = {
    "data.edits": EDITS,
    "data.batch_size": 4,
    "data.eval_batch_size": 5,
    "model.edits_per_update": 3,
    "model.layers": "[0,1]",
    "model.previous_keys": "true",
    "model.solver.ridge": 0.01,
    "model.values.steps": 3,
    "model.second_moment.tokens": 2000,
    "model.evaluation.generate": "true",
    "model.evaluation.max_length": 16,
    "model.evaluation.generated_match": "true",
    "retention.every_n_updates": 1,
}


def start(folder, name, processes, *args, **changes):
    places = {"trainer.logger.save_dir": folder / name, "model.second_moment.cache_dir": folder / f"{name} cache"}
    settings = SETTINGS | places | changes
    given = ["fit", *(f"--{name}={value}" for name, value in settings.items()), *args]
    given += ["--trainer.callbacks+=tests.process_callbacks.Weights", f"--trainer.callbacks.folder={folder / name}"]
    (folder / name).mkdir()
    return Command(given, folder / f"{name}.log", processes)


def tasks(folder):
    """One task of each kind: labels, endings and running text."""
    rows, answers = world_rows(8)
    write_rows(folder / "places.jsonl", rows)
    endings = [row | {"choices": list(answers), "label": list(answers).index(row["label"])} for row in rows]
    write_rows(folder / "ends.jsonl", endings)
    write_rows(folder / "reading.jsonl", [{"text": line} for line in write_text(folder).read_text().splitlines()])
    kinds = {"answers": None, "label": "label", "endings": "choices", "kind": "endings"}
    text = {"answers": None, "prompt": None, "label": None, "pool": None, "kind": "text", "text": "text", "window": 32}
    return ",".join(
        [
            write_task(folder, "places", answers=answers),
            write_task(folder, "ends", **kinds),
            write_task(folder, "reading", **text),
        ]
    )


class Runs(dict):
    """Runs of one, two or three processes in float64, each when it is asked for: its folder, and what it printed."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder
        self._changes = {
            "downstream.tasks": tasks(folder),
            "downstream.shots": 1,
            "downstream.tests": "5,4,2",
            "watch.perplexity_file": folder / "ordinary.txt",
            "watch.perplexity_windows": 3,
        }

    def __missing__(self, processes):
        command = start(self._folder, str(processes), processes, **self._changes, **{"model.dtype": "float64"})
        assert command.wait() == [0] * processes, command.output
        self[processes] = (self._folder / str(processes), command.output)
        return self[processes]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


def flat(value, path=""):
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {at: leaf for key, inner in items for at, leaf in flat(inner, f"{path}/{key}").items()}
    return {path: value}


def assert_same(found, expected, **tolerance):
    """Equal texts and counts, numbers within a tolerance."""
    found, expected = flat(found), flat(expected)
    numbers = {key for key, value in expected.items() if isinstance(value, float)}
    assert {k: v for k, v in found.items() if k not in numbers} == {
        k: v for k, v in expected.items() if k not in numbers
    }
    assert {k: found[k] for k in numbers} == pytest.approx({k: expected[k] for k in numbers}, nan_ok=True, **tolerance)


def scalars(run):
    """What TensorBoard draws, but for the passes of the value optimization: those of the first process's share."""
    return {tag: points for tag, points in outcome(run)["scalars"].items() if not tag.startswith("values/")}


def table(file):
    def plain(name, text):
        return text if name in ("update", "edits") or not text else float(text)

    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return [{k: plain(k, v) for k, v in row.items() if not any(time in k for time in TIMES)} for row in rows]


def weights(run):
    checkpoint = torch.load(run / "edited.ckpt", weights_only=True)
    return checkpoint["state_dict"]


several = pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])


@several
def test_weights_are_those_of_one_process(runs, processes):
    one, found = (weights(runs[n][0] / "version_0") for n in (1, processes))
    assert found.keys() == one.keys()
    for name in one:
        assert float((found[name] - one[name]).norm() / one[name].norm()) < 1e-10


@several
def test_every_process_has_the_same_weights_after_every_update(runs, processes):
    told = [
        [json.loads(line) for line in (runs[processes][0] / f"weights-{rank}.jsonl").read_text().splitlines()]
        for rank in range(processes)
    ]
    assert [line["edits"] for line in told[0]] == [3, 6, EDITS]
    assert all(other == told[0] for other in told[1:])


@several
def test_every_record_row_and_curve_is_there_once_with_the_same_figures(runs, processes):
    one, found = (outcome(runs[n][0] / "version_0") for n in (1, processes))
    for part in ("before", "after", "edits", "lines", "updates"):
        assert_same(found[part], one[part], rel=1e-9, abs=1e-9)
    assert one["edits"] == (EDITS, [])
    assert len(found["lines"]["records.jsonl"]) == 2 * EDITS
    assert found["after"]["efficacy_score_n"] == found["before"]["efficacy_score_n"] == EDITS


@several
def test_downstream_rows_are_measured_once_with_the_same_answers(runs, processes):
    one, found = (
        [json.loads(line) for line in (runs[n][0] / "version_0" / "downstream.jsonl").read_text().splitlines()]
        for n in (1, processes)
    )
    assert len(one) == (5 + 4) * 4  # before, and after each of three updates
    assert_same(found, one, rel=1e-9, abs=1e-9)
    names = set(json.loads((runs[processes][0] / "version_0" / "curves.jsonl").read_text().splitlines()[0])["figures"])
    assert {"downstream/places/generated_accuracy", "downstream/ends/likelihood_f1", "downstream/reading"} <= names


@several
def test_tables_and_loggers_get_each_figure_once(runs, processes):
    one, found = (runs[n][0] / "version_0" for n in (1, processes))
    # Both round: the table to six digits, TensorBoard to float32.
    assert_same(table(found / "updates.csv"), table(one / "updates.csv"), rel=1e-5, abs=1e-7)
    assert_same(scalars(found), scalars(one), rel=1e-5, abs=1e-7)


@several
def test_files_are_written_once(runs, processes):
    def files(run):
        return sorted(path.relative_to(run) for path in run.rglob("*") if "events" not in path.name)

    one, found = (runs[n][0] / "version_0" for n in (1, processes))
    assert files(found) == files(one)
    assert len(list(found.glob("events*"))) == len(list(one.glob("events*")))
    assert not (runs[processes][0] / "version_1").exists()


@several
def test_results_are_shown_once(runs, processes):
    shown = runs[processes][1]
    for once in (f"{EDITS} edits", "target", "downstream", "retained efficacy", "Results:", "Loading weights: 100%"):
        assert (once in shown) and shown.count(once) == runs[1][1].count(once), once
    assert "Traceback" not in shown


def test_values_found_in_float32_differ_by_rounding_alone(tmp_path):
    # Two processes that Lightning starts itself, and a logger that writes one file.
    csv_logger = {"trainer.logger": "CSVLogger", "trainer.logger.name": "", "data.edits": 5, "model.layers": "[0]"}
    changes = csv_logger | {"model.evaluation.max_length": 12}
    runs = {}
    for name, args in (("one", []), ("two", ["--trainer.devices=2", "--trainer.strategy=ddp"])):
        command = start(tmp_path, name, 1, *args, **changes)
        assert command.wait() == [0], command.output
        (runs[name],) = (tmp_path / name).glob("version_*")
    one, two = (weights(run) for run in runs.values())
    for name in one:
        assert float((two[name] - one[name]).norm() / one[name].norm()) < 1e-4
    logged = [(run / "metrics.csv").read_text().splitlines() for run in runs.values()]
    told = [[(row["step"], name) for row in csv.DictReader(lines) for name in row if row[name]] for lines in logged]
    first, second = ([entry for entry in all_ if not entry[1].startswith(("step", "values/"))] for all_ in told)
    assert sorted(first) == sorted(second)


def test_a_norm_anchor_is_measured_by_the_edits_of_all_processes(tmp_path):
    # The last update has one edit, so one process has nothing to search for.
    changes = {"model.values.norm_anchor": "auto", "model.dtype": "float64"}
    runs = []
    for name, args in (("one", []), ("two", ["--trainer.devices=2", "--trainer.strategy=ddp"])):
        command = start(tmp_path, name, 1, *args, **changes)
        assert command.wait() == [0], command.output
        runs += (tmp_path / name).glob("version_*")
    one, two = map(weights, runs)
    assert max(float((two[name] - one[name]).abs().max()) for name in one) < 1e-9


@pytest.mark.parametrize("kind", ["train", "test"])
def test_a_trainer_leaves_the_order_of_the_edits_alone(kind):
    loader = getattr(TinyWorld(edits=EDITS, batch_size=4), f"{kind}_dataloader")()
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    assert isinstance(loader.sampler, DistributedSampler)
    kept = trainer._data_connector._prepare_dataloader(loader, shuffle=False, mode=None)
    assert kept is loader
    assert [request for batch in kept for request in batch] == TinyWorld(edits=EDITS).requests
