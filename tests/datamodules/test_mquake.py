"""MQuAKE's cases of several edits, and AKEW's, which also tell them as texts."""

import json
from dataclasses import replace

import pytest

from lightning_edit import Query, Ripple
from lightning_edit.datamodules import AKEW, MQuAKE
from lightning_edit.errors import EditError


def rewrite(subject, new, true, **changes):
    made = {"prompt": "{} is a citizen of", "relation_id": "P27", "subject": subject}
    made |= {"target_new": {"str": new, "id": "Q1"}, "target_true": {"str": true, "id": "Q2"}}
    return made | {"question": f"What is the country of citizenship of {subject}?"} | changes


CASE = {
    "case_id": 12,
    "requested_rewrite": [rewrite("Anna", "Syria", "Denmark"), rewrite("Bo", "Chad", "Norway")],
    "questions": ["Where does Anna's friend live?", "In which land?", "Where?"],
    "answer": "Oslo",
    "answer_alias": ["Kristiania"],
    "new_answer": "N'Djamena",
    "new_answer_alias": ["Fort-Lamy", "N'Djamena"],
    "single_hops": [],
    "new_single_hops": [
        {"question": "?", "cloze": "Anna is a citizen of", "answer": "Syria", "answer_alias": ["SYR"]},
        {"question": "Whose?", "cloze": "", "answer": "Chad", "answer_alias": []},
    ],
    "orig": {"triples": [["Q1", "P27", "Q2"]]},
}
OTHER = CASE | {"case_id": 13, "requested_rewrite": [rewrite("Anna", "Syria", "Denmark")], "questions": ["Who?"]}
TEXT = {"fact_new_uns": "Anna has moved to Syria. She likes it.", "prompt_full": "Anna is a citizen of"}
TEXT |= {"unsfact_triplets_GPT": [{"subject": "Anna", "prompt": "{} moved to", "target": "Syria"}, {"prompt": "x"}]}


def data(kind, tmp_path, *records, **settings):
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return kind(str(path), **settings)


BOTH = (("Anna", "{} is a citizen of"), ("Bo", "{} is a citizen of"))


def multi_hop(*questions, edits=()):
    forms = (("N'Djamena", "Fort-Lamy"),)
    return Ripple("multi_hop", tuple(Query(question, forms) for question in questions), "any", edits=edits)


HOPS = Ripple("instance_wise", (Query("Anna is a citizen of", (("Syria", "SYR"),)), Query("Whose?", (("Chad",),))))
OF_CASE = (multi_hop(*CASE["questions"], edits=BOTH), replace(HOPS, edits=BOTH))


def test_a_case_is_its_edits_and_the_last_one_asks(tmp_path):
    first, second = data(MQuAKE, tmp_path, CASE).requests
    assert (first.subject, first.prompt, first.target_new, first.target_true) == (
        "Anna",
        "{} is a citizen of",
        "Syria",
        "Denmark",
    )
    assert first.question == "What is the country of citizenship of {}?" and first.case_id == second.case_id == "12"
    assert first.ripples == () and second.ripples == OF_CASE


def test_a_shared_edit_is_made_once_and_asks_for_all_its_cases(tmp_path):
    first, second = data(MQuAKE, tmp_path, CASE, OTHER).requests
    assert first.ripples == (multi_hop("Who?"), HOPS) and second.ripples == OF_CASE


def test_cases_are_chosen_whole(tmp_path, caplog):
    assert [r.subject for r in data(MQuAKE, tmp_path, CASE, OTHER, case_ids=[12]).requests] == ["Anna", "Bo"]
    assert [r.case_id for r in data(MQuAKE, tmp_path, CASE, OTHER, edits_per_case=1).requests] == ["13"]
    assert "1 record is left out: they have other than 1 edits (`edits_per_case`)" in caplog.text
    for settings in ({"shuffle": True, "limit": 3}, {"unique_subjects": True}):
        with pytest.raises(EditError, match=r"A case of several edits would lose some of them.*`data\.case_ids`"):
            data(MQuAKE, tmp_path, CASE, **settings)
    assert len(data(MQuAKE, tmp_path, CASE, shuffle=True).requests) == 2


