"""Spaces at the ends of a user's texts, and names that several of the user's records share."""

import json

import pytest

from lightning_edit.datamodules import OwnEdits

CLEAN = {
    "subject": "Anna",
    "prompt": "{} earns a living as a",
    "target_new": "pilot",
    "target_true": "nurse",
    "question": "What is {}?",
    "answer": "Anna is a pilot",
    "paraphrase_prompts": ["Anna works as a", "Anna's job is"],
    "paraphrase_questions": ["What does Anna do?"],
    "neighborhood_prompts": ["Bo works as a"],
    "attribute_prompts": ["Cid works as a"],
    "generation_prompts": ["Anna is known for"],
    "locality": [["Rome lies in", "Italy"]],
    "ripples": {"logic": [{"prompt": "Anna flies a", "answers": ["plane"]}]},
}


def spaced(value):
    if isinstance(value, dict):
        return {name: spaced(part) for name, part in value.items()}
    return [spaced(part) for part in value] if isinstance(value, list) else f" {value}\t "


def read(tmp_path, records, **settings):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(records))
    data = OwnEdits(str(path), **settings)
    data.setup("fit")
    return data.requests


def test_texts_are_read_without_the_spaces_at_their_ends_and_these_are_counted(tmp_path, caplog):
    (clean,) = read(tmp_path, [CLEAN])
    assert not caplog.messages
    (found,) = read(tmp_path, [spaced(CLEAN)])
    assert found == clean
    # What is compared and shown of a request is not all that it holds.
    for name in ("question", "answer", "paraphrase_questions", "ripples"):
        assert getattr(found, name) == getattr(clean, name)
    (said,) = caplog.messages
    assert said.startswith("12 prompts have a space at an end, which is left out (")


def test_a_cell_of_csv_with_a_space_before_the_comma(tmp_path, caplog):
    (tmp_path / "edits.csv").write_text("subject,prompt,target_new\nAnna,{} earns a living as a ,pilot\n")
    (request,) = OwnEdits(str(tmp_path / "edits.csv")).requests
    assert request.prompt == "{} earns a living as a"


@pytest.mark.parametrize("own", [True, False])
def test_where_nothing_separates_a_space_before_the_answer_is_meant(own, tmp_path):
    record = {**CLEAN, "prompt": " {} works as a "}
    (request,) = read(tmp_path, [record | ({"separator": ""} if own else {})], **({} if own else {"separator": ""}))
    assert request.prompt == "{} works as a "


def test_a_line_break_at_the_end_is_meant(tmp_path, caplog):
    (request,) = read(tmp_path, [{**CLEAN, "prompt": "Q: What is {}?\nA:\n"}])
    assert request.prompt.endswith("A:\n")
    assert not caplog.messages


def test_a_name_that_several_edits_share_is_said(tmp_path, caplog):
    records = [{"subject": name, "prompt": "{} is a", "target_new": "pilot"} for name in "ABCDE"]
    names = ["1", 1, "2", "3", ""]
    read(tmp_path, [record | {"case_id": name} for record, name in zip(records, names, strict=True)])
    assert caplog.messages == ["1 `case_id` is that of several edits (1): results cannot be told apart by it."]
