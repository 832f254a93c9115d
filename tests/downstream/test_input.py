"""Task files and rows of downstream tasks that are refused, and with which words."""

import pytest

from lightning_edit.downstream import load_task
from lightning_edit.downstream.rows import read_folder, read_jsonl
from lightning_edit.errors import EditError
from lightning_edit.models.decoder import find_decoder
from tests.downstream_reference import TASKS, prepare, write_rows, write_task
from tests.small_models import make_gpt2, make_tokenizer

GOOD = [{"question": f"Is it {i}?", "label": i % 2} for i in range(6)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promt": "x"}, r"own\.yaml: there is no key `promt`\. Did you mean prompt\? Accepted: .*prompt.*answers"),
        ({"label": None}, r"own\.yaml: the key `label` is missing"),
        ({"data": {"datset": "x"}}, r"`data\.datset`\. Did you mean dataset\?"),
        ({"data": {}}, r"`data` needs either"),
        ({"data": {"file": "x", "dataset": "y"}}, r"`data` needs either"),
        ({"data": "own.jsonl"}, r"`data` must have the keys of a source"),
        ({"kind": "label"}, r"`kind` must be one of labels, endings, text, got 'label'"),
        ({"pool": "many"}, r"own\.yaml: .*pool"),
        ({"pool": -1}, r"own\.yaml: `pool` must be a whole number of 0 or more, got -1"),
        ({"data": {"dataset": "x", "shuffle": -1}}, r"`data\.shuffle` must be a whole number from 0 .* got -1"),
        (
            {"kind": "text", "text": "x", "window": 1} | dict.fromkeys(("prompt", "label", "answers", "pool")),
            r"`window` must be .* 2 or more, got 1",
        ),
        ({"answers": {0: False, 1: True}}, r"the word of 0 is read as False; put it in quotes"),
        ({"answers": ["No", "Yes"]}, r"`answers` must map each label to a word"),
        ({"answers": {0: "No", 1: "No"}}, r"at least two words"),
        ({"answers": {0: "No", 1: " "}}, r"at least two words"),
        ({"answers": {0: "No", 1: "NO"}}, r"differ only in case"),
        ({"prompt": "no column"}, r"`prompt` must name a column in braces"),
        ({"prompt": "{question"}, r"`prompt`: .*brace"),
        ({"prompt": "{question.upper}"}, r"`prompt`: the field \{question\.upper\}"),
        ({"prompt": "{}"}, r"`prompt`: the field \{\}"),
    ],
)
def test_a_bad_yaml_file_is_refused(changes, message, tmp_path):
    with pytest.raises(EditError, match=message):
        load_task(write_task(tmp_path, **changes), TASKS)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(EditError, match=r"no task sts\. Did you mean sst\? Known tasks: cola, .*sst"):
        load_task("sts", TASKS)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([*GOOD[:3], {"label": 1}], {}, r"own\.jsonl, line 4: the column `question` is missing\. Columns: label"),
        ([*GOOD[:3], {"question": "a"}], {}, r"line 4: the column `label` is missing"),
        ([*GOOD[:3], {"question": None, "label": 0}], {}, r"line 4: the column `question` is empty"),
        ([*GOOD[:3], {"question": "a", "label": 2}], {}, r"line 4: `label` is '2', but .* answers for '0', '1'"),
        ([{"question": "a"}, *GOOD[:3]], {}, r"line 1: the column `label` is missing"),
        (GOOD, {"prompt": "{question[1]}"}, r"`question\[1\]` needs a list of at least 2 entries"),
        ([{"question": ["a"], "label": 0}] * 4, {}, r"`question` holds several values"),
        (GOOD[:3], {}, r"`tests`: .*own\.jsonl has 1 row beside the few-shot pool of 2, but 2"),
        (GOOD, {"pool": 0}, r"`shots`: the few-shot pool of own has 0 rows, got 1"),
    ],
)
def test_rows_that_do_not_suit_are_refused(rows, changes, message, tmp_path):
    write_rows(tmp_path / "own.jsonl", rows)
    with pytest.raises(EditError, match=message):
        prepare(write_task(tmp_path, **changes), find_decoder(make_gpt2()), make_tokenizer())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"endings": ["a"], "label": 0}, "list of two or more endings"),
        ({"endings": ["a", "b"], "label": 2}, "must be the number of an ending, 0 to 1, got '2'"),
        ({"endings": ["a", " "], "label": 0}, "list of two or more endings"),
    ],
)
def test_endings_that_do_not_suit_are_refused(row, message, tmp_path):
    write_rows(tmp_path / "own.jsonl", [{"question": "I", **row}])
    file = write_task(tmp_path, kind="endings", endings="endings", answers=None, pool=0)
    with pytest.raises(EditError, match=message):
        prepare(file, find_decoder(make_gpt2()), make_tokenizer(), shots=0, tests=1)


def test_too_little_text_is_refused(tmp_path):
    write_rows(tmp_path / "own.jsonl", [{"body": "Paris."}])
    file = write_task(tmp_path, kind="text", text="body", prompt=None, label=None, answers=None, pool=None)
    with pytest.raises(EditError, match="text for 1 window of 64 tokens, but 2"):
        prepare(file, find_decoder(make_gpt2()), make_tokenizer())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "a"}\n{"question" "b"}\n', r"line 2, column 13: not JSON"),
        (b'{"question": "a"}\n\n["b"]\n', r"line 3: expected a JSON object"),
        (b'{"question": "\xff"}\n', "not UTF-8"),
    ],
)
def test_a_file_that_is_no_jsonl_is_refused(content, message, tmp_path):
    (tmp_path / "own.jsonl").write_bytes(content)
    with pytest.raises(EditError, match=message):
        read_jsonl(tmp_path / "own.jsonl")


def test_a_line_ends_with_a_newline_only(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"question": "a\u2028b"}\n\n{"question": "c"}\n', encoding="utf-8")
    table = read_jsonl(tmp_path / "own.jsonl")
    assert [record["question"] for record in table.records] == ["a\u2028b", "c"]
    assert table[1].where.endswith("line 3")


def test_a_folder_without_the_file_of_a_task_is_refused(tmp_path):
    write_rows(tmp_path / "sst.jsonl", GOOD)
    with pytest.raises(EditError, match=r"the task nli needs .*nli\.jsonl.* JSONL files there: sst\.jsonl"):
        read_folder(tmp_path, "nli")
    with pytest.raises(EditError, match="there is no folder"):
        read_folder(tmp_path / "none", "nli")
