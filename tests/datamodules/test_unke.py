"""UnKE's records: questions with long answers."""

import json

import pytest

from lightning_edit.datamodules import UnKE
from lightning_edit.datamodules.record_module import reader_of
from lightning_edit.errors import EditError

RECORD = {
    "id": 7,
    "question": "What does Anna do?",
    "para_question": "What is Anna's occupation?",
    "answer": "Anna is a baker. She bakes in Rome.",
    "sub_question": ["Where does Anna bake?"],
    "sub_answer": ["In Rome."],
}


def data(tmp_path, *records):
    path = tmp_path / "unke.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return UnKE(str(path))


def test_a_record_is_a_question_and_its_answer(tmp_path):
    everything = {"question": "Who sings?", "answer": "Nobody, it is silent.", "category": "music"}
    made = data(tmp_path, RECORD, everything)
    made.setup("fit")
    first, second = made.requests
    assert (first.subject, first.prompt, first.case_id) == ("", "What does Anna do?", "7")
    assert first.target_new == RECORD["answer"] and first.paraphrase_prompts == ("What is Anna's occupation?",)
    assert second.case_id == "1" and second.paraphrase_prompts == ()
    assert reader_of(RECORD) is UnKE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer": " "}, "`answer` must be a text that is not empty"),
        ({"question": 3}, "`question` must be a text that is not empty, got 3"),
        ({"id": ["a"]}, "`case_id` must be a text or a number"),
    ],
)
def test_a_bad_record_is_named(tmp_path, change, told):
    with pytest.raises(EditError, match=told):
        data(tmp_path, RECORD | change).setup("fit")


def test_the_published_file_is_read(shared):
    made = UnKE(str(shared / "data" / "unkebench.json"))
    made.setup("fit")
    assert len(made.requests) == 1000 and all(len(r.paraphrase_prompts) == 1 for r in made.requests)
