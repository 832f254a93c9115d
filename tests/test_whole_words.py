"""Words, and whether a text says an answer: whole words and whole numbers, in any script."""

import sys
import time
import unicodedata

import pytest

from lightning_edit.whole_words import find_whole, says_one_of, says_whole, telling_words, unspaced, words_in


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
        ("12 500 people", "12 500"),
        ("12\u00a0500 people", "12 500"),
        ("in 1990 200 people", "1990"),
        ("in 1990 200 people", "200"),
        ("an F16 500 km away", "F16"),
        ("12 50", "12"),
        ("12, 500", "12"),
        ("C\u00f4te d\u2019Ivoire", "C\u00f4te d'Ivoire"),
        ("C\u00f4te d'Ivoire", "C\u00f4te d\u2019Ivoire"),
        ("won 4 100 m races", "4"),
        ("won 4 100 m races", "100"),
        ("Answer: 7 300", "7"),
        ("call 555 123", "555"),
        ("Paris\u00b9", "Paris"),
        ("in 1945\u00b2", "1945"),
        ("5 m\u00b2", "m"),
        ("10\u2075", "10\u2075"),
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
        ("12 500 people", "12"),
        ("12 500 people", "500"),
        ("12\u00a0500 people", "12"),
        ("12\u202f500 people", "500"),
        ("1 234 567", "234"),
        ("1 234 567", "1 234"),
        ("7\u00a0300", "7"),
        ("100 000 people", "100"),
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
    assert find_whole("la C\u00f4te d\u2019Ivoire", "d'Ivoire") == (8, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी कि की कु का", ["हिन्दी", "कि", "की", "कु", "का"]),
        ("كَتَبَ الوَلَدُ", ["كَتَبَ", "الوَلَدُ"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("Cafe\u0301 Zu\u0308rich", ["Caf\u00e9", "Z\u00fcrich"]),
        ("It's snake_case: 3.5", ["It", "s", "snake_case", "3", "5"]),
        ("我是Anna。", ["我", "是", "Anna", "。"]),
        ("\u0301 -", []),
        ("", []),
    ],
)
def test_words_have_their_marks_and_are_in_one_form(text, words):
    assert words_in(text) == words


def test_raised_digits_are_no_part_of_a_word():
    assert words_in("Paris\u00b9 10\u2075 H\u2082O") == ["Paris", "10", "H\u2082O"]


def test_numbers_with_spaces_are_looked_for_around_the_place_only():
    began = time.process_time()
    assert find_whole("12 500 " * 8000, "12") is None
    # Twenty seconds where each is looked for in the whole text.
    assert time.process_time() - began < 4


def test_every_mark_is_part_of_a_word():
    marks = (chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)).startswith("M"))
    texts = [f"a{mark}b" for mark in marks if not unspaced(mark)]
    assert len(texts) > 2000
    assert [text for text in texts if len(words_in(text)) != 1] == []


def test_telling_words_are_longer_than_a_letter_but_where_each_is_a_word():
    assert telling_words("a का I am 東京") == ["का", "am", "東", "京"]


def test_any_case_and_form_of_one_of_the_answers_will_do():
    assert says_one_of("Water is h\u2082o", ["ice", "H2O"]) and says_one_of("H2O", ["h\u2082o"])
    assert says_one_of("cafe\u0301", ["CAF\u00c9"])
    assert says_one_of("Paris\u00b9", ["Paris"]) and says_one_of("In 1945\u00b2", ["1945"])
    assert says_one_of("10\u2075", ["10"]) and says_one_of("10\u2075", ["10\u2075"]) and says_one_of("Go\u2122", ["go"])
    for text, answer in (("10\u2075", "105"), ("5\u00b2", "52"), ("H\u2082O", "H"), ("7\u00a0300", "7")):
        assert not says_one_of(text, [answer]), text
    assert not says_one_of("H2O2", ["H2O"]) and not says_one_of("anything", [])
