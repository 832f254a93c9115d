"""Where the first sentence of an answer ends."""

import time

import pytest

from lightning_edit.sentences import beginnings, first_sentence

PYTHON = "```python\n"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (" It is Rome.  It is old.", "It is Rome."),
        ("Is it Rome? It is!", "Is it Rome?"),
        ("It is in Rome\nand old", "It is in Rome"),
        ("Rome\nQ: Who?", "Rome"),
        ("", ""),
        # Initials and abbreviations, and where they end a sentence.
        ("J. K. Rowling wrote it. She is British.", "J. K. Rowling wrote it."),
        ("It was George W. Bush. He was old.", "It was George W. Bush."),
        ("It is in St. Louis. Yes", "It is in St. Louis."),
        ("I know Dr. Smith well. He", "I know Dr. Smith well."),
        ("See Prof.  Who\nand more", "See Prof.  Who"),
        ("He is in the U.S. Army there. Yes", "He is in the U.S. Army there."),
        ("He is in the U.S. The end", "He is in the U.S."),
        ("It is a U.S. city. Yes", "It is a U.S. city."),
        ("Er wohnt z.B. in Rom. Sie auch.", "Er wohnt z.B. in Rom."),
        ("\u042d\u0442\u043e \u0410. \u0421. \u041f\u0443\u0448\u043a\u0438\u043d. \u041e\u043d", None),
        ("It is about No. 5 there. Yes", "It is about No. 5 there."),
        ("I would say No. It is not.", "I would say No."),
        ("It was on Jan. 5 then. Yes", "It was on Jan. 5 then."),
        ("He is Martin King Jr. He won.", "He is Martin King Jr."),
        ("It is Apple Inc. in California. Yes", "It is Apple Inc. in California."),
        ("Is it Martin King Jr. Day now? Yes", "Is it Martin King Jr. Day now?"),
        # Lists.
        ("1. Boil some water. Then", "1. Boil some water."),
        ("1. Boil water\n2. Cook", "1. Boil water"),
        ("**1.** Boil some water. Then", "**1.** Boil some water."),
        ("1.\nBoil water", "1.\nBoil water"),
        ("a) Boil some water. Then", "a) Boil some water."),
        ("It was in 1995. Rome won.", "It was in 1995."),
        # What announces something, and fences.
        (PYTHON + "x = 1\ny = 2", PYTHON + "x = 1"),
        (PYTHON + "def f(x):\n    return x\n", PYTHON + "def f(x):\n    return x"),
        ("~~~\nx = 1\ny = 2", "~~~\nx = 1"),
        ("Here is the code:\n\n" + PYTHON + "x = 1\ny", "Here is the code:\n\n" + PYTHON + "x = 1"),
        ("---\nRome is old\nYes", "---\nRome is old"),
        # Too few words.
        ("Sure! Here is a poem. Roses", "Sure! Here is a poem."),
        ("Of course! Here it is. Roses", "Of course! Here it is."),
        ("Sure!\nRome is old. Yes", "Sure!\nRome is old."),
        ("Dear Anna,\nRome is old. Yes", "Dear Anna,\nRome is old."),
        ("Sure.\nRome is old. Yes", "Sure.\nRome is old."),
        ("Certainly.\n\nRome is old", "Certainly.\n\nRome is old"),
        ("Of course. Sure. It is. Yes", "Of course. Sure. It is."),
        ("Yes. It is old. Really", "Yes. It is old."),
        ("\u597d\u7684\u3002\u5df4\u9ece\u3002\u5b83", "\u597d\u7684\u3002\u5df4\u9ece\u3002"),
        # A word may be an answer.
        ("Paris. It is old. Yes", "Paris."),
        ("Yes\nIt is old", "Yes"),
        ("\u5df4\u9ece\u3002\u5b83\u662f", "\u5df4\u9ece\u3002"),
        ("\uc11c\uc6b8. \uadf8\uac83\uc740", "\uc11c\uc6b8."),
        # Markdown, emoji, tags.
        ("**Answer:**\nParis\nYes", "**Answer:**\nParis"),
        ("**Here is the code:**\nx = 1\ny", "**Here is the code:**\nx = 1"),
        ("*Sure!*\nRome is old\nYes", "*Sure!*\nRome is old"),
        ("Sure! \U0001f60a\nRome is old\nYes", "Sure! \U0001f60a\nRome is old"),
        ("Here it is: \u2764\ufe0f\nRome is old\nYes", "Here it is: \u2764\ufe0f\nRome is old"),
        ("<think>\nIt is Rome\nYes", "<think>\nIt is Rome"),
        ("<p>Rome</p>\nYes", "<p>Rome</p>"),
        ("```{r}\nx = 1\ny", "```{r}\nx = 1"),
        (PYTHON.strip() + " title=x\nx = 1\ny", PYTHON.strip() + " title=x\nx = 1"),
        ("```x = 1```\ny", "```x = 1```"),
        # Quotes, other scripts.
        ('She said: "It is Rome." Then he', 'She said: "It is Rome."'),
        ('Who asked: "Is it?" and left? He', 'Who asked: "Is it?" and left?'),
        ("\u5df4\u9ece\u662f\u9996\u90fd\u57ce\u5e02\u3002\u5b83", "\u5df4\u9ece\u662f\u9996\u90fd\u57ce\u5e02\u3002"),
        (
            "\u6771\u4eac\u306f\u9996\u90fd\u3067\u3059\uff01\u306f\u3044",
            "\u6771\u4eac\u306f\u9996\u90fd\u3067\u3059\uff01",
        ),
        (
            "\u5f53\u7136\uff01\u8fd9\u662f\u4e00\u9996\u8bd7\u3002\u597d",
            "\u5f53\u7136\uff01\u8fd9\u662f\u4e00\u9996\u8bd7\u3002",
        ),
        (
            "\u5f7c\u306f\u300c\u306f\u3044\u3002\u300d\u3068\u8a00\u3063\u305f\u3002\u6b21",
            "\u5f7c\u306f\u300c\u306f\u3044\u3002\u300d\u3068\u8a00\u3063\u305f\u3002",
        ),
        # Two words with vowel signs.
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u093f! \u0935\u0939",) * 2,
        (
            "\u092f\u0939 \u0930\u094b\u092e \u0939\u0948\u0964 \u0935\u0939",
            "\u092f\u0939 \u0930\u094b\u092e \u0939\u0948\u0964",
        ),
    ],
)
def test_the_first_sentence(text, first):
    if first is None:
        first = text.rsplit(" ", 1)[0]
    assert first_sentence(text) == first


