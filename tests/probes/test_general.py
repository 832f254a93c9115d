import unicodedata
from collections import Counter

import pytest

from lightning_edit.probes import (
    GeneralPrompt,
    facts,
    folded,
    general_prompts,
    judges,
    judging_prompts,
    preserving_prompts,
    subjects,
    wordings,
)
from lightning_edit.probes.general import named_subjects

PROMPTS = general_prompts()
LEAST = {"fact": 90, "arithmetic": 25, "instruction": 30, "code": 20, "language": 30, "talk": 10, "reasoning": 10}
NAMES = {
    tuple(folded(name).replace("-", " ").split()): judges(name)
    for listed in subjects().values()
    for name in listed
    if name.isascii() and name.replace(" ", "").replace("-", "").isalpha() and not name.startswith("The ")
}


def test_there_are_enough_prompts_of_each_kind():
    assert all(Counter(prompt.kind for prompt in PROMPTS)[kind] >= least for kind, least in LEAST.items())
    assert {prompt.kind for prompt in PROMPTS} == set(LEAST)


def test_prompts_and_answers_are_plain_short_and_different():
    assert len({folded(prompt.prompt) for prompt in PROMPTS}) == len(PROMPTS)
    texts = [text for prompt in PROMPTS for text in (prompt.prompt, *prompt.answers)]
    assert all(text == text.strip() and unicodedata.is_normalized("NFC", text) and text.isprintable() for text in texts)
    assert max(len(prompt.prompt) for prompt in PROMPTS) <= 250
    assert max(len(answer) for prompt in PROMPTS for answer in prompt.answers) <= 20


def test_facts_and_sums_have_answers_and_talk_is_open():
    assert all(prompt.answers for prompt in PROMPTS if prompt.kind in ("fact", "arithmetic"))
    assert not any(prompt.answers for prompt in PROMPTS if prompt.kind == "talk")


def test_no_prompt_holds_its_answer():
    # A reply that merely repeats the question would be right.
    given = [p.prompt for p in PROMPTS if p.answered_by(p.prompt) and not p.prompt.startswith("Repeat")]
    assert given == []


def test_the_prompts_are_in_two_halves_each_large_enough_and_of_all_kinds():
    one, other = judging_prompts(), preserving_prompts()
    assert len(one) >= 200
    assert len(other) >= 150
    assert {prompt.kind for prompt in one} == {prompt.kind for prompt in other} == set(LEAST)
    assert Counter(one + other) == Counter(PROMPTS)
    assert {folded(prompt.prompt) for prompt in one}.isdisjoint(folded(prompt.prompt) for prompt in other)


def test_no_prompt_names_a_subject_of_the_other_half():
    for half, prompts in ((True, judging_prompts()), (False, preserving_prompts())):
        named = [(prompt.prompt, name) for prompt in prompts for name in named_subjects(prompt.prompt, NAMES)]
        assert len(named) > 50
        assert [pair for pair in named if NAMES[pair[1]] is not half] == []


def test_no_prompt_is_in_a_wording_of_the_other_half():
    ways = {folded(wording) for listed in wordings().values() for wording in listed}
    ways |= {folded(wording) for fact in facts() for wording in (fact.prompt, fact.question, *fact.rewordings)}
    for half, prompts in ((True, judging_prompts()), (False, preserving_prompts())):
        blanked = {
            folded(prompt.prompt.casefold().replace(article + " ".join(name), "{}"))
            for prompt in prompts
            for name in named_subjects(prompt.prompt, NAMES)
            for article in ("", "the ")
        }
        assert len(blanked & ways) > 4
        assert {way for way in blanked & ways if judges(way) is not half} == set()


def test_of_one_name_inside_another_the_longer_counts():
    known = {("brandenburg",), ("brandenburg", "gate"), ("rome",)}
    assert named_subjects("From Rome to the Brandenburg  gate.", known) == [("rome",), ("brandenburg", "gate")]
    assert named_subjects("A romeo?", known) == []


@pytest.mark.parametrize(
    ("answers", "text", "right"),
    [
        (("Paris",), "The capital of France is paris.", True),
        (("Paris",), "Parisian cafés", False),
        (("4", "four"), "It is 14.", False),
        (("4", "four"), "Four.", True),
        (("H2O", "H₂O"), "Water is H₂O", True),
        (("#",), "With #, as in: # a comment", True),
        (("東京",), "日本の首都は東京です。", True),
        (("서울",), "수도는 서울입니다.", True),
        (("Москва",), "Это москва!", True),
        (("x * x", "x**2"), "def square(x): return x**2", True),
        (("carbon dioxide",), "carbon monoxide", False),
        (("yes",), "", False),
        ((), "Anything.", None),
    ],
)
def test_an_answer_counts_where_it_stands_as_words(answers, text, right):
    assert GeneralPrompt("?", answers, "fact").answered_by(text) is right
