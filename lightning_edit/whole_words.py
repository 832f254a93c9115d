"""Whether a text says an answer: as words of its own, in any script, and numbers as whole numbers."""

import re
import unicodedata

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


def unspaced(text: str) -> bool:
    """Whether a text begins in a script that puts no space between words.

    Args:
        text: The text.
    """
    return bool(_UNSPACED.match(text))


def find_whole(text: str, wanted: str, start: int = 0, ignore_case: bool = False) -> tuple[int, int] | None:
    """Where some words first stand in a text, not as parts of longer words or numbers; white space may differ.

    Scripts without spaces, such as Chinese and Japanese, do not show where a word ends, so there the characters alone
    count. A Korean word may have a particle behind it.

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
    return find_whole(unicodedata.normalize("NFC", text), unicodedata.normalize("NFC", wanted)) is not None


def _goes_before(text: str, start: int) -> bool:
    """Whether a word or number that begins there began earlier."""
    first, before, further = text[start], text[max(0, start - 1) : start], text[max(0, start - 2) : max(0, start - 1)]
    if not before or not _is_joined(first):
        return False
    # A dash at the beginning of a line stands before an item of a list.
    minus = before in MINUS and further != "\n" and not _is_letter(further)
    if first.isdecimal() and (minus or (before in ".," and further.isdecimal())):
        return True
    return _is_joined(before)


def _goes_on(text: str, end: int) -> bool:
    """Whether a word or number that ends there goes on."""
    last, behind, further = text[end - 1], text[end : end + 1], text[end + 1 : end + 2]
    if not behind or not _is_joined(last):
        return False
    if last.isdecimal() and behind in ".," and further.isdecimal():
        return True
    return _is_joined(behind) and not HANGUL[0] <= last <= HANGUL[1]


def _is_joined(character: str) -> bool:
    """Whether it is one word with the letters beside it; numbers are numbers in all scripts."""
    return _is_letter(character) and (character.isdecimal() or not unspaced(character))


def _is_letter(character: str) -> bool:
    """Whether it is part of a word: a letter, a digit, an underscore, or a mark such as an Indic vowel sign."""
    return character.isalnum() or character == "_" or unicodedata.category(character or " ").startswith("M")
