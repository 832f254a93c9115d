"""Where records are read from, and what a message calls the place."""

import json
import os

import datasets
import pytest

from lightning_edit.datamodules import CounterFact, OwnEdits
from lightning_edit.datamodules.records import read_list, read_records
from lightning_edit.errors import EditError

ROWS = [
    {"subject": "Anna", "prompt": "{} plays the", "target_new": "violin", "paraphrase_prompts": ["Anna likes the"]},
    {"subject": "Łukasz", "prompt": "{} lives in", "target_new": "Łódź", "target_true": "Rome"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_all_kinds_of_files_give_the_same_records(tmp_path):
    write(tmp_path / "a.json", json.dumps(ROWS))
    write(tmp_path / "a.jsonl", "\n" + lines(ROWS) + "\n")
    write(tmp_path / "folder" / "train.jsonl", lines(ROWS))
    # The columns are those of the first row: what a later one adds must stand there, empty.
    datasets.Dataset.from_list([ROWS[0] | {"target_true": None}, ROWS[1]]).to_parquet(tmp_path / "a.parquet")
    paths = [str(tmp_path / name) for name in ("a.json", "a.jsonl", "folder", "a.parquet")]
    found = [list(read_records(path)) for path in paths]
    assert all([record for record, _ in pairs] == ROWS for pairs in found)
    places = ["a.json, record 2", "a.jsonl, line 3", "folder/train.jsonl, line 2", "a.parquet, record 2"]
    assert [pairs[1][1] for pairs in found] == [f"{tmp_path}/{place}" for place in places]


def test_csv_gives_texts_by_the_header_without_empty_cells(tmp_path):
    rows = ["\ufeffsubject, prompt,target_new", 'Anna,"{} plays, and', 'sings, ""the""",violin', ",,", "Łukasz,{} is"]
    path = write(tmp_path / "a.csv", "\r\n".join(rows))
    assert list(read_records(path)) == [
        ({"subject": "Anna", "prompt": '{} plays, and\r\nsings, "the"', "target_new": "violin"}, f"{path}, line 2"),
        ({"subject": "Łukasz", "prompt": "{} is"}, f"{path}, line 5"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv, line 3: 3 cells where the header has 2"),
        ("a.csv", "a,a\n1,2\n", "a.csv, line 1: the header must give every column a name of its own"),
        ("a.csv", "a,\n1,2\n", "a.csv, line 1: the header must give every column a name of its own"),
        ("a.csv", 'a,b\n1,"2\n', "a.csv, line 2: not CSV"),
        ("a.jsonl", '{"a": 1}\n\n{"a": 1,}\n', "a.jsonl, line 3, column 9: not JSON"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "a.json, line 2, column 1: not JSON (Extra data). If it holds one record a"),
        ("a.json", "{}", "a.json: expected a list of records, got one object."),
    ],
)
def test_what_cannot_be_read_is_refused_by_line(tmp_path, name, text, message):
    with pytest.raises(EditError) as error:
        list(read_records(write(tmp_path / name, text)))
    assert f"{tmp_path}/{message}" in str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_another_encoding_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes("subject\nMálaga\n".encode("latin-1"))
    with pytest.raises(EditError, match=r"is not UTF-8 text .*save it as UTF-8"):
        list(read_records(str(tmp_path / name)))


def test_a_folder_has_splits(tmp_path):
    write(tmp_path / "d" / "train.jsonl", lines([ROWS[1] | {"subject": "Bo"}]))
    write(tmp_path / "d" / "test.jsonl", lines(ROWS[1:]))
    data = OwnEdits(str(tmp_path / "d"), split="test")
    assert [(request.subject, request.target_true) for request in data.requests] == [("Łukasz", "Rome")]
    with pytest.raises(EditError, match=r"^`data\.path`: .*/d could not be read: .*nosuch"):
        OwnEdits(str(tmp_path / "d"), split="nosuch").setup("fit")


def test_nested_columns_of_a_folder_are_read(tmp_path):
    rewrites = [
        {"subject": "Anna", "prompt": "{} is", "target_new": {"str": "a", "id": "1"}, "target_true": None},
        {
            "subject": "Bo",
            "prompt": "{} is",
            "target_new": {"str": "a", "id": "1"},
            "target_true": {"str": "b", "id": "2"},
        },
    ]
    records = [{"case_id": i, "requested_rewrite": rewrite} for i, rewrite in enumerate(rewrites)]
    records[0]["paraphrase_prompts"], records[1]["paraphrase_prompts"] = None, ["Bo, who is"]
    (tmp_path / "d").mkdir()
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "d" / "train.parquet")
    first, second = CounterFact(str(tmp_path / "d")).requests
    assert (first.target_true, first.paraphrase_prompts) == (None, ())
    assert (second.target_true, second.paraphrase_prompts, second.case_id) == ("b", ("Bo, who is",), "1")


def test_a_broken_folder_is_refused_with_the_reason(tmp_path):
    write(tmp_path / "d" / "train.jsonl", '{"a": 1}\n{"a": \n')
    with pytest.raises(EditError, match=r"d/train.jsonl, line 2, column 7: not JSON"):
        list(read_records(str(tmp_path / "d")))


def test_the_files_of_a_folder_are_read_as_each_by_itself(tmp_path):
    header = "case_id,subject,prompt,target_new,target_true\n"
    write(tmp_path / "d" / "b.csv", f"{header}008,NA,The capital of {{}} is,1999,NA\n")
    write(tmp_path / "d" / "a.csv", f"{header}007,Windhoek,{{}} lies in,Oz,null\n")
    write(tmp_path / "d" / "c.jsonl", lines([{"subject": "X", "prompt": "{} began on", "target_new": "2020-01-01"}]))
    write(tmp_path / "d" / "README.md", "# Facts\n")
    requests = OwnEdits(str(tmp_path / "d")).requests
    assert [(one.case_id, one.subject, one.target_new, one.target_true) for one in requests] == [
        ("007", "Windhoek", "Oz", "null"),
        ("008", "NA", "1999", "NA"),
        ("", "X", "2020-01-01", None),
    ]
    some = OwnEdits(str(tmp_path / "d"), indices=[2, 1]).requests
    assert [one.subject for one in some] == ["X", "NA"]


def test_of_files_with_names_of_splits_those_of_one_are_read(tmp_path):
    for name in ("train-1", "train-0", "my_test", "dev"):
        write(tmp_path / "d" / f"{name}.csv", f"subject,prompt,target_new\n{name},{{}} is,Rome\n")

    def subjects(split):
        return [one.subject for one in OwnEdits(str(tmp_path / "d"), split=split).requests]

    assert subjects("train") == ["train-0", "train-1"]
    assert (subjects("test"), subjects("validation")) == (["my_test"], ["dev"])


def test_a_name_that_is_neither_file_nor_data_set_is_refused(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(EditError, match=r"^`data\.path`: nobody/v1\.0 is no file and could not be opened on the hub: "):
        list(read_records("nobody/v1.0"))


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet", "./absent", "~/absent-folder"])
def test_what_looks_like_a_file_is_not_sought_on_the_hub(name):
    with pytest.raises(EditError) as error:
        list(read_records(name))
    assert str(error.value) == f"`data.path`: there is no file {name}."


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [("a.json", "[3, 1]", [3, 1]), ("a.txt", " [3,\n1]", [3, 1]), ("a.txt", "3\n\n 1\n", ["3", "1"])],
)
def test_lists_are_json_or_one_entry_a_line(tmp_path, name, text, found):
    assert [value for value, _ in read_list(write(tmp_path / name, text), "data.indices")] == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.py", "import os\n"),
        ("README.md", "---\na: !!python/object/apply:os.getcwd []\n---\n"),
        ("README.md", "---\na: [\n---\n"),
    ],
)
def test_a_folder_with_more_than_data_gets_a_message_or_is_read(tmp_path, name, text):
    write(tmp_path / "d" / "train.jsonl", '{"a": 1}\n')
    write(tmp_path / "d" / name, text)
    try:
        found = list(read_records(str(tmp_path / "d")))
    except EditError as error:
        assert "/d could not be read: " in str(error)
        assert str(error).endswith("A folder should hold data files alone, such as .jsonl, .csv or .parquet.")
    else:
        assert [record for record, _ in found] == [{"a": 1}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"PK\x03\x04x", "a.xlsx is a zip archive or an office document: save a table as CSV (UTF-8)"),
        ("a.csv", b"PK\x03\x04x", "a.csv is a zip archive or an office document"),
        ("a.json", b"", "a.json is empty."),
        ("a.csv", b"", "a.csv is empty."),
        ("a.jsonl", b"", "a.jsonl is empty."),
        ("a.parquet", b"", "a.parquet is empty."),
        ("a.parquet", b"x", "a.parquet could not be read: "),
        ("a.yaml", b"- a", "a.yaml, line 1, column 1: not JSON (Expecting value). A file"),
        ("a.yaml", b"x: 1", "A file that is not named .jsonl, .csv, .tsv or .parquet is read as JSON."),
        ("a.jsonl.gz", b"\x1f\x8bx", "a.jsonl.gz is packed by gzip: unpack it."),
        ("a.txt", b"hello", "a.txt, line 1, column 1: not JSON (Expecting value)."),
    ],
)
def test_what_is_no_data_file_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EditError) as error:
        list(read_records(str(tmp_path / name)))
    assert message in str(error.value)
    assert "A folder should hold" not in str(error.value)


def test_a_pipe_is_no_data_file(tmp_path):
    os.mkfifo(tmp_path / "edits")
    with pytest.raises(EditError, match="edits is a pipe, which can be read only once"):
        list(read_records(str(tmp_path / "edits")))
