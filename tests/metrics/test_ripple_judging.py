"""Whether a reply is right: what it says, what it chooses, and whether it is the answer alone."""

import pytest

from lightning_edit import Query, Ripple
from lightning_edit.errors import EditError
from lightning_edit.metrics.ripples.judging import chooses, is_exactly, reply_of, says_all
from lightning_edit.request_texts import described
from tests.small_models import make_request


def test_replies():
    assert reply_of(" Rome\nQ: Who?\nA: Paris") == "Rome"
    assert reply_of("It is in Rome.", "It is in") == "Rome."
    assert says_all("in Rome.", [["Roma", "Rome"]]) and not says_all("in Romeo", [["Rome"]])
    assert says_all("7 of them", [["7"]]) and not says_all("A man", [["A", "Anna"]]) and says_all("D. Rome", [["D"]])
    assert says_all("anything", [])
    assert is_exactly("the Rome!\nIt", [["rome"]]) and is_exactly("Washington, D.C.", [["Washington D.C."]])
    # Of such answers nothing is left without articles.
    assert is_exactly("A", [["A"]]) and not any(is_exactly(reply, [["A"]]) for reply in ("", "...", "The"))
    assert not is_exactly("काला", [["कल"]])
    assert not is_exactly("Rome and Paris", [["Rome"]]) and not is_exactly("Rome", [["Rome"], ["Rome"]])


def test_an_answer_with_dots_can_be_exact():
    for answer in ("J. K. Rowling", "St. Louis", "George W. Bush", "Washington, D.C.", "1995"):
        for reply in (answer, f"{answer}.", f"{answer}. It is", f"{answer}\nIt is"):
            assert is_exactly(reply, [[answer]]), reply
        assert not is_exactly(f"{answer} is it. It", [[answer]])
    assert is_exactly("A.", [["A"]]) and is_exactly("(A)", [["A"]]) and not is_exactly("B. Paris", [["B"]])


def test_the_first_choice_named_is_the_answer_to_a_closed_question():
    letters = "A. Rome B. Paris C. Berlin D. Madrid"
    assert [chooses(letters, [[gold]], "ABCD") for gold in "ABCD"] == [True, False, False, False]
    assert not chooses("A dog is", [["A"]], "ABCD") and chooses("A) Rome", [["A"]], "ABCD")
    assert not chooses("No. The answer is not Yes", [["Yes"]], ("Yes", "No"))
    assert chooses("no, it is", [["No"]], ("Yes", "No")) and not chooses("It is", [["No"]], ("Yes", "No"))


def test_choices_hold_the_only_answer():
    for answers in ((("Yes",), ("No",)), (("Maybe",),), ()):
        with pytest.raises(EditError, match=r"has the choices .* so it needs one answer, which is one of them"):
            Query("Is it?", answers, ("Yes", "No"))
    for choices in ("Yes", ("Yes", ""), 3):
        with pytest.raises(EditError, match=r"choices of 'Is it\?' must be a list of texts"):
            Query("Is it?", (("Yes",),), choices)
    # Questions without any are described as before there were choices.
    assert repr(Query("Is it?", (("Yes",),))) == "Query(prompt='Is it?', answers=(('Yes',),))"
    plain, closed = (
        make_request(ripples=[Ripple("yes_no", (Query("Is it?", (("Yes",),), choices),))])
        for choices in ((), ("Yes", "No"))
    )
    assert described(plain) != described(closed) and "choices" not in described(plain)
    # Nor is a record another one by choices that follow from its data set.
    implied = make_request(ripples=[Ripple("yes_no", (Query("Is it?", (("Yes",),), ("Yes", "No"), implied=True),))])
    assert described(implied) == described(plain) and implied == closed


def test_initials_are_an_answer_where_a_sentence_begins_behind_them():
    for reply, answer in (("U.S. The country is", "U.S."), ("U.S. It", "US"), ("D.C. It is", "D.C."), ("C. It", "C")):
        assert is_exactly(reply, [[answer]]), reply
    assert is_exactly("Apple Inc. It is", [["Apple Inc."]]) and is_exactly("Apple Inc.", [["Apple Inc."]])
    for reply, answer in (
        ("Martin Luther King Jr. Day", "Martin Luther King Jr."),
        ("Apple Inc. Store", "Apple Inc."),
        ("U.S. Army", "U.S."),
        ("B. Paris", "B"),
    ):
        assert not is_exactly(reply, [[answer]]), reply
