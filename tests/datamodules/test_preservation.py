"""Ordinary text from one file or several, and from a data set."""

import json

import datasets
import pytest

from lightning_edit.datamodules import HubText, TextFile, TinyWorld
from lightning_edit.errors import EditError


def write(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return str(tmp_path / name)


def test_one_file_is_read_in_order(tmp_path):
    assert list(TextFile(write(tmp_path, "a.txt", "one\n\n two \r\nthree")).texts()) == ["one", "two", "three"]


def test_several_files_take_turns(tmp_path):
    plain = write(tmp_path, "a.txt", "a1\na2\na3\n")
    lines = write(tmp_path, "b.jsonl", '{"body": "b1"}\n{"body": " "}\n')
    more = write(tmp_path, "c.txt", "c1\nc2\n")
    found = list(TextFile([plain, lines, more], field="body").texts())
    assert found == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert list(TextFile([plain]).texts()) == ["a1", "a2", "a3"]


def test_what_is_not_there_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(EditError, match=r"there is no file absent\.txt"):
        TextFile([write(tmp_path, "a.txt", "a"), "absent.txt"])
    with pytest.raises(EditError, match=r"empty\.txt is empty"):
        TextFile(write(tmp_path, "empty.txt", ""))
    with pytest.raises(EditError, match=r"`preservation\.path` names no file"):
        TextFile([])


def test_a_bad_line_is_named(tmp_path):
    path = write(tmp_path, "b.jsonl", '{"text": "b1"}\n{"body": "b2"}\n')
    with pytest.raises(EditError, match=r"b\.jsonl, line 2: expected a JSON object with a field 'text'"):
        list(TextFile(path).texts())


def test_a_data_set_is_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "d").mkdir()
    rows = [{"text": "one", "n": 1}, {"text": " ", "n": 2}, {"text": None, "n": 3}, {"text": "two", "n": 4}]
    write(tmp_path / "d", "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert list(HubText(str(tmp_path / "d")).texts()) == ["one", "two"]
    with pytest.raises(EditError, match=r"has no column 'body', only n, text\."):
        list(HubText(str(tmp_path / "d"), field="body").texts())
    with pytest.raises(EditError, match=r"the column 'n' of .* holds no text: 1"):
        list(HubText(str(tmp_path / "d"), field="n").texts())
    with pytest.raises(EditError, match="could not be opened"):
        list(HubText(str(tmp_path / "d"), split="nosuch").texts())


def test_only_texts_are_read_as_text(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": null}\n{"text": ""}\n{"text": "b"}\n')
    assert list(TextFile(path).texts()) == ["a", "b"]
    for value in ('["a"]', "5", '{"a": "b"}', "true"):
        path = write(tmp_path, "b.jsonl", f'{{"text": "a"}}\n{{"text": {value}}}\n')
        with pytest.raises(EditError, match=r"b\.jsonl, line 2: the field 'text' must hold a text, got "):
            list(TextFile(path).texts())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": ["a"]}\n', r"line 2: the field 'text' must hold a text"),
        ('{"text": "a\\ud800"}\n', r"line 1, field 'text': the text 'a\\ud800' holds half of a surrogate pair"),
        ("[" * 100_000, r"line 1: nested more than 100 levels deep"),
        ('{"text": null}\n', r"holds no text in its first 1,000 entries"),
    ],
)
def test_a_wrong_text_is_refused_before_a_model_is_loaded(content, message, tmp_path):
    path = write(tmp_path, "a.jsonl", content)
    with pytest.raises(EditError, match=message):
        TinyWorld(edits=1, preservation=TextFile(path)).setup("fit")
