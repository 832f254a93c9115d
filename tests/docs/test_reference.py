"""What the reference pages list is what a real run writes and what the data modules read."""

import csv
import json
import re
import tomllib

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_edit import EditRequest
from lightning_edit.datamodules import (
    AKEW,
    FEVER,
    CounterFact,
    EasyEditCounterFact,
    HalluEditBench,
    KnowEdit,
    MQuAKE,
    OwnEdits,
    QAEdit,
    RippleEdits,
    UltraEditBench,
    UnKE,
    WikiBigEdit,
    ZsRE,
)
from lightning_edit.datamodules.records import SUFFIXES
from lightning_edit.metrics.descriptions import description
from lightning_edit.requests import TEXT_LISTS
from lightning_edit.tiny import MODEL_PATH, World
from tests import data_files
from tests.docs import shell
from tests.docs.blocks import REPOSITORY

PLACEHOLDERS = {
    "...": ".+",
    "TASK": r"[^/]+",
    "STAGE": ".+",
    "METRIC": ".+",
    "AXIS": r"[^/]+",
    "NAME": r"[^/]+",
    "L": r"\d+",
}
# The run that is looked at has none; `tests/run/test_anchored.py` and `test_crispedit.py` look at these.
# Written by other methods, and of longer answers, than those of the run that is looked at.
OF_OTHERS = {
    *(f"layer_L/{name}" for name in ("queue", "preservation_loss", "preservation_bound", "free_share")),
    *(f"edit/{name}" for name in ("efficacy_nll", "paraphrase_nll")),
    *(f"edit/{name}_rouge_l" for name in ("generated", "generated_paraphrase", "ripple_AXIS")),
}
SPREAD = re.compile("_(stderr|n)$")


def page(name):
    return (REPOSITORY / "docs" / name).read_text(encoding="utf-8")


def section(text, heading):
    """The part of a page under a heading of the second level."""
    return re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def first_cells(text):
    """The code in the first cells of all tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in re.findall("`([^`]+)`", cell)]


def pattern(name):
    """A name of a page as a regular expression, with its placeholders."""
    parts = re.split(r"(\.\.\.|\bTASK\b|\bSTAGE\b|\bMETRIC\b|(?<=_)AXIS(?=_)|\bNAME\b|(?<=_)L\b)", name)
    return re.compile("".join(PLACEHOLDERS.get(part, re.escape(part)) for part in parts))


def missing(names, listed):
    patterns = [pattern(name) for name in listed]
    return sorted(name for name in names if not any(found.fullmatch(name) for found in patterns))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with everything switched on that writes a tag or a file."""
    folder = tmp_path_factory.mktemp("reference")
    world = World.generate()
    (folder / "text.txt").write_text("\n".join(world.sentences(0)))
    records = [{**record, "locality": [["The small book stood near the", "market"]]} for record in world.records(4, 0)]
    for record in records:
        record |= {"reference_texts": ["A roofer works on a roof."], "essence_texts": ["Hulbin Larrem is a man."]}
        other = {"prompt": record["neighborhood_prompts"][0], "answers": record["target_true"]}
        tests = {"prompt": record["paraphrase_prompts"][0], "answers": record["target_new"]}
        record["ripples"] = {"reasoning": [tests], "forgetfulness": [other | {"kept": True}]}
    (folder / "edits.jsonl").write_text("\n".join(map(json.dumps, records)))
    rows = [{"text": text, "label": label} for label in (0, 1) for text in ("A market.", "A church.")]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {"prompt": "{text} is", "label": "label", "answers": {0: "good", 1: "bad"}, "pool": 2}
    (folder / "task.yaml").write_text(json.dumps({**task, "data": {"file": "rows.jsonl"}}))
    text = {"kind": "text", "text": "text", "separator": " ", "data": {"file": "words.jsonl"}}
    (folder / "words.jsonl").write_text("\n".join(json.dumps({"text": s}) for s in list(world.sentences(0))[:400]))
    (folder / "words.yaml").write_text(json.dumps(text))
    status = shell.run(
        [
            "fit",
            "--data=OwnEdits",
            f"--data.path={folder / 'edits.jsonl'}",
            "--data.preservation=TextFile",
            f"--data.preservation.path={folder / 'text.txt'}",
            "--model.edits_per_update=2",
            "--model.evaluation.generate=true",
            "--model.evaluation.generated_match=true",
            "--model.evaluation.wild=true",
            f"--model.evaluation.judge.model={MODEL_PATH}",
            f"--model.evaluation.judge.cache_dir={folder / 'cache'}",
            "--retention.every_n_updates=1",
            f"--downstream.tasks={folder / 'task.yaml'},{folder / 'words.yaml'}",
            "--downstream.shots=1,0",
            "--downstream.tests=2",
            f"--watch.perplexity_file={folder / 'text.txt'}",
            "--watch.perplexity_windows=2",
            "--watch.max_perplexity_factor=null",
            "--watch.max_growth=null",
            f"--model.second_moment.cache_dir={folder / 'cache'}",
            f"--trainer.logger.save_dir={folder / 'runs'}",
        ]
    )
    assert status == 0
    return folder / "runs" / "version_0"