def test_a_sentence_may_be_as_short_as_is_asked_for():
    assert first_sentence("Rome. It is", words=1) == "Rome." and first_sentence("Sure! Yes", words=1) == "Sure!"
    assert first_sentence("\u7f57\u9a6c\u3002\u5b83", words=1) == "\u7f57\u9a6c\u3002"
    # What has no word is no sentence.
    assert (
        first_sentence("... Rome. It", words=1) == "... Rome." and first_sentence("!!!! !!!!", words=1) == "!!!! !!!!"
    )


def test_what_a_reply_may_begin_with():
    assert list(beginnings("George W. Bush. He\nwas")) == ["George W. Bush. He", "George W. Bush."]
    assert list(beginnings("The U.S. is it. it")) == ["The U.S. is it. it", "The U.S. is it."]
    assert list(beginnings("B. Paris")) == ["B. Paris"] and list(beginnings("")) == [""]
    assert list(beginnings("B. It is", longest=3)) == ["B. It is", "B."] and list(beginnings("B. It", 1)) == ["B. It"]


@pytest.mark.parametrize(
    "text",
    ["word word word A. B " * 8000, "St. " * 8000, "a" * 80000 + ". B", "Sure! " + "! " * 4000, "." * 80000 + "x"],
    ids=["initials", "abbreviations", "letters", "signs", "dots"],
)
def test_long_texts_take_no_time_for_each_pair_of_their_stops(text):
    began = time.process_time()
    first_sentence(text)
    list(beginnings(text, 1000))
    # Tens of seconds where each stop is looked at from the beginning on.
    assert time.process_time() - began < 4
