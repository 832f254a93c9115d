"""Hostile files for every reader: each ends in a result or in one message, and soon, never in another error."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_edit.callbacks.log_files import OPENED, noted_events
from lightning_edit.callbacks.measuring.degradation import WatchedText
from lightning_edit.callbacks.measuring.downstream import TASKS
from lightning_edit.callbacks.records import _before
from lightning_edit.callbacks.updates_csv import UpdatesCSV
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.sweep import Sweep
from lightning_edit.datamodules import CounterFact, EasyEditCounterFact, OwnEdits, TextFile, ZsRE
from lightning_edit.datamodules.records import read_list
from lightning_edit.downstream import load_task
from lightning_edit.downstream.rows import read_jsonl
from lightning_edit.errors import EditError
from lightning_edit.messages import LONGEST
from lightning_edit.storage.run_files import CHECKPOINTS
from lightning_edit.updates.base_model import settings_of
from lightning_edit.updates.history import REMOVED, History
from tests.storage.test_user_files import bomb

# Of each reader; `make test-all` tries more.
CASES = int(os.environ.get("HOSTILE_CASES", 10))
SLOWEST = 10

HOSTILE = [
    b"",
    b" \n\r\n",
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000,
    b"- " * 50_000,
    b"9" * 5000,
    b'[{"subject": "A\\ud800B"}]',
    b"\xff\xfe[\x00]\x00",
    b"\xef\xbb\xbf[]",
    b"PK\x03\x04",
    b"\x00" * 100,
    b'"' + b"x" * 1_000_000,
    b",".join(b"c%d" % i for i in range(20_000)) + b"\n1,2\n",
    bomb(9).encode(),
    b"a: &a [*a]",
    b"a: &a {<<: *a}",
    b"a: !!python/object/apply:os.getcwd []",
    b"a: !!timestamp x\nb: !!binary x",
]

NAMES = [
    *(
        "subject",
        "prompt",
        "target_new",
        "target_true",
        "case_id",
        "paraphrase_prompts",
        "locality",
        "generation_prompts",
    ),
    *("requested_rewrite", "src", "answers", "alt", "rephrase", "loc", "loc_ans", "str", "text", "samples", "name"),
    *("ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth", "relation_id", "target_id"),
    *("vary", "fixed", "metric", "kind", "data", "file", "dataset", "label", "pool", "endings", "separator", "window"),
    *(
        "before",
        "after",
        "edits",
        "seconds",
        "config",
        "model",
        "init_args",
        "class_path",
        "solver",
        "layers",
        "figures",
    ),
    *("left_out", "edits_per_update", "removed", "S", "efficacy_score"),
]
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["Anna", "{} plays the", "Anna plays the", "{}{}", "[/b]", "\x1b[31m", "<|im_start|>|a", '["', "[[", "text"]
    ),
    st.sampled_from(["labels", "endings", "text", "{text}", "{", "EMMET", "lightning_edit.EMMET", "9" * 5000]),
)
NUMBERS = st.one_of(st.integers(), st.sampled_from([10**400, -1, 0, 1]), st.floats())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | TEXTS, inner, max_size=6),
    max_leaves=12,
)


def near(**fields):
    """Records that are almost right: each field as it should be, or not there, or anything."""
    kept = {name: st.just(value) | st.just(value) | st.just(...) | VALUES for name, value in fields.items()}
    records = st.fixed_dictionaries(kept).map(lambda found: {n: v for n, v in found.items() if v is not ...})
    return st.lists(st.just(fields) | records | VALUES, min_size=1, max_size=3)


EDIT = {"subject": "Anna", "prompt": "{} plays the", "target_new": "violin", "paraphrase_prompts": ["Anna likes the"]}
REWRITE = {"prompt": "{} plays", "subject": "Anna", "target_new": {"str": "a"}, "target_true": {"str": "b"}}
SCORES = {"S": 0.5, "efficacy_score": 1.0}
RUN = {"before": SCORES, "after": SCORES, "edits": 2, "seconds": {"values": 1.0}, "config": {"model": {}, "data": {}}}
TASK = {"prompt": "{text}", "label": "label", "answers": {"0": "No", "1": "Yes"}, "data": {"file": "a.jsonl"}}


def edits(kind):
    return lambda path: kind(str(path)).setup("fit")


def texts(path):
    source = TextFile(str(path))
    source.check()
    assert all(isinstance(text, str) for text in source.texts())


def run(name):
    def read(path):
        folder = path.parent / "run"
        folder.mkdir(exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(RUN), encoding="utf-8")
        (folder / name).write_bytes(path.read_bytes())
        try:
            read_runs([folder])
        finally:
            (folder / name).unlink()

    return read


def removed(path):
    path.rename(path.parent / REMOVED)
    History(path.parent).removed()


def table(path):
    UpdatesCSV(path, write=True).begin(["update", "a"], 1)


def opened(path):
    folder = path.parent / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    path.rename(folder / OPENED)
    noted_events(path.parent)


def config(path):
    path.rename(path.parent / "config.yaml")
    settings_of(path.parent)


READERS = {
    "own.json": (edits(OwnEdits), near(**EDIT, locality=[["a", "b"]])),
    "own.jsonl": (edits(OwnEdits), near(**EDIT, case_id=1)),
    "own.csv": (edits(OwnEdits), near(**EDIT, target_true="b")),
    "counterfact.json": (edits(CounterFact), near(requested_rewrite=REWRITE, paraphrase_prompts=["a"], case_id=1)),
    "snippets.json": (
        lambda path: CounterFact(str(path), snippets=str(path)).setup("fit"),
        near(relation_id="P1", target_id="Q1", samples=[{"name": "a", "text": "b"}]),
    ),
    "zsre.json": (edits(ZsRE), near(subject="Anna", src="Anna plays?", answers=["a"], alt="b", loc="x", loc_ans="y")),
    "easyedit.json": (
        edits(EasyEditCounterFact),
        near(
            **EDIT | {"prompt": "Anna is"}, ground_truth=["a"], locality={"x": [{"prompt": "a", "ground_truth": "b"}]}
        ),
    ),
    "ids.json": (lambda path: read_list(str(path), "data.case_ids"), VALUES),
    "ids.txt": (lambda path: read_list(str(path), "data.case_ids"), VALUES),
    "text.jsonl": (texts, near(text="a")),
    "text.txt": (texts, VALUES),
    "rows.jsonl": (read_jsonl, near(text="a", label=0)),
    "watched.txt": (lambda path: WatchedText(str(path), 1)._table(), VALUES),
    "sweep.yaml": (lambda path: Sweep.load(str(path)), near(vary={"a": [1]}, fixed={}, metric="S").map(lambda x: x[0])),
    "task.yaml": (lambda path: load_task(str(path), TASKS), near(**TASK, kind="labels").map(lambda found: found[0])),
    "config.yaml": (config, near(model={"init_args": {"model": "tiny"}}).map(lambda found: found[0])),
    "metrics.json": (run("metrics.json"), near(**RUN).map(lambda found: found[0])),
    "curves.jsonl": (run("curves.jsonl"), near(edits=1, figures=SCORES)),
    "updates.csv": (table, near(update=1, a=0.5)),
    "records.jsonl": (_before, near(stage="before", edits=0)),
    "opened.json": (opened, near(name="events.out.tfevents.1")),
    "removed.json": (removed, near(removed=[1]).map(lambda found: found[0])),
}


def written(suffix, value):
    """A value in the format of a file, as far as the format can hold it."""
    if suffix == ".jsonl":
        lines = value if isinstance(value, list) else [value]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()
    if suffix == ".csv":
        rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
        header = list(rows[0]) if rows else ["subject"]
        lines = [header, *([str(row.get(name, "")) for name in header] for row in rows)]
        return "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines).encode(errors="replace")
    if suffix == ".yaml":
        return yaml.safe_dump(value, allow_unicode=True).encode()
    return json.dumps(value).encode()


@st.composite
def damaged(draw, whole):
    """The bytes of a file with a part cut out, doubled or replaced."""
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 20)))
    return whole[:start] + draw(st.sampled_from([b"", whole[start:end] * 2]) | st.binary(max_size=6)) + whole[end:]


@st.composite
def contents(draw, suffix, values):
    kind = draw(st.sampled_from(["hostile", "bytes", "value", "value", "damaged", "damaged"]))
    if kind == "hostile":
        return draw(st.sampled_from(HOSTILE))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    whole = written(suffix, draw(values))
    return whole if kind == "value" else draw(damaged(whole))


@pytest.mark.parametrize("name", READERS)
def test_every_reader_answers_a_hostile_file(name, tmp_path_factory):
    read, values = READERS[name]
    folder = tmp_path_factory.mktemp("hostile")

    @settings(
        max_examples=CASES,
        deadline=timedelta(seconds=SLOWEST),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(contents(Path(name).suffix, values))
    def answers(content):
        path = folder / f"x{name}"
        path.write_bytes(content)
        try:
            read(path)
        except EditError as error:
            assert 0 < len(str(error)) <= LONGEST
            assert "\x1b" not in str(error)

    answers()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_the_worst_files_are_answered_by_every_reader(name, index, tmp_path):
    path, began = tmp_path / f"x{name}", time.monotonic()
    path.write_bytes(HOSTILE[index])
    try:
        READERS[name][0](path)
    except EditError as error:
        assert 0 < len(str(error)) <= LONGEST
    assert time.monotonic() - began < SLOWEST
