"""Which of several choices a text names."""

import re
from collections.abc import Sequence

from lightning_edit.whole_words import find_whole

# English words that are single letters; as a choice they have no word behind them, but for some.
_WORDS = ("A", "I")
_BEGINS = re.compile(r"(?:^|[.!?:;\n])[\s\"'“‘*]*$")
_GOES_ON = re.compile(r"[^\S\n]+(?!(?:is|are|was|because|since|as|and|or|but|though)\b)[^\W_]")


def find_answer(text: str, words: Sequence[str]) -> int | None:
    """The index of the first label word in a text, None if there is none.

    Words count as a whole and in any case, so that ``Not`` is no ``No``. A single letter must have its own case, and be
    no word of its own: with ``A`` among the answers, the article in ``a dog`` or ``A dog is`` is none, nor is the
    pronoun in ``I think`` with ``I`` among them. Brackets do not matter: ``(A)`` and ``A)`` are ``A``.

    Args:
        text: What a model wrote.
        words: The label words.

    Example:
        >>> find_answer(" (B) because", ["A", "B"]), find_answer(" Nothing", ["Yes", "No"])
        (1, None)
        >>> find_answer("A dog, so B", ["A", "B"]), find_answer("The answer is A because", ["A", "B"])
        (1, 0)
    """
    found = [(_place(text, word), -len(word), i) for i, word in enumerate(words)]
    places = [(at, length, i) for at, length, i in found if at is not None]
    return min(places)[2] if places else None


def _place(text: str, word: str) -> int | None:
    """Where a text first names a choice."""
    start = 0
    while (at := find_whole(text, word, start, ignore_case=len(word) > 1)) is not None:
        if word not in _WORDS or not _is_a_word(text, *at):
            return at[0]
        start = at[1]
    return None


def _is_a_word(text: str, start: int, end: int) -> bool:
    """Whether a letter is an article, which stands at the beginning of a sentence if it is written large, or ``I``."""
    if text[end : end + 1] in ("'", "’"):
        return True
    return _GOES_ON.match(text, end) is not None and (text[start] == "I" or _BEGINS.search(text[:start]) is not None)
