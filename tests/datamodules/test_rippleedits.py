"""RippleEdits' records: facts in sentences, and tests with conditions."""

import json

import pytest

from lightning_edit import Query, Ripple
from lightning_edit.datamodules import RippleEdits
from lightning_edit.datamodules.published.ripple_sentences import WORDINGS, sentence_of
from lightning_edit.errors import EditError
from tests.data_files import ripple_test

FACT = "The name of the country of citizenship of Anna of Rome is Syria."
TRUE = FACT.replace("Syria", "the Isle of Man")
PROMPT = "The name of the country of citizenship of Anna of Rome is"
RECORD = {
    "example_type": "popular",
    "edit": {
        "prompt": FACT,
        "subject_id": "Q1",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "target_id": "Q2",
        "original_fact": {"prompt": TRUE, "subject_id": "Q1", "relation": "COUNTRY_OF_CITIZENSHIP", "target_id": "Q3"},
    },
    "Relation_Specificity": [ripple_test("Anna of Rome is married to", ["Bo"])],
    "Logical_Generalization": [ripple_test(["Anna speaks", "She speaks"], ["Arabic"], [("They speak", ["Arabic"])])],
    "Subject_Aliasing": [],
    "Compositionality_I": [ripple_test("The capital is", ["Damascus", "7"], how="AND")],
    "Compositionality_II": [],
    "Forgetfulness": [],
}


def data(tmp_path, *records, **settings):
    path = tmp_path / "popular.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return RippleEdits(str(path), **settings)


def forms(*values):
    return tuple((value, f"{value} or so") for value in values)


def test_a_sentence_becomes_an_edit_and_tests_have_conditions(tmp_path):
    (request,) = data(tmp_path, RECORD).requests
    assert (request.subject, request.prompt) == ("Anna of Rome", PROMPT.replace("Anna of Rome", "{}"))
    assert (request.target_new, request.target_true) == ("Syria", "the Isle of Man")
    known = Query(PROMPT, (("the Isle of Man",),))
    speaks = tuple(Query(prompt, forms("Arabic")) for prompt in ("Anna speaks", "She speaks"))
    assert request.ripples == (
        Ripple("relation_specificity", (Query("Anna of Rome is married to", forms("Bo")),), "any", (known,), kept=True),
        Ripple("logical_generalization", speaks, "any", (known, Query("They speak", forms("Arabic")))),
        Ripple("compositionality_i", (Query("The capital is", forms("Damascus", "7")),), "all", (known,)),
    )
    (free,) = data(tmp_path, RECORD, known=False).requests
    assert [len(ripple.conditions) for ripple in free.ripples] == [0, 1, 0]


def test_a_recent_fact_must_not_have_been_known(tmp_path):
    recent = RECORD | {"example_type": "recent", "edit": {**RECORD["edit"], "original_fact": None}}
    (request,) = data(tmp_path, recent).requests
    assert request.target_true is None
    assert all(ripple.unknown == (Query(PROMPT, (("Syria",),)),) for ripple in request.ripples)
    assert request.ripples[0].conditions == ()


def test_both_spellings_and_names_are_read(tmp_path):
    edit = {name: value for name, value in RECORD["edit"].items() if name != "original_fact"}
    other = {"edit": edit | {"previous_fact": RECORD["edit"]["original_fact"]}}
    other |= {"Relation_Specifity": RECORD["Relation_Specificity"], "something": [1], "Forgetfulness": None}
    (request,) = data(tmp_path, other).requests
    assert [ripple.axis for ripple in request.ripples] == ["relation_specificity"]
    assert request.target_true == "the Isle of Man"


def test_queries_without_answers_are_left_out_and_counted(tmp_path, caplog):
    half = ripple_test(["A", "B"], ["x"])
    half["test_queries"][1]["answers"] = []
    half["condition_queries"] = [{"prompt": "C", "answers": [{"value": "", "aliases": []}]}]
    empty = {"test_queries": [{"prompt": "D", "answers": []}], "test_condition": "OR", "condition_queries": []}
    (request,) = data(tmp_path, {"edit": RECORD["edit"], "Forgetfulness": [half, empty]}, known=False).requests
    assert request.ripples == (Ripple("forgetfulness", (Query("A", forms("x")),), "any", kept=True),)
    assert "3 queries without answers are left out ('B', 'C', 'D')." in caplog.messages
    assert any(message.startswith("1 test without an answer to any query is left out") for message in caplog.messages)


@pytest.mark.parametrize("relation", sorted(WORDINGS))
def test_a_sentence_of_each_wording_is_taken_apart(relation):
    before, after = WORDINGS[relation]
    found = sentence_of(f"{before} Anna of Rome {after} St. Kilda.".strip(), relation)
    assert (found.subject, found.target) == ("Anna of Rome", "St. Kilda")
    assert found.complete == f"{before} Anna of Rome {after}".strip()


@pytest.mark.parametrize(
    ("text", "relation", "expected"),
    [
        ("The name of the mother of Anna is Berta.", "MOTHER", ("Anna", "The name of the mother of {} is", "Berta")),
        ("The names of the siblings of Anna are Bo.", "SIBLING", ("Anna", "The names of the siblings of {} are", "Bo")),
        ("The place of birth of Anna is Rome", "PLACE_OF_BIRTH", ("Anna", "The place of birth of {} is", "Rome")),
        ("Anna was born in Rome.", "PLACE_OF_BIRTH", None),
        ("The place of birth of {} is Rome.", "PLACE_OF_BIRTH", None),
        ("The place of birth of Anna is Rome.", "MOTHER", None),
        ("The place of birth of Anna is Rome.", None, None),
    ],
)
def test_other_sentences(text, relation, expected):
    found = sentence_of(text, relation)
    assert (found and (found.subject, found.prompt, found.target)) == expected


def test_a_sentence_of_another_form_is_left_out(tmp_path, caplog):
    odd = RECORD | {"edit": {"prompt": "Anna is Syrian.", "relation": "COUNTRY"}}
    assert len(data(tmp_path, odd, RECORD).requests) == 1
    assert "1 record is left out: their sentence is worded in none of the known ways" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edit": "x"}, "`edit` must be {'prompt', 'relation', ...}, got 'x'."),
        ({"edit": RECORD["edit"] | {"original_fact": {"prompt": "Else."}}}, "is not about what the edit is about."),
        ({"edit": RECORD["edit"] | {"original_fact": "x"}}, "the original fact must be {'prompt', ...}"),
        ({"Forgetfulness": "x"}, "`Forgetfulness` must be a list of"),
        ({"Forgetfulness": [{}]}, "a test of forgetfulness must be"),
        ({"Forgetfulness": [ripple_test("A", ["x"], how="XOR")]}, "`test_condition` must be OR or AND, got 'XOR'."),
        ({"Forgetfulness": [{"test_queries": ["A"]}]}, "a query must be {'prompt', 'answers'"),
    ],
)
def test_bad_records_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(EditError) as error:
        data(tmp_path, RECORD, RECORD | changes).setup("fit")
    assert str(error.value).startswith(f"{tmp_path}/popular.json, record 2: ") and message in str(error.value)