@pytest.mark.slow
def test_every_tag_is_listed(run_folder):
    events = EventAccumulator(str(run_folder), size_guidance={"histograms": 1}).Reload()
    tags = events.Tags()
    names = [*tags["scalars"], *tags["histograms"], *tags["images"], *tags["tensors"]]
    assert len(names) > 50
    assert not missing([name for name in names if name != "hp_metric"], first_cells(page("reference/tensorboard.md")))


@pytest.mark.slow
def test_every_listed_tag_of_editing_is_written(run_folder):
    written = EventAccumulator(str(run_folder)).Reload().Tags()["scalars"]
    listed = [
        name
        for name in first_cells(page("reference/tensorboard.md"))
        if name.startswith(("values/", "value_search/", "layer_", "update/", "edit/")) and name not in OF_OTHERS
    ]
    assert len(listed) > 40
    assert [name for name in listed if not any(pattern(name).fullmatch(tag) for tag in written)] == []


@pytest.mark.slow
def test_every_scalar_says_what_it_means(run_folder):
    events = EventAccumulator(str(run_folder)).Reload()
    described = {tag: events.SummaryMetadata(tag).summary_description for tag in events.Tags()["scalars"]}
    assert all(described.values()), [tag for tag, text in described.items() if not text]
    assert described["values/nll"] == description("values/nll") != description("value_search/nll")
    assert described["layer_0/weight_growth"].startswith("the norm of the weight relative")
    values = [event.value for event in events.Scalars("values/loss")]
    assert len(values) > 1 and values[0] > values[-1]


def test_every_listed_tag_has_a_description():
    text = page("reference/tensorboard.md")
    tags = first_cells(text.replace(section(text, "Texts, pictures and settings of a finished run"), ""))
    listed = [name for name in tags if not re.search(r"\.\.\.|METRIC", name)]
    assert len(listed) > 50
    assert [name for name in listed if not description(name) and name != "comparison"] == []


def test_every_stage_that_is_timed_is_listed():
    code = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "lightning_edit").rglob("*.py"))
    code += "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "callbacks").rglob("*.py"))
    named = re.findall(r'\.timed\("(\w+)"\)', code)
    named += [
        name
        for names in re.findall(r"^    work\b.* = \((.*)\)", code, re.MULTILINE)
        for name in re.findall(r'"(\w+)"', names)
    ]
    named += [kind.lower() for kind in re.findall(r"^class (\w+)\(Scheduled\)", code, re.MULTILINE)]
    assert {"load", "examples", "solve", "memories", "retention", "watch"} <= set(named)
    (row,) = re.findall(
        r"^\| `seconds` \| (.*) \|$", section(page("reference/output-files.md"), "`metrics.json`"), re.MULTILINE
    )
    assert set(named) == set(re.findall("`([^`]+)`", row))


