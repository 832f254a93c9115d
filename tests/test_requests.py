"""What a record must be, and what the refusal of a bad one says."""

import logging
import random
import re

import pytest

from lightning_edit.asking.questions import as_question
from lightning_edit.errors import EditError
from lightning_edit.repetitions import distinct
from lightning_edit.requests import EditRequest, fact_of, replaced_by, still_valid
from lightning_edit.ripples import Query, Ripple
from tests.small_models import make_request


@pytest.mark.parametrize(
    ("name", "value"),
    # An edit may have no subject.
    [("subject", value) for value in ("  \n", "\u200b ", 3)]
    + [(name, value) for name in ("prompt", "target_new") for value in ("", "  \n", "\u200b ", None, 3)],
)
def test_an_empty_field_is_refused_by_name(name, value):
    message = f"record 7: `{name}` must be a text that is not empty, got {value!r}."
    with pytest.raises(EditError, match=f"^{re.escape(message)}$"):
        make_request(**{name: value})


@pytest.mark.parametrize(("prompt", "holes"), [("The tower is in", 0), ("{} and {} are in", 2), ("{subject} is in", 0)])
def test_a_prompt_needs_exactly_one_hole(prompt, holes):
    with pytest.raises(EditError) as error:
        make_request(prompt=prompt)
    assert str(error.value) == (
        f"record 7: the prompt must hold exactly one {{}} where the subject goes, got {holes} in {prompt!r}. "
        "Replace the subject in the prompt by {}."
    )


@pytest.mark.parametrize("value", ["", " ", 5])
def test_a_true_target_is_a_text_or_left_out(value):
    with pytest.raises(EditError, match=r"^record 7: `target_true` must be a text or be left out"):
        make_request(target_true=value)


@pytest.mark.parametrize("true", ["Rome", " Rome", "Rome "])
def test_equal_targets_are_refused_with_a_remedy(true):
    with pytest.raises(EditError, match=r"^record 7: .*nothing to edit. Give another `target_new` or remove the rec"):
        make_request(target_true=true)


@pytest.mark.parametrize("kind", ["paraphrase", "neighborhood", "attribute"])
@pytest.mark.parametrize(
    "prompts",
    [
        pytest.param("The tower is in", id="one text"),
        pytest.param(("",), id="empty text"),
        pytest.param(("The tower is in", 3), id="a number"),
    ],
)
def test_prompts_that_cannot_be_measured_are_refused(kind, prompts):
    with pytest.raises(EditError, match=f"^record 7: .*{kind}_prompts"):
        make_request(**{f"{kind}_prompts": prompts})


