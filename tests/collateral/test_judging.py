"""When an answer changed for the worse, and which changes are shown first."""

import pytest

from lightning_edit.collateral import KINDS, Asked, Budget, Probe, figures_of, judge, worst
from lightning_edit.collateral.judging import loops, says
from lightning_edit.probes import GeneralPrompt

PARIS = Probe("general", "What is the capital of France?", ("Paris",), before=" It is Paris. A big city.")


@pytest.mark.parametrize(
    ("probe", "after", "why"),
    [
        (PARIS, "paris, of course", None),
        (PARIS, "L'Alma, la France", "answer lost"),
        (PARIS, " ", "answer lost"),
        (Probe("general", "Hello", before="Hi"), "", "empty"),
        (Probe("general", "Hello", before=""), " \n", None),
        (Probe("same_subject", "Tell me about Darmstadt.", before="It is a city."), "!!!!!!!!!!", "empty"),
        (Probe("other_subjects", "Big Ben is in", before="London"), ". . . . .", "empty"),
        (Probe("general", "Hello", before="Hi"), "\ufffd\ufffd\ufffd ____", "empty"),
        (Probe("general", "Hello", before="?"), "!!!!", None),
        (Probe("general", "Hello", before="Hi"), "111111111111", "loop"),
        (Probe("general", "Hello", before="Hi"), "Hi!!!!!!!!!!!!", "loop"),
        (Probe("general", "Tell me more.", before="Hi"), "Names\n------------------\nAnna", None),
        (Probe("general", "Hello", before="Hi"), "Hi there and there and there and there", "loop"),
        (Probe("general", "Hello", before="no no no no"), "no no no no no", None),
        (Probe("general", "2 + 2 =", ("4",), before="5"), "6", None),
        (Probe("other_subjects", "Big Ben is in", unwanted="Rome", before="London"), "Rome", "new object taken over"),
        (Probe("other_subjects", "Big Ben is in", unwanted="Rome", before="Rome"), "Rome", None),
        (Probe("other_subjects", "Big Ben is in", unwanted="Rome", before="London"), "Romeo", None),
        (Probe("reworded", "Where is it?", ("Rome",), before="Paris"), "in rome", None),
        (Probe("reworded", "Where is it?", ("Rome",), before="Rome"), "in Paris", "edit not said"),
    ],
)
def test_a_change_for_the_worse_has_a_reason(probe, after, why):
    assert judge(probe, after).why == why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L'Etoile, la Marseur, la France, la France, la France", True),
        ("I do not know what I do not know what I", True),
        ("hahahahahaha", True),
        ("巴黎是首都。巴黎是首都。", True),
        ("New York, New York is a song", False),
        ("It is very, very, very big", False),
        ("1000000000000", False),
        ("हि हा हु हे", False),
        ("हि हि हि हि", True),
        ("for i in range(10): print(i)\nfor j in range(10): print(j)", False),
        ("", False),
    ],
)
def test_a_loop_is_a_phrase_several_times_in_a_row(text, expected):
    assert loops(text) is expected


@pytest.mark.parametrize(("text", "answer"), [("H\u2082O", "H2O"), ("in PARIS", "Paris"), ("Parisian", "Paris")])
def test_what_was_right_before_the_edits_is_right_by_one_rule(text, answer):
    assert says(text, [answer]) is GeneralPrompt("?", (answer,), "fact").answered_by(text) is (text != "Parisian")


def test_an_answer_has_changed_where_its_first_sentence_has():
    assert not judge(PARIS, "It is  Paris. But who knows").changed
    assert judge(PARIS, "It is Paris, a big city.").changed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("```python\ndef f(x):", "```python\nwhile True: Rome Rome"),
        ("1. Boil water", "1. Rome is a city in"),
        ("Sure! Here is a poem", "Sure! Rome Rome"),
        ("Here is the code:\n```\nx = 1", "Here is the code:\n```\nRome"),
        ("Dr. Smith said so.", "Dr. Rome Rome"),
        ("St. Petersburg is a city.", "St. Louis is a city."),
    ],
)
def test_answers_that_begin_alike_are_not_the_same(before, after):
    assert judge(Probe("general", "Hello", before=before), after).changed
    assert not judge(Probe("general", "Hello", before=before), before).changed


def test_failures_come_before_other_changes_and_kinds_take_turns():
    probes = [Probe("general", f"question {i}", ("yes",), before="yes") for i in range(4)]
    probes += [Probe("old_object", f"city {i}", ("Paris",), before="Paris") for i in range(2)]
    probes += [Probe("reworded", f"edit {i}", ("Rome",), before="Paris") for i in range(2)]
    after = ["no", "no", "yes!", "yes", "Rome", "Paris", "Rome", "Oslo"]
    found = worst(probes, [Asked(text, 0.5) for text in after], number=5)
    assert [line["prompt"] for line in found] == ["question 0", "city 0", "question 1", "edit 1", "question 2"]
    assert [line["worse"] for line in found] == ["answer lost"] * 3 + ["edit not said", None]
    figures = figures_of(probes, [Asked(text, 0.5 if i < 4 else None) for i, text in enumerate(after)])
    assert {name: value for name, value in figures.items() if not name.endswith(("_n", "_stderr"))} == {
        "general_changed": 0.75,
        "general_worse": 0.5,
        "general_lost": 0.5,
        "general_kl": 0.5,
        "old_object_lost": 0.5,
        "reworded_said": 0.5,
        "kept": 0.5,
    }
    assert set(KINDS) >= {line["kind"] for line in found}
    assert figures_of([], []) == {}


def test_the_number_of_edits_decides_how_much_is_asked():
    assert [Budget.of_run(edits).prompts for edits in (1, 5, 64, 10_000)] == [26, 50, 400, 400]
    assert Budget(9).of_a_kind == 2
