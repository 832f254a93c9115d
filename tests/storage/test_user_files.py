"""Files of users: what is read, and with which place and words the rest is refused."""

import gzip
import os
import time

import pytest

from lightning_edit.errors import EditError
from lightning_edit.storage.user.files import check_file, csv_rows, read_text
from lightning_edit.storage.user.json import json_lines, json_records, read_json
from lightning_edit.storage.user.yaml import parse_yaml, read_yaml


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(read, path):
    with pytest.raises(EditError) as raised:
        found = read(path)
        found if isinstance(found, str | dict | list) else list(found)
    return str(raised.value).replace(f"{path.parent}/", "")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DEEP, "a.json: nested more than 100 levels deep."),
        (DEEP + "]" * 100_000, "a.json: nested more than 100 levels deep."),
        ("[" * 101 + "]" * 101, "a.json, field '0.0.0.0': nested more than 100 levels deep."),
        ("[" + "9" * 5000 + "]", "a.json: a number has too many digits"),
        ('[{"a": {"b": "x\\ud800y"}}]', "a.json, field '0.a.b': the text 'x\\ud800y' holds half of a surrogate pair"),
        ('{"\\udfff": 1}', "holds half of a surrogate pair"),
        ('[1,\n{"a" 2}]', "a.json, line 2, column 6: not JSON (Expecting ':' delimiter)."),
        (b'["\xff"]', "a.json is not UTF-8 text"),
        ('["a"]'.encode("utf-16"), "a.json is UTF-16 text: save it as UTF-8."),
        ('[{"a": {"b": 1, "c": 2, "b": 1}}]', "a.json: 'b' is given twice. Keep one of them."),
        ("", "a.json is empty."),
        (" \n", "a.json is empty: it holds nothing but spaces."),
        (b"PK\x03\x04rest", "a.json is a zip archive or an office document: save a table as CSV"),
        (gzip.compress(b"[]", mtime=0), "a.json is packed by gzip: unpack it."),
        (b"PAR1rest", "a.json is a Parquet file: name it .parquet."),
    ],
)
def test_json_is_refused_with_its_place(content, message, tmp_path):
    assert message in refusal(read_json, write(tmp_path, "a.json", content))


def test_what_is_within_bounds_is_read(tmp_path):
    value = '{"a": "\\ud83d\\ude42 纽约", "b": [1.5, -0, 1e400, null, true, NaN]}'
    found = read_json(write(tmp_path, "a.json", b"\xef\xbb\xbf" + value.encode()))
    assert found["a"] == "🙂 纽约"
    assert found["b"][:3] == [1.5, 0, float("inf")]
    deep = "[" * 100 + "]" * 100
    assert parse_yaml(deep, "x") == read_json(write(tmp_path, "b.json", deep))


def test_json_lines_end_with_a_newline_only(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"a": "x\u2028\u0085y"}\r\n\n[1]\n"b"')
    found = [(value, where.rpartition(", ")[2]) for value, where in json_lines(path)]
    assert found == [({"a": "x\u2028\u0085y"}, "line 1"), ([1], "line 3"), ("b", "line 4")]


