"""Words in any script: those of a text, and whether it says an answer as words of its own and whole numbers."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# Scripts that put no space between words, with their punctuation: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and
# Japanese. Korean has spaces.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
# Korean has spaces, but writes particles right behind a word.
HANGUL = ("\uac00", "\ud7a3")
# A sign makes another number of a number.
MINUS = "-\u2212"
# Numbers of footnotes and powers.
RAISED = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
_RAISED = re.compile(f"[{RAISED}]")
# Thousands may be set apart by a space that does not break, a thin one, or a thin one that does not break. A plain
# space may as well stand between two numbers.
_THOUSANDS_SPACES = "\u00a0\u2009\u202f"
_SPACED_NUMBER = re.compile(
    rf"(?<!\w)(?:\d{{1,3}}(?:[{_THOUSANDS_SPACES}]\d{{3}})+|\d{{1,3}}(?: \d{{3}}){{2,}}|\d{{2,3}} \d00)(?!\d)"
)
# No number that is written with spaces is longer.
_LONGEST = 40
# NFKC makes letters and digits of raised ones, and plain spaces of all.
_LOOSE = re.compile(rf"[^{RAISED}\u2120\u2122{_THOUSANDS_SPACES}]+")
_APOSTROPHES = str.maketrans("\u2019", "'")


def unspaced(text: str) -> bool:
    """Whether a text begins in a script that puts no space between words.

    Args:
        text: The text.
    """
    return bool(_UNSPACED.match(text))


def words_in(text: str) -> list[str]:
    """The words of a text, in NFC: letters, digits and underscores with their marks, such as Indic vowel signs.

    Of a script without spaces each character is a word, a mark or a sign of punctuation too. Raised digits are no part
    of a word, as they are numbers of footnotes or powers.

    Args:
        text: The text.

    Example:
        >>> words_in("It's हिन्दी, in 東京")
        ['It', 's', 'हिन्दी', 'in', '東', '京']
    """
    return _word().findall(unicodedata.normalize("NFC", text))


@cache
def _word() -> re.Pattern[str]:
    # `\w` leaves out the marks. They are sought when first needed, as that takes a while, and not among ideographs.
    places = (*range(0x300, 0x20000), *range(0xE0000, 0xE0200))
    marks = [mark for mark in map(chr, places) if _is_mark(mark) and not unspaced(mark)]
    common, rare = ("".join(mark for mark in marks if (mark < "\U00010000") is low) for low in (True, False))
    # A class with rare ones is slow, so one look ahead says whether it is worth it.
    letter, mark = rf"[^\W{UNSPACED}{RAISED}]", rf"(?:[{common}]|(?=[\U00010000-\U000e01ff])[{rare}])"
    return re.compile(rf"[{UNSPACED}]|{letter}++(?:{mark}++{letter}*+)*+")


def telling_words(text: str) -> list[str]:
    """Those of `words_in` that tell one text from another: of two characters or more, as scikit-learn has it.

    Args:
        text: The text.
    """
    return [word for word in words_in(text) if len(word) > 1 or unspaced(word)]


def find_whole(text: str, wanted: str, start: int = 0, ignore_case: bool = False) -> tuple[int, int] | None:
    """Where some words first stand in a text, not as parts of longer words or numbers; white space may differ.

    Scripts without spaces, such as Chinese and Japanese, do not show where a word ends, so there the characters alone
    count. A Korean word may have a particle behind it. A curly apostrophe is a straight one. A raised digit, of a
    footnote or a power, is no part of the word or number before it.

    A number may have spaces between its thousands, such as those that do not break. Plain ones count as such where
    there are two or more (``1 234 567``), or two or three digits before hundreds (``12 500``). Others stand between
    two numbers: ``4 100 m races`` says 4, ``555 123`` says 555.

    Args:
        text: Where to look.
        wanted: The words.
        start: From which character on.
        ignore_case: Whether case does not count.

    Returns:
        The first character and the one behind the last; None where they do not stand in it, or `wanted` is blank.

    Example:
        >>> find_whole("Romeo left Rome.", "Rome"), find_whole("12,500 people", "12"), find_whole("in 12, or 13", "12")
        ((11, 15), None, (3, 5))
    """
    # As many characters as before, so that places stay.
    text, wanted = text.translate(_APOSTROPHES), wanted.translate(_APOSTROPHES)
    words = r"\s+".join(re.escape(word) for word in wanted.split())
    if not words:
        return None
    # Looked for ahead, as a place may begin within one that is no whole word.
    pattern = re.compile(f"(?=({words}))", re.IGNORECASE if ignore_case else re.NOFLAG)
    spans = (match.span(1) for match in pattern.finditer(text, start))
    return next((span for span in spans if not (_goes_before(text, span[0]) or _goes_on(text, span[1]))), None)


def says_whole(text: str, wanted: str) -> bool:
    """Whether some words stand in a text, see `find_whole`; of what Unicode can write in two ways both are the same.

    Args:
        text: Where to look.
        wanted: The words.
    """
    return find_whole(plainly(text), plainly(wanted)) is not None


def says_one_of(text: str, answers: Iterable[str]) -> bool:
    """Whether a text says one of some answers, see `find_whole`, in whatever case and form of their characters (NFKC).

    A lowered digit is the digit. A raised one is not: ``10\u2075`` says 10, and not 105.

    Args:
        text: Where to look.
        answers: Accepted answers.

    Example:
        >>> says_one_of("Water is h\u2082o.", ["H2O"])
        True
    """
    said = _loosely(text)
    return any(says_whole(said, _loosely(answer)) for answer in answers)


def plainly(text: str) -> str:
    """A text in which characters that Unicode can write in two ways are written in one (NFC), and so are apostrophes.

    Args:
        text: The text.
    """
    return unicodedata.normalize("NFC", text).translate(_APOSTROPHES)


def _loosely(text: str) -> str:
    return _LOOSE.sub(lambda part: unicodedata.normalize("NFKC", part[0]), text).casefold()


def _goes_before(text: str, start: int) -> bool:
    """Whether a word or number that begins there began earlier."""
    first, before, further = text[start], text[max(0, start - 1) : start], text[max(0, start - 2) : max(0, start - 1)]
    if not before or not _is_joined(first):
        return False
    # A dash at the beginning of a line stands before an item of a list.
    minus = before in MINUS and further != "\n" and not is_letter(further)
    if first.isdecimal() and (minus or (before in ".," and further.isdecimal()) or _within_spaced_number(text, start)):
        return True
    return _is_joined(before)


def _goes_on(text: str, end: int) -> bool:
    """Whether a word or number that ends there goes on."""
    last, behind, further = text[end - 1], text[end : end + 1], text[end + 1 : end + 2]
    if not behind or not _is_joined(last):
        return False
    if last.isdecimal() and ((behind in ".," and further.isdecimal()) or _within_spaced_number(text, end)):
        return True
    return _is_joined(behind) and not HANGUL[0] <= last <= HANGUL[1]


def _within_spaced_number(text: str, place: int) -> bool:
    """Whether a number such as "12 500" goes on there, between two of its groups."""
    if not (text[place - 1].isspace() or text[place].isspace()):
        return False
    near = _SPACED_NUMBER.finditer(text, max(0, place - _LONGEST), place + _LONGEST)
    return any(match.start() < place < match.end() for match in near)


def _is_joined(character: str) -> bool:
    """Whether it is one word with the letters beside it; numbers are numbers in all scripts."""
    return is_letter(character) and (character.isdecimal() or not (unspaced(character) or _RAISED.match(character)))


def is_letter(character: str) -> bool:
    """Whether it is part of a word: a letter, a digit, an underscore, or a mark such as an Indic vowel sign.

    Args:
        character: One character, or none.
    """
    return character.isalnum() or character == "_" or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character or " ").startswith("M")