def test_a_record_without_a_case_id_is_named_by_its_subject():
    with pytest.raises(EditError, match=r"^the edit of 'Eiffel Tower': "):
        make_request(case_id="", prompt="no hole")
    assert make_request(case_id="").name == "the edit of 'Eiffel Tower'"


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "Rome \ud800"},
        {"case_id": "\ud800"},
        {"locality": [("a", "\ud800")]},
        {"paraphrase_prompts": ["a", "b\ud800"]},
        {"prompt": "{} is \ud800"},
        {"question": "{} is \ud800?"},
        {"subject": "a\ud800"},
        {"target_new": "\udfffa"},
        {"target_true": "\ud800a"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_half_a_character_is_refused(changes):
    with pytest.raises(EditError, match=r"the text '.*\\ud.*' holds half of a surrogate pair, which is no character"):
        make_request(**changes)


def test_half_a_character_in_a_test_is_refused():
    for query in (lambda: Query("a\ud800"), lambda: Query("a", (("b\ud800",),))):
        with pytest.raises(EditError, match="half of a surrogate pair"):
            query()


def test_surrounding_spaces_are_removed():
    request = make_request(subject=" Anna ", target_new=" Rome", target_true="Paris \n")
    assert (request.subject, request.target_new, request.target_true) == ("Anna", "Rome", "Paris")


@pytest.mark.parametrize("subject", ["Anna", "{}", "a {} b", "{0}", "C:\\1"])
def test_the_rewrite_prompt_holds_the_subject_word_for_word(subject):
    assert make_request(subject=subject, prompt="Is {} in {x}?").rewrite_prompt == f"Is {subject} in {{x}}?"


def test_a_hole_in_prompts_about_the_subject_is_the_subject():
    ripple = Ripple("reasoning", (Query("{} stands where?", (("Italy",),)), Query("Where is Rome?", (("Italy",),))))
    request = make_request(
        subject=" Eiffel Tower ",
        paraphrase_prompts=["{} stands in", "Where is the Eiffel Tower? In"],
        generation_prompts=("{} is {}",),
        paraphrase_questions=("Where is {}?",),
        essence_texts=("{} is a tower.",),
        ripples=(ripple,),
    )
    assert request.paraphrase_prompts == ("Eiffel Tower stands in", "Where is the Eiffel Tower? In")
    assert request.generation_prompts == ("Eiffel Tower is Eiffel Tower",)
    assert request.paraphrase_questions == ("Where is Eiffel Tower?",)
    assert request.essence_texts == ("Eiffel Tower is a tower.",)
    assert request.ripples[0].prompts == ("Eiffel Tower stands where?", "Where is Rome?")


@pytest.mark.parametrize("name", ["attribute_prompts", "locality", "neighborhood_prompts"])
def test_a_hole_in_prompts_about_others_is_refused(name):
    with pytest.raises(EditError) as error:
        make_request(**{name: [("{} is in", "Paris")] if name == "locality" else ["The Louvre is in", "{} is in"]})
    assert str(error.value) == (
        f"record 7: `{name}` are about other subjects, so nothing takes the place of {{}} in '{{}} is in'. Write the "
        "other subject there."
    )


@pytest.mark.parametrize("subject", ["", None])
def test_a_hole_without_a_subject_is_plain_text(subject):
    asked = 'What does println!("{}", x) print?'
    request = make_request(subject=subject, prompt=asked, paraphrase_prompts=[asked], locality=[(asked, "x")])
    assert request.rewrite_prompt == asked and request.paraphrase_prompts == (asked,)
    assert request.locality == ((asked, "x"),)
    assert as_question(request).rewrite_prompt == asked


def test_a_subject_that_holds_a_hole_leaves_other_prompts_as_they_are():
    subject = 'println!("{}")'
    request = make_request(subject=subject, paraphrase_prompts=[f"{subject} prints"], neighborhood_prompts=["{} is"])
    assert as_question(request).original.paraphrase_prompts == (f"{subject} prints",)


def test_different_answers_to_one_prompt_are_refused():
    requests = [make_request(), make_request(subject="Anna"), make_request(target_new="Berlin", case_id="9")]
    with pytest.raises(EditError) as error:
        distinct(requests)
    assert str(error.value) == (
        "record 7 and record 9 ask for different answers to 'The Eiffel Tower is located in the city of': "
        "'Rome' and 'Berlin'. Keep one of them."
    )


def test_repetitions_are_made_once_with_a_warning(caplog):
    first, other = make_request(), make_request(prompt="{} stands in")
    with caplog.at_level(logging.WARNING):
        assert distinct([first, other, make_request(case_id="8"), make_request(subject=" Eiffel Tower")]) == [
            first,
            other,
        ]
    assert [record.getMessage() for record in caplog.records] == [
        "2 edits were given more than once; each is made once."
    ]


def test_what_a_repetition_tests_is_tested_too():
    first = make_request(paraphrase_prompts=("a",), neighborhood_prompts=("n",), locality=(("l", "x"),))
    again = make_request(paraphrase_prompts=("b", "a"), neighborhood_prompts=("n",), locality=[("m", "y")], case_id="8")
    (both,) = distinct([first, make_request(), again])
    assert both.case_id == "7" and both.paraphrase_prompts == ("a", "b") and both.neighborhood_prompts == ("n",)
    assert both.locality == (("l", "x"), ("m", "y"))
    assert distinct([first, make_request()])[0] is first


def test_distinct_edits_stay_in_their_order_without_a_warning(caplog):
    requests = [make_request(subject=name) for name in ("c", "a", "b")]
    assert distinct(requests) == requests
    assert not caplog.records


def test_spaces_around_a_fact_do_not_count_and_case_does():
    assert fact_of(make_request(subject=" Anna ", prompt=" {} is at ")) == ("Anna", "{} is at")
    assert fact_of(make_request(subject="anna")) != fact_of(make_request(subject="Anna"))
    with pytest.raises(EditError, match="ask for different answers"):
        distinct([make_request(), make_request(prompt="The {} is located in the city of ", target_new="Berlin")])
    both = [make_request(subject="apple"), make_request(subject="Apple", target_new="Berlin")]
    assert distinct(both) == both


@pytest.mark.parametrize(
    ("subject", "prompt"),
    [("Tower", "The Eiffel {} is located in the city of"), ("", "The Eiffel Tower is located in the city of")],
)
def test_two_answers_to_one_sentence_contradict_each_other_wherever_its_subject_is(subject, prompt):
    first, second = make_request(), make_request(subject=subject, prompt=prompt, target_new="Berlin")
    assert first.rewrite_prompt == second.rewrite_prompt
    with pytest.raises(EditError, match="ask for different answers"):
        distinct([first, second])
    decomposed = [make_request(subject="Zo\u00eb"), make_request(subject="Zoe\u0308", target_new="Berlin")]
    with pytest.raises(EditError, match="ask for different answers"):
        distinct(decomposed)


def test_later_edits_may_replace_earlier_ones_and_go_back_to_them(caplog):
    rome, berlin, other = make_request(), make_request(target_new="Berlin", case_id="8"), make_request(subject="Anna")
    given = [rome, rome, berlin, other, make_request(target_new="Berlin", case_id="9"), rome]
    with caplog.at_level(logging.WARNING):
        kept = distinct(given, replace=True)
    assert kept == [rome, berlin, other, rome]
    assert [entry.getMessage() for entry in caplog.records] == ["2 edits were given more than once; each is made once."]
    assert replaced_by(kept) == {0: 1, 1: 3}
    assert still_valid(kept) == [other, rome]


@pytest.mark.parametrize("seed", range(5))
def test_an_edit_is_replaced_by_the_next_of_its_fact(seed):
    draw = random.Random(seed)
    requests = [make_request(subject=draw.choice("abc"), target_new=draw.choice("xy")) for _ in range(12)]
    expected = {}
    for old, request in enumerate(requests):
        later = [new for new in range(old + 1, 12) if requests[new].subject == request.subject]
        expected |= {old: later[0]} if later else {}
    assert replaced_by(requests) == expected
    assert len(still_valid(requests)) == len({request.subject for request in requests})


def test_a_request_has_defaults_for_all_that_is_not_needed():
    request = EditRequest("Anna", "{} is", "here")
    assert request.target_true is None
    assert request.paraphrase_prompts == request.neighborhood_prompts == request.attribute_prompts == ()


def test_the_name_of_a_record_may_be_a_number():
    assert make_request(case_id=5).case_id == "5"
    with pytest.raises(EditError, match="`case_id` must be a text or a whole number, got None"):
        make_request(case_id=None)