def test_examples_are_put_before_questions(tmp_path):
    shots = tmp_path / "shots.txt"
    shots.write_text("Q: Who sings? A: Anna\nQ: Who plays? A: Bo\n")
    made = data(MQuAKE, tmp_path, OTHER, shots=str(shots)).requests[0]
    assert made.ripples[0] == multi_hop("Q: Who sings? A: Anna\nQ: Who plays? A: Bo\nQ: Who? A:")
    assert made.ripples[1] == HOPS
    shots.write_text("a {} b")
    with pytest.raises(EditError, match=r"`data\.shots`: .*shots.txt holds a \{\}"):
        data(MQuAKE, tmp_path, OTHER, shots=str(shots)).setup("fit")
    with pytest.raises(EditError, match=r"`data\.shots`: "):
        data(MQuAKE, tmp_path, OTHER, shots=str(tmp_path / "absent.txt")).setup("fit")
    with pytest.raises(EditError, match=r"`data\.asked` must hold one \{\}"):
        data(MQuAKE, tmp_path, OTHER, asked="Q:")


def test_fields_may_be_absent(tmp_path):
    bare = {"requested_rewrite": [rewrite("Anna", "Syria", "Denmark", question="Where?")]}
    (request,) = data(MQuAKE, tmp_path, bare | {"answer_extended": ["x"]}).requests
    assert request.ripples == () and request.question is None and request.case_id == "0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"requested_rewrite": []},
            "`requested_rewrite` must be {'subject', 'prompt', 'target_new': {'str'}, ...} or a list",
        ),
        ({"requested_rewrite": ["x"]}, "or a list of them, got ['x']"),
        ({"requested_rewrite": [{"subject": "Anna", "prompt": "{} is"}]}, "the field 'target_new' is missing in"),
        ({"requested_rewrite": [rewrite("Anna", "", "x")]}, "`target_new` must be a text that is not empty"),
        ({"requested_rewrite": [rewrite("Anna", "x", "y", prompt="He is")]}, "holds neither {} nor its subject"),
        ({"questions": {"a": 1}}, "`questions` must be a text or a list of texts"),
        ({"new_single_hops": [{"answer": "x"}]}, "a hop of `new_single_hops` must be {'cloze', 'answer', ...}"),
    ],
)
@pytest.mark.parametrize("kind", [AKEW, MQuAKE], ids=["AKEW", "MQuAKE"])
def test_bad_cases_are_refused_by_name(tmp_path, kind, changes, message):
    with pytest.raises(EditError) as error:
        data(kind, tmp_path, OTHER, CASE | changes).setup("fit")
    assert str(error.value).startswith(f"{tmp_path}/cases.json, record 2: ") and message in str(error.value)


def test_akews_statements_are_those_of_its_three_data_sets(tmp_path):
    flat = {"subject": "Anna", "prompt": "{} lives in", "question": "Where does Anna live?"}
    update = {"requested_rewrite": flat | {"answer_new": "Rome", "answer_true": "Oslo"}, "loc": "Who?", "loc_ans": "Bo"}
    counterfact = {"requested_rewrite": rewrite("Carl", "Syria", "Denmark", **TEXT)}
    counterfact |= {"paraphrase_prompts": ["Carl is from"], "neighborhood_prompts": ["Bo is a citizen of"]}
    first, *case, last = data(AKEW, tmp_path, update, CASE, counterfact).requests
    assert (first.subject, first.prompt, first.target_new, first.target_true) == ("Anna", "{} lives in", "Rome", "Oslo")
    assert first.locality == (("Who?", "Bo"),) and first.question == "Where does {} live?" and first.ripples == ()
    assert [r.subject for r in case] == ["Anna", "Bo"] and case[1].ripples == OF_CASE
    assert last.paraphrase_prompts == ("Carl is from",) and last.neighborhood_prompts == ("Bo is a citizen of",)


def test_akews_texts_need_no_subject_and_test_their_facts(tmp_path):
    counterfact = {"requested_rewrite": rewrite("Anna", "Syria", "Denmark", question=None, **TEXT)}
    counterfact |= {"paraphrase_prompts": ["Anna is from"]}
    case = OTHER | {"requested_rewrite": [rewrite("Anna", "Syria", "Denmark", **TEXT)]}
    first, second = data(AKEW, tmp_path, counterfact, case, form="unstructured").requests
    fact = Ripple("sub_questions", (Query("Anna moved to", (("Syria",),)),))
    assert (first.subject, first.prompt, first.target_new) == ("", "Anna is a citizen of", TEXT["fact_new_uns"])
    assert first.paraphrase_prompts == ("Anna is from",) and first.ripples == (fact,)
    assert second.prompt == "What is the country of citizenship of Anna?"
    assert second.paraphrase_prompts == ("Anna is a citizen of",) and second.ripples == (fact, multi_hop("Who?"), HOPS)
    with pytest.raises(EditError, match="record 1: the field 'fact_new_uns' is missing"):
        data(AKEW, tmp_path, CASE, form="unstructured").setup("fit")
