"""KnowEdit's records, with their tests of what follows and of what should stay."""

import json

import pytest

from lightning_edit import Query, Ripple
from lightning_edit.datamodules import KnowEdit
from lightning_edit.datamodules.record_module import reader_of
from lightning_edit.errors import EditError

RECORD = {
    "subject": "Anna Larsen",
    "prompt": "The country of citizenship of Anna Larsen is",
    "target_new": "Syria",
    "ground_truth": ["Denmark", "Danmark"],
    "rephrase": "Anna Larsen is a citizen of",
    "portability": {
        "Reasoning": [{"prompt": "The capital of Anna Larsen's country is", "ground_truth": "Damascus"}],
        "Subject_Aliasing": [{"prompt": "The citizenship of A. Larsen is", "ground_truth": [["Syria", "SYR"], []]}],
        "Logical_Generalization": [],
    },
    "locality": {
        "Relation_Specifity": [{"prompt": "Anna Larsen is a", "ground_truth": ["singer"]}],
        "Forgetfulness": [{"prompt": "Bo Larsen is a citizen of", "ground_truth": [""]}],
    },
}
WIKIBIO = {
    "concept": "Anna Larsen",
    "text": "This is a passage about anna larsen. She was born",
    "labels": "in 1920 and sang all her life.",
    "locality": {"Relation_Specificity": [{"prompt": "Anna sang", "ground_truth": "in Rome, where she lived."}]},
}


def data(tmp_path, *records, **settings):
    path = tmp_path / "know.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return KnowEdit(str(path), **settings)


def one(axis, prompt, *forms, kept=False):
    return Ripple(axis, (Query(prompt, (forms,) if forms else ()),), kept=kept)


def test_axes_answers_and_what_is_kept_are_read(tmp_path):
    (request,) = data(tmp_path, RECORD).requests
    assert (request.subject, request.prompt) == ("Anna Larsen", "The country of citizenship of {} is")
    assert (request.target_new, request.target_true, request.case_id) == ("Syria", "Denmark", "0")
    assert request.paraphrase_prompts == ("Anna Larsen is a citizen of",)
    assert request.locality == (("Anna Larsen is a", "singer"),)
    assert request.ripples == (
        one("reasoning", "The capital of Anna Larsen's country is", "Damascus"),
        one("subject_aliasing", "The citizenship of A. Larsen is", "Syria", "SYR"),
        one("relation_specificity", "Anna Larsen is a", "singer", kept=True),
        # The unedited model says what is right.
        one("forgetfulness", "Bo Larsen is a citizen of", kept=True),
    )
    assert reader_of({name: RECORD[name] for name in KnowEdit.typical}) is KnowEdit


def test_wikibio_has_other_names(tmp_path):
    (request,) = data(tmp_path, WIKIBIO).requests
    assert (request.subject, request.prompt) == ("anna larsen", "This is a passage about {}. She was born")
    assert request.target_new == "in 1920 and sang all her life." and request.target_true is None
    assert request.ripples == (one("relation_specificity", "Anna sang", "in Rome, where she lived.", kept=True),)


def test_portability_without_an_answer_is_left_out_and_counted(tmp_path, caplog):
    groups = {"Reasoning": [{"prompt": f"Q{i}", "ground_truth": a} for i, a in enumerate(("", [[]], None, "x"))]}
    (request,) = data(tmp_path, RECORD | {"portability": groups, "locality": {"Forgetfulness": None}}).requests
    assert request.ripples == (one("reasoning", "Q3", "x"),)
    assert caplog.messages == ["3 portability prompts without an answer are left out ('Q0', 'Q1', 'Q2')."]


def test_fields_may_be_absent_and_a_prompt_a_list(tmp_path):
    bare = {name: RECORD[name] for name in ("subject", "prompt", "target_new")}
    kept = {"Forgetfulness": [{"prompt": ["Bo is a", "Bo was a"], "ground_truth": 7}]}
    first, second = data(tmp_path, bare, bare | {"prompt": "Anna Larsen is", "locality": kept}).requests
    assert first.ripples == first.locality == first.paraphrase_prompts == ()
    assert second.ripples == (one("forgetfulness", "Bo is a", "7", kept=True),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject": None}, "the field 'subject' is missing ('concept' in WikiBio)"),
        ({"target_new": [""]}, "`target_new` must hold a text that is not empty"),
        ({"portability": [1]}, "`portability` must be {axis: [{'prompt', 'ground_truth'}, ...]}, got [1]."),
        ({"portability": {"Reasoning": [{"ground_truth": "x"}]}}, "got {'ground_truth': 'x'} under 'Reasoning'."),
        ({"locality": {"Forgetfulness": "x"}}, "`locality` must be {axis: "),
        ({"locality": {"x": [{"prompt": "y", "ground_truth": {"z": 1}}]}}, "`ground_truth` must be a text or a list"),
        ({"locality": {"7": [{"prompt": "y", "ground_truth": "z"}]}}, "the axis of a test must be a name"),
    ],
)
def test_bad_records_are_refused_by_name_or_left_out(tmp_path, changes, message, caplog):
    with pytest.raises(EditError) as error:
        data(tmp_path, WIKIBIO, RECORD | changes).setup("fit")
    assert str(error.value).startswith(f"{tmp_path}/know.json, record 2: ") and message in str(error.value)
    made = data(tmp_path, WIKIBIO, RECORD | changes, RECORD, bad_records="leave_out")
    assert [request.case_id for request in made.requests] == ["0", "2"]
    assert caplog.messages[0].startswith("1 record is left out: they are bad (`bad_records: leave_out`) (")
    ((reason, names),) = made.left_out.items()
    assert reason == "they are bad (`bad_records: leave_out`)"
    assert names[0].startswith(f"{tmp_path}/know.json, record 2: ") and message in names[0]


def test_a_prompt_without_its_subject_is_left_out(tmp_path, caplog):
    assert len(data(tmp_path, RECORD | {"subject": "Bo"}, RECORD).requests) == 1
    assert "1 record is left out: their prompt does not hold their subject" in caplog.text
