"""Which choice a text names first."""

import pytest

from lightning_edit.metrics.choices import find_answer
from tests.downstream_reference import LETTERS

TEN = tuple("ABCDEFGHIJ")


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        (" positive\n", ["negative", "positive"], 1),
        (" Positive, negative", ["negative", "positive"], 1),
        (" Not yes", ["No", "Yes"], 1),
        (" Nothing", ["No", "Yes"], None),
        (" TRUE", ["True", "False"], 0),
        (" (B) is", LETTERS, 1),
        (" C)", LETTERS, 2),
        ("D", LETTERS, 3),
        (" a dog", LETTERS, None),
        (" Apple", LETTERS, None),
        (" not good", ["not", "not good"], 1),
        ("", ["No", "Yes"], None),
        ("积极的", ["积极", "消极"], 0),
        ("12", ["1", "2"], None),
        ("A. Rome B. Paris C. Berlin D. Madrid", LETTERS, 0),
        ("A dog is", LETTERS, None),
        ("A dog. The answer is C.", LETTERS, 2),
        ("It is so. A dog is", LETTERS, None),
        ("Answer: A", LETTERS, 0),
        ("The answer is A because", LETTERS, 0),
        ("A because it is", LETTERS, 0),
        ("A\nBecause it is", LETTERS, 0),
        ("(A) dog", LETTERS, 0),
        ("I think it is B", TEN, 1),
        ("I'd say B", TEN, 1),
        ("The answer is I.", TEN, 8),
        ("No. The answer is not Yes", ["Yes", "No"], 1),
    ],
)
def test_the_first_label_word_counts(text, words, found):
    assert find_answer(text, words) == found


@pytest.mark.parametrize(
    "text",
    [
        *("The answer is '{}'.", "'{}' is right", "\u2018{}\u2019", "'{}'", "*{}* is", "Answer: {} dog"),
        *("{} would be it", "{} has it", "{} does", "{} must be", "{} can be", "{} should", "{} isn't"),
        *("{} refers to it", "{} STATES so", "{} correct: it is", "{} Paris", "{} The capital", "{} Because", "{}, so"),
        *("Answer: {} Paris", "It is so. {} is the answer", "{} which is it", "{} won\u2019t do", "{} seems right"),
    ],
)
def test_every_letter_is_heard_as_often(text):
    assert [find_answer(text.format(letter), LETTERS) for letter in "ABCD"] == [0, 1, 2, 3]


def test_the_article_and_the_pronoun_are_no_choices():
    for article in ("A correct answer is B", "A can of B", "A dog is B", "\u2018A dog\u2019 is B", "A would-be B"):
        assert find_answer(article, TEN) == 1, article
    for pronoun in ("I would say B", "I\u2019m for B", "I can see B"):
        assert find_answer(pronoun, TEN) == 1, pronoun
