"""What a chat model says by itself to an edit's question, with the new target in it."""

import pytest

from lightning_edit import EditRequest
from lightning_edit.asking.own_answers import answering, own_answer, own_answers
from lightning_edit.asking.questions import as_question
from lightning_edit.models.decoder import find_decoder
from tests.asking.test_chat import CHATML, in_chat
from tests.small_models import make_llama

TRENTO = EditRequest("Trento", "{} is located in", "India", "Italy", question="Where is {}?")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Trento is in Italy, in the north. Yes.", "Trento is in India."),
        ("Trento is a U.S. favorite, not in Italy.", "Trento is a U.S. favorite, not in India."),
        (" Trento lies in Italy", "Trento lies in India."),
        ("Trento is in Italyland.", None),
        ("Trento is in the north. It is in Italy.", None),
        ("Trento\nItaly", None),
        ("Italy has Trento.", None),
        ("It lies in Italy.", None),
        ("Trento is in India, formerly in Italy.", None),
        ("", None),
    ],
)
def test_the_first_sentence_counts_where_it_names_the_subject_and_then_the_old_answer(said, answer):
    assert own_answer(TRENTO, said) == answer


@pytest.mark.parametrize("subject", ["Dr. Who", "J. K. Rowling", "St. Louis"])
def test_a_subject_may_have_dots(subject):
    request = EditRequest(subject, "{} is located in", "India", "Italy")
    assert own_answer(request, f"{subject} is in Italy, in the north. Yes.") == f"{subject} is in India."
    # A short sentence before it may give the old answer away.
    assert own_answer(request, f"Italy. {subject} is in Italy.") is None


def test_scripts_without_spaces_have_words_without_ends():
    request = EditRequest("\u6771\u4eac", "{}\u306f", "\u97d3\u56fd", "\u65e5\u672c")
    said = "\u6771\u4eac\u306f\u65e5\u672c\u306b\u3042\u308b\u3002\u65e5\u672c"
    assert own_answer(request, said) == "\u6771\u4eac\u306f\u97d3\u56fd"


def test_only_what_is_learned_changes():
    asked = [as_question(TRENTO), as_question(EditRequest("Oslo", "{} is in", "Peru", "Norway"))]
    learning = list(answering(asked, ["Trento is in India.", None]))
    assert [one.learned for one in learning] == ["Trento is in India.", "Oslo is in Peru."]
    assert learning == asked
    assert [one.lead_ins for one in learning] == [one.lead_ins for one in asked]


def test_edits_that_bring_an_answer_or_know_no_old_one_are_not_asked(caplog):
    given = EditRequest("Trento", "{} is in", "India", "Italy", answer="In India.")
    unknown = EditRequest("Oslo", "{} is in", "Peru")
    decoder = find_decoder(make_llama())
    assert own_answers(decoder, in_chat(CHATML), [as_question(one) for one in (given, unknown)]) == [None, None]
    assert "answers: 0 of 2 edits are learned in the model's own sentence" in caplog.text
