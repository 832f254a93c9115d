import unicodedata

import pytest

from lightning_edit.probes import filled, folded, judging, preserving, subjects, wordings

SUBJECTS, WORDINGS = subjects(), wordings()
ALL_SUBJECTS = [subject for listed in SUBJECTS.values() for subject in listed]
ALL_WORDINGS = [wording for listed in WORDINGS.values() for wording in listed]


def test_there_are_many_subjects_of_many_kinds():
    assert len(ALL_SUBJECTS) >= 2000
    assert len(SUBJECTS) >= 25
    assert min(map(len, SUBJECTS.values())) >= 20


def test_no_subject_is_listed_twice():
    assert len({folded(subject) for subject in ALL_SUBJECTS}) == len(ALL_SUBJECTS)


@pytest.mark.parametrize("texts", [ALL_SUBJECTS, ALL_WORDINGS])
def test_texts_are_plain(texts):
    assert all(isinstance(text, str) and text == " ".join(text.split()) for text in texts)
    assert all(unicodedata.is_normalized("NFC", text) and text.isprintable() for text in texts)
    assert max(map(len, texts)) <= 100


def test_subjects_are_names_alone():
    assert [subject for subject in ALL_SUBJECTS if set(subject) & set('{}()[]";?<>|_')] == ["Life on Mars?"]


def test_each_kind_of_subject_has_its_wordings():
    assert list(WORDINGS) == list(SUBJECTS)
    assert min(map(len, WORDINGS.values())) >= 8
    assert all(len({folded(wording) for wording in listed}) == len(listed) for listed in WORDINGS.values())


def test_each_wording_has_one_place_for_the_subject():
    assert all(wording.count("{}") == 1 and not set(wording.replace("{}", "")) & set("{}") for wording in ALL_WORDINGS)


@pytest.mark.parametrize("kind", WORDINGS)
def test_the_subject_stands_at_the_beginning_in_the_middle_and_at_the_end(kind):
    bare = [wording.removeprefix("The ").rstrip(".?") for wording in WORDINGS[kind]]
    assert any(wording.startswith("{}") for wording in bare)
    assert any(wording.endswith("{}") for wording in bare)
    assert any(not wording.startswith("{}") and not wording.endswith("{}") for wording in bare)


@pytest.mark.parametrize("kind", WORDINGS)
def test_some_wordings_ask_and_others_do_not(kind):
    asks = [wording.endswith("?") for wording in WORDINGS[kind]]
    assert any(asks)
    assert not all(asks)


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("half", [preserving, judging])
def test_each_kind_has_subjects_and_wordings_in_both_halves(kind, half):
    assert len(half(SUBJECTS[kind])) >= 8
    assert len(half(WORDINGS[kind])) >= 2


def test_a_subject_at_the_beginning_gets_a_capital_letter():
    assert filled("{} has which capital?", "the Netherlands") == "The Netherlands has which capital?"
    assert filled("What is the capital of {}?", "the Netherlands") == "What is the capital of the Netherlands?"
