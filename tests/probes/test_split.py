import pytest

from lightning_edit.errors import EditError
from lightning_edit.probes import asked_about, filled, folded, judges, judging, preserving, subjects, wordings


def questions(*args, **kwargs):
    return [wording.replace("{}", subject) for wording, subject in asked_about(*args, **kwargs)]


@pytest.mark.parametrize("listed", [subjects(), wordings()])
def test_the_halves_are_disjoint_and_of_about_the_same_size(listed):
    texts = {text for of_kind in listed.values() for text in of_kind}
    one, other = set(judging(texts)), set(preserving(texts))
    assert one | other == texts
    assert {folded(text) for text in one}.isdisjoint(folded(text) for text in other)
    assert 0.4 < len(one) / len(texts) < 0.6


@pytest.mark.parametrize("text", ["Netherlands", "Where is {}?", "Kraków", "straße"])
def test_case_spaces_articles_and_the_mark_at_the_end_do_not_change_the_half(text):
    variants = (text.upper(), text.lower(), f"  {text}", f"the {text}", f"The  {text}.", text.rstrip("?"))
    assert {folded(variant) for variant in variants} == {folded(text)}
    assert len({judges(variant) for variant in variants}) == 1


def test_the_half_never_changes():
    # A text that moved would judge a model that was preserved with it by an earlier version.
    texts = ["France", "Paris", "Eiffel Tower", "William Shakespeare", "Where is {}?", "What is the capital of {}?"]
    assert judging(texts) == ["Eiffel Tower", "Where is {}?"]


def test_what_preserves_shares_no_subject_or_wording_with_what_judges():
    found = {}
    asked_in = wordings()
    for kind, listed in subjects().items():
        for wording in asked_in[kind]:
            for subject in listed:
                found[folded(filled(wording, subject))] = (judges(subject), judges(wording))
    assert {found[folded(question)] for question in questions(3000, seed=0)} == {(False, False)}


def test_the_same_seed_gives_the_same_questions_and_more_begin_with_those_of_fewer():
    assert questions(50, seed=3) == questions(200, seed=3)[:50]
    assert questions(50, seed=3) != questions(50, seed=4)
    assert len(set(questions(2000, seed=3))) == 2000


def test_a_sample_holds_each_kind_once():
    kinds, asked_in = subjects(), wordings()
    ways = {kind: {filled(w, s) for s in listed for w in asked_in[kind]} for kind, listed in kinds.items()}
    asked = set(questions(len(kinds), seed=1))
    assert all(asked & ways[kind] for kind in kinds)


def test_edited_subjects_are_left_out():
    about_it = {filled(wording, "Arc de Triomphe") for wording in preserving(wordings()["buildings"])}
    everything = 11_000
    assert about_it & set(questions(everything, seed=0))
    assert not about_it & set(questions(everything, seed=0, left_out=["the arc de triomphe"]))


def test_too_many_questions_are_refused():
    with pytest.raises(EditError, match=r"10,000,000 questions about public subjects were asked for, but there are"):
        questions(10_000_000, seed=0)
