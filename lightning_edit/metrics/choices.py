"""Which of several choices a text names."""

import re
from collections.abc import Sequence

from lightning_edit.whole_words import find_whole

# English words that are single letters; as a choice they have no word behind them, but for some.
_WORDS = ("A", "I")
_BEGINS = re.compile(r"(?:^|[.!?;\n])[\s\"'“‘*]*$")
# What stands behind a choice, and never behind the article; all but the last two lines never behind the pronoun either.
_BEHIND_BOTH = (
    "is|are|was|has|does|seems|appears|refers|states|says|means|describes|contains|gives|shows|names|fits|matches|makes"
    "|follows|represents|sounds|looks|because|since|as|and|or|but|though|although|whereas|while|which"
)
_BEHIND_A = (
    "were|had|did|would|could|should|must|might|may|can(?! of)|cannot|will be|if|so|in|for|with|at|by|from|to|it|this"
    r"|that|these|the|he|she|they|we|you|won['’]t|(?:in)?correct(?=\s*(?:[:.,;!\n]|$))"
)
_BEHIND = {"A": f"{_BEHIND_BOTH}|{_BEHIND_A}", "I": _BEHIND_BOTH}
_GOES_ON = {
    word: re.compile(rf"[^\S\n]+(?!(?i:{behind})(?:n['’]t)?\b(?!-))([^\W_])") for word, behind in _BEHIND.items()
}


def find_answer(text: str, words: Sequence[str]) -> int | None:
    """The index of the first label word in a text, None if there is none.

    Words count as a whole and in any case, so that ``Not`` is no ``No``. A single letter must have its own case, and be
    no word of its own: with ``A`` among the answers, the article in ``a dog`` or ``A dog is`` is none, nor is the
    pronoun in ``I think`` with ``I`` among them. But before a capital, or a word that follows no article, as in
    ``A Paris`` and ``A would be``, it is the choice, and so is what stands behind a colon: ``B`` is heard there too.
    Brackets and quotes do not matter: ``(A)``, ``A)`` and ``'A'`` are ``A``.

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
    if text[end : end + 1] in ("'", "’") and text[end + 1 : end + 2].isalpha():
        return True
    goes_on = _GOES_ON[text[start]].match(text, end)
    if goes_on is None or text[start] == "I":
        return goes_on is not None
    return not goes_on[1].isupper() and _BEGINS.search(text[max(0, start - 64) : start]) is not None
