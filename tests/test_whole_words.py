"""Whether a text says an answer: whole words and whole numbers, in any script."""

import pytest

from lightning_edit.whole_words import find_whole, says_whole


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is in Rome.", "Rome"),
        ("New\n York", "New York"),
        ("Boeing-747", "747"),
        ("It is 5.", "5"),
        ("in 12, or 13", "12"),
        ("3.5 million", "3.5"),
        ("10 - 5", "5"),
        ("US$5", "$5"),
        ("len(x)", "len("),
        ("纽约市。", "纽约"),
        ("서울입니다.", "서울"),
        ("यह कला है", "कला"),
        ("Pears:\n-6 of them", "6"),
        ("在30年", "30"),
        ("cafe\u0301", "caf\u00e9"),
        # The first place begins within a longer number, and overlaps the right one.
        ("11 1 1", "1 1"),
    ],
)
def test_words_of_their_own_are_said(text, wanted):
    assert says_whole(text, wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Romeo", "Rome"),
        ("12,500 people", "12"),
        ("12,500 people", "500"),
        ("3.5 million", "3"),
        ("3.5 million", "5"),
        ("-5 degrees", "5"),
        ("\u22125 degrees", "5"),
        ("1990", "90"),
        ("कला", "कल"),
        ("대서울", "서울"),
        ("３０年", "３"),
        ("F -16", "16"),
        ("Rome", ""),
        ("Rome", "rome"),
    ],
)
def test_parts_of_longer_words_and_numbers_are_not_said(text, wanted):
    assert not says_whole(text, wanted)


def test_a_place_counts_in_the_text_as_it_stands():
    assert find_whole("Romeo left  Rome.", "Rome") == (12, 16)
    assert find_whole("Rome, Rome", "Rome", start=1) == (6, 10)
    assert find_whole("in ROME", "rome", ignore_case=True) == (3, 7)