def test_every_extra_is_listed():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, text = project["optional-dependencies"], section(page("get-started.md"), "Install")
    assert set(first_cells(text)) == set(extras) - {"spread"}
    (of_dev,) = re.findall(r"\[(.*)\]", extras["dev"][0])
    (row,) = re.findall(r"^\| `dev` \| (.*) \|$", text, re.MULTILINE)
    assert re.findall("`([^`]+)`", row) == of_dev.split(",")


def test_every_kind_of_data_file_is_listed():
    listed = first_cells(section(page("how-to/data-formats.md"), "Files"))
    assert set(listed) == set(SUFFIXES) - {".txt"}
    assert "| a file of any other name | as `.json` |" in page("how-to/data-formats.md")


@pytest.mark.slow
def test_every_file_is_listed(run_folder):
    listed = first_cells(page("reference/output-files.md").split("\n## ")[0])
    names = [path.name + "/" * path.is_dir() for path in run_folder.iterdir()]
    assert len(names) > 8
    assert not missing([name for name in names if not name.startswith("events.")], listed)


@pytest.mark.slow
def test_every_key_and_column_is_listed(run_folder):
    text = page("reference/output-files.md")
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert not missing(metrics, first_cells(section(text, "`metrics.json`")))
    records = [json.loads(line) for line in (run_folder / "records.jsonl").read_text().split("\n") if line]
    known = re.findall("`([a-z_]+)`", section(text, "`records.jsonl`"))
    assert not missing({name for record in records for name in record}, known)
    entries = [entry for record in records for kind in ("efficacy", "locality") for entry in record[kind]]
    assert not missing({name for entry in entries for name in entry}, known)
    with (run_folder / "updates.csv").open() as file:
        columns = next(csv.reader(file))
    # The other columns are those of other callbacks.
    own = [name for name in columns if "/" not in name or name.startswith("layer_")]
    assert not missing([SPREAD.sub("", name) for name in own], first_cells(section(text, "`updates.csv`")))


def test_every_column_of_own_edits_is_listed():
    listed = first_cells(section(page("how-to/data-formats.md"), "`OwnEdits`"))
    # Where a record was read and what follows is noted by the reader, and how a question was made and is answered by
    # `as_question`.
    fields = set(EditRequest.__dataclass_fields__) - {"where", "more", "original", "said", "lead_ins"}
    assert sorted(listed) == sorted(fields)
    assert set(TEXT_LISTS) <= set(listed) and set(OwnEdits.required) <= set(listed)


class Noting(dict):
    """A record that notes which of its fields are asked for."""

    def __init__(self, content, asked):
        super().__init__(content)
        self.asked = asked

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.asked.add(name)
        return super().get(name, default)


@pytest.mark.parametrize(
    "reader, change, options",
    [
        (CounterFact, data_files.counterfact, {}),
        (EasyEditCounterFact, data_files.easyedit, {}),
        (ZsRE, data_files.zsre, {"target": "alt"}),
        (UnKE, data_files.unke, {}),
        (KnowEdit, data_files.knowedit, {}),
        (RippleEdits, data_files.rippleedits, {}),
        (MQuAKE, data_files.mquake, {}),
        (AKEW, data_files.akew, {}),
        (AKEW, data_files.akew, {"form": "unstructured"}),
        (QAEdit, data_files.qaedit, {}),
        (WikiBigEdit, data_files.wikibigedit, {}),
        (UltraEditBench, data_files.ultraeditbench, {}),
        (FEVER, data_files.fever, {}),
        (HalluEditBench, data_files.halluedit, {}),
    ],
)
def test_every_field_that_is_read_is_listed(reader, change, options):
    asked = set()
    record = change(World.generate().records(1, 0)[0])
    reader("none.json", **options).request(Noting(record, asked), 0)
    listed = first_cells(section(page("how-to/data-formats.md"), f"`{reader.__name__}`"))
    names = {name.partition(".")[0] for name in listed}
    assert asked and asked <= names, asked - names
    assert set(reader.required) <= names
