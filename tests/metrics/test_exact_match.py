"""SQuAD's exact match against its script, and where it is told apart what the script does not."""

import re
import string

import pytest

from lightning_edit.metrics.wild.exact_match import exact_match, normalized


def squad(text):
    """The published script's normalization, by its own four steps."""
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@pytest.mark.parametrize(
    "text",
    [
        *("The  Eiffel-Tower.", "A an THE", "an apple, a day", "theatre a", "$5 + 3 = 8", "it's\tO'Brien's\n", ""),
        *("Covid-19, 1,000", "F-16s", "12. It", "No.5", "- 5", "a # b"),
    ],
)
def test_ascii_is_normalized_as_published(text):
    assert normalized(text) == squad(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Caf\u00e9", "cafe\u0301", True),
        ("\uff32ome", "Rome", True),
        ("\u201cRome\u201d \u2026", "rome", True),
        ("\u300c\u7f57\u9a6c\u300d\u3002", "\u7f57\u9a6c", True),
        ("\u00bfRoma?", "roma", True),
        ("Rome\u00a0 city", "Rome city", True),
        ("Rom", "Rome", False),
        ("in Rome", "Rome", False),
        ("the", "a", False),
        ("A", "A", True),
        ("", "A", False),
        ("+", "-", False),
        # There is no empty answer.
        ("", "", False),
        (" ", "\n", False),
        # Articles stay where nothing else would.
        *(
            (said, gold, said.strip("(.)").lower() == gold.lower())
            for gold in "AB"
            for said in ("A.", "(A)", "a", "B.")
        ),
        ("The", "A", False),
        # Signs of numbers and names.
        ("5", "-5", False),
        ("\u22125", "-5", True),
        ("It, -5.", "it -5", True),
        ("35", "3.5", False),
        ("3.5.", "3.5", True),
        (".5", "5", False),
        ("1990\u20131995", "1990-1995", True),
        ("C", "C++", False),
        ("C#.", "C#", True),
        ("A", "A+", False),
        ("A+.", "A+", True),
        ("Paris###", "Paris", True),
        ("Paris +++", "Paris", True),
        ("C+++", "C", True),
        ("-$5", "$-5", True),
        ("-$5", "$5", False),
        ("-\u20ac5", "\u20ac-5", True),
        ("US-$5", "US$5", True),
        ("3/4", "34", False),
        ("1/2", "12", False),
        ("\u00bd", "1/2", True),
        ("10:30", "1030", False),
        ("Answer: 5/", "answer 5", True),
        ("1.000.000", "1,000,000", True),
        ("1.000", "1000", False),
        ("\u20135 items", "-5 items", True),
        ("(\u20135)", "5", True),
        ("\u2013 5 items", "5 items", True),
        ("\u20145 items", "5 items", True),
        ("1990\u20141995", "1990-1995", True),
    ],
)
def test_an_exact_match_is_the_same_but_for_what_does_not_count(one, other, same):
    assert exact_match(one, other) is same