def test_a_fault_of_json_lines_has_line_and_column(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 1\n')
    assert refusal(json_lines, path).startswith("a.jsonl, line 2, column 8: not JSON (Expecting ',' delimiter).")
    path = write(tmp_path, "b.jsonl", f"1\n{DEEP}\n")
    assert refusal(json_lines, path) == "b.jsonl, line 2: nested more than 100 levels deep."
    path = write(tmp_path, "c.json", '{"a": 1}\n{"a": 2}\n')
    assert "If it holds one record a line, name it .jsonl." in refusal(json_records, path)


def test_a_last_line_that_is_being_written_is_passed_over_where_that_is_asked_for(tmp_path):
    path, passed = write(tmp_path, "a.jsonl", '{"a": 1}\n{"a'), []
    assert [value for value, _ in json_lines(path, on_unfinished=passed.append)] == [{"a": 1}]
    assert passed == [f"{path}, line 2"]
    assert "line 2, column" in refusal(json_lines, path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_cells_are_separated_by_what_the_header_has(delimiter, tmp_path):
    path = write(tmp_path, "a.csv", 'a,b,c\n\n1,"2\n,;\t\'",\n3,4,5\n'.replace(",", delimiter))
    inside = "2\n,;\t'".replace(",", delimiter)
    found = [(row, where.rpartition(", ")[2]) for row, where in csv_rows(path)]
    assert found == [({"a": "1", "b": inside}, "line 3"), ({"a": "3", "b": "4", "c": "5"}, "line 5")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2,3\n", "a.csv, line 2: 3 cells where the header has 2. Put a text that holds a comma in quotes."),
        ("a;b\n1;2;3\n", "Put a text that holds a semicolon in quotes."),
        ("a,a\n", "the header must give every column a name of its own, got ['a', 'a']."),
        ('a,b\n"1,2\n', "a.csv, line 2: not CSV (unexpected end of data). See whether a quote is not closed."),
        ("a|b\n1|2|3\n", "Put a text that holds a bar in quotes."),
        (b"a,b\n\xe9,2\n", "a.csv is not UTF-8 text"),
        ("", "a.csv is empty."),
    ],
)
def test_csv_is_refused_with_its_place(content, message, tmp_path):
    assert message in refusal(csv_rows, write(tmp_path, "a.csv", content))


def bomb(levels, name="x"):
    lines = [f"a0: &a0 [{name}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb(9), "a.yaml, line 6: more than 100,000 values, those that aliases stand for included."),
        ("a: &a {b: &b {<<: [*a]}}", "a.yaml, line 1: the alias *a stands inside of what it stands for."),
        ("&a [*a]", "the alias *a stands inside"),
        (DEEP, "a.yaml, line 1: nested more than 100 levels deep."),
        (DEEP + "]" * 100_000, "nested more than 100 levels deep."),
        ("\n".join("  " * i + "a:" for i in range(500)), "a.yaml, line 101: nested more than 100 levels deep."),
        ("- " * 100_000, "nested more than 100 levels deep."),
        ("a: &a [[[[[[[[[[x]]]]]]]]]]\n" + "b: " + "[" * 91 + "*a" + "]" * 91, "nested more than 100 levels deep."),
        ("a: " + "9" * 5000, "a.yaml: not readable as YAML"),
        ("a: 2001-99-99", "a.yaml: not readable as YAML (ValueError: month must be in 1..12)."),
        ("a: !!timestamp x", "a.yaml: not readable as YAML"),
        ("a: !!int x", "a.yaml: not readable as YAML"),
        (
            "a: !!python/object/apply:os.getcwd []",
            "a.yaml, line 1, column 4: not YAML (could not determine a constructor",
        ),
        ("? [a]\n: b", "not YAML (found unhashable key)."),
        ("a: *b", "a.yaml, line 1, column 4: not YAML (found undefined alias"),
        ("a: [", "a.yaml, line 2, column 1: not YAML (did not find expected node content)."),
        ("a: 1\n---\nb: 2", "not YAML (but found another document)."),
        ("a: 1\nb: {x: [{}, 2], y: &z {a: 1}, ? x : *z}", "a.yaml, line 2: 'x' is given a second time. Keep one of"),
        ("a: 1\n'a': 2", "a.yaml, line 2: 'a' is given a second time."),
        (b"a: \xff", "a.yaml is not UTF-8 text"),
        ("a: \x07", "a.yaml: not YAML (unacceptable character #x0007"),
        ('a: "\\ud800"', "not YAML (found invalid Unicode character escape code)."),
        ("x" * (2**23 + 1), "a.yaml has 8,388,609 bytes, more than the 8,388,608 that are read at once."),
    ],
)
def test_yaml_is_refused_in_time(content, message, tmp_path):
    path, began = write(tmp_path, "a.yaml", content), time.monotonic()
    assert message in refusal(read_yaml, path)
    assert time.monotonic() - began < 10


def test_aliases_that_stand_for_little_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2, x: 1}", "x") == {
        "a": {"x": 1},
        "b": [{"x": 1}, {"x": 1}],
        "c": {"x": 1, "y": 2},
    }
    # A text and a number are two names, and a value may equal a name.
    assert parse_yaml("{1: a, '1': 1, a: 1}", "x") == {1: "a", "1": 1, "a": 1}
    assert parse_yaml("a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b", "x")["c"] == {"x": 1, "y": 2}


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert "fifo is a pipe, which can be read only once: write what comes out of it to a file" in refusal(
        check_file, tmp_path / "fifo"
    )
    assert refusal(check_file, tmp_path / "folder") == "folder is a folder; a file is needed."
    assert refusal(check_file, tmp_path / "none") == "there is no file none."
    assert refusal(check_file, tmp_path / "none" / "a") == "there is no file a."
    for name in ("a\0b", "x" * 300):
        assert "cannot be read: " in refusal(read_text, tmp_path / name)
    with pytest.raises(EditError, match="/dev/null is a device"):
        check_file("/dev/null")
