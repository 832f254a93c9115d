import unicodedata
from collections import defaultdict

import pytest

from lightning_edit.errors import EditError
from lightning_edit.probes import PublicFact, facts, folded, judges, judging, other_answer, preserving

FACTS = facts()
RELATIONS = defaultdict(list)
for one in FACTS:
    RELATIONS[one.relation].append(one)


def test_there_are_many_facts_of_many_relations():
    assert len(FACTS) >= 300
    assert len(RELATIONS) >= 20


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_has_enough_subjects_and_answers_in_both_halves(relation):
    of_it = RELATIONS[relation]
    assert len({folded(fact.subject) for fact in of_it}) == len(of_it) >= 8
    assert len({folded(fact.answer) for fact in of_it}) >= 4
    assert min(sum(judges(fact.subject) for fact in of_it), sum(not judges(fact.subject) for fact in of_it)) >= 4


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_has_one_cloze_and_questions_in_both_halves(relation):
    [(prompt, *ways)] = {(fact.prompt, fact.question, *fact.rewordings) for fact in RELATIONS[relation]}
    assert len(ways) >= 3
    assert len({folded(wording) for wording in (prompt, *ways)}) == len(ways) + 1
    assert all(wording.count("{}") == 1 for wording in (prompt, *ways))
    assert prompt[-1].isalpha()
    assert ways[0].endswith("?")
    assert judging(ways)
    assert preserving(ways)


def test_texts_are_plain_and_short():
    texts = [text for fact in FACTS for text in (fact.subject, fact.answer, fact.prompt, *fact.filled_questions)]
    assert all(text == " ".join(text.split()) and unicodedata.is_normalized("NFC", text) for text in texts)
    assert max(len(fact.answer) for fact in FACTS) <= 35
    assert max(map(len, texts)) <= 150


def test_no_wording_is_used_for_two_relations():
    ways = [
        folded(w) for of_it in RELATIONS.values() for w in (of_it[0].prompt, of_it[0].question, *of_it[0].rewordings)
    ]
    # Buildings take an article and universities do not; folded, both are in the city of their answer.
    assert {way for way in ways if ways.count(way) > 1} == {"{} is located in the city of"}


def test_a_subject_takes_its_place():
    fact = PublicFact("capital", "the Netherlands", "The capital of {} is", "{} has which capital?", "Amsterdam", ())
    assert fact.filled_prompt == "The capital of the Netherlands is"
    assert fact.filled_questions == ("The Netherlands has which capital?",)


@pytest.mark.parametrize("relation", RELATIONS)
def test_another_answer_is_wrong_of_the_same_relation_and_the_same_each_time(relation):
    of_it = RELATIONS[relation]
    answers = {fact.answer for fact in of_it}
    for seed in range(3):
        others = [other_answer(fact, seed, FACTS) for fact in of_it]
        assert all(other in answers and other != fact.answer for fact, other in zip(of_it, others, strict=True))
        assert others == [other_answer(fact, seed, FACTS[::-1]) for fact in of_it]
    assert len(set(others)) > 2


def test_other_seeds_give_other_answers():
    assert len({other_answer(FACTS[0], seed, FACTS) for seed in range(40)}) > 10
    assert other_answer(FACTS[0]) == other_answer(FACTS[0], 0, FACTS)


def test_what_is_right_too_is_no_wrong_answer():
    made = [
        PublicFact("spoken", subject, "", "", answer, ()) for subject, answer in [("A", "x"), ("a", "y"), ("B", "z")]
    ]
    assert {other_answer(made[0], seed, made) for seed in range(20)} == {"z"}
    with pytest.raises(EditError, match="No other answer than 'z' is known for the relation 'spoken'"):
        other_answer(made[2], 0, made[2:])
