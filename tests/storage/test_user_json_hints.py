"""What is said of JSON that is nearly right, and of folders in place of files."""

import pytest

from lightning_edit.errors import EditError
from lightning_edit.storage.user.files import check_text
from lightning_edit.storage.user.json import json_lines, json_records


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"version": 1, "data": [{"prompt": "x"}]}', "There is a list under 'data': save that list alone."),
        ('{"prompt": "x", "paraphrase_prompts": ["y"]}', "If it holds one record a line, name it .jsonl."),
        ('{"prompt": "x"}', "If it holds one record a line, name it .jsonl."),
    ],
)
def test_a_list_within_an_object_is_named(content, said, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(EditError) as error:
        list(json_records(tmp_path / "a.json"))
    assert str(error.value).endswith(f"expected a list of records, got one object. {said}")


def test_lines_that_end_in_cr_alone_are_said(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\r{"a": 2}\r')
    with pytest.raises(EditError, match=r"not JSON .*Its lines end in CR alone"):
        list(json_lines(path))
    path.write_bytes(b'{"a":\r1}\r\n{"a": 2}\r\n')
    assert [value for value, _ in json_lines(path)] == [{"a": 1}, {"a": 2}]
    path.write_bytes(b'{"a": 1} {"a": 2}\r\n')
    with pytest.raises(EditError, match="Each line must be one JSON value"):
        list(json_lines(path))


def test_a_folder_in_place_of_a_text_is_called_one(tmp_path):
    with pytest.raises(EditError, match=r"`--preserve`: .* is a folder; a file is needed\. Give a file of ordinary"):
        check_text(str(tmp_path), "--preserve")
    with pytest.raises(EditError, match=r"`--text`: there is no file .*none\.txt. Give a file of ordinary text"):
        check_text(str(tmp_path / "none.txt"), "--text")
