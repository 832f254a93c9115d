"""Whether two answers are the same but for what does not count: SQuAD's exact match."""

import re
import string
import unicodedata

NORMALIZATION = (
    "SQuAD: NFKC, lower case, no punctuation, no articles (a, an, the), single spaces; but minus signs and points of "
    "numbers and the signs behind a letter in C++ and C# stay, and so do articles where nothing else would be left"
)
_ARTICLES = re.compile(r"\b(a|an|the)\b(?![+#])")
_DASHES = re.compile(r"[\u2010-\u2015\u2212](?=\.?\d)")
# A minus sign or the dash between numbers, but not that of "Covid-19"; a decimal point; signs behind a letter.
_TELLING = re.compile(r"(?<![^\W\d_])(?<!-)-(?=\.?\d)|(?<=\d)\.(?=\d)|(?<![\w.])\.(?=\d)|(?<=[^\W\d_])[+#]+(?![^\W_])")


def normalized(text: str) -> str:
    """An answer as SQuAD compares it (Rajpurkar et al., 2016), but for what tells numbers and names apart.

    Lower case, without punctuation (ASCII's and all that Unicode calls so) and articles, with single spaces. Characters
    that Unicode can write in several ways are written in one (NFKC). SQuAD's script drops all signs, so that ``-5`` and
    ``5``, ``3.5`` and ``35``, ``C++`` and ``C`` are equal; here minus signs, decimal points, and ``+`` and ``#`` at the
    end of a word stay.

    Args:
        text: The answer.

    Example:
        >>> normalized(" The  Eiffel-Tower, Paris\u2026"), normalized("$-3.5."), normalized("C++, 1,000")
        ('eiffeltower paris', '-3.5', 'c++ 1000')
    """
    return " ".join(_ARTICLES.sub(" ", _bare(text)).split())


def exact_match(answer: str, gold: str) -> bool:
    """Whether an answer is the right one, see `normalized`.

    Where nothing would be left of the right answer, as of the letter A, articles stay; of signs alone, all does. There
    is no empty answer: nothing is equal to it.

    Args:
        answer: What the model wrote.
        gold: The right answer.

    Example:
        >>> exact_match("the Louvre.", "Louvre"), exact_match("in the Louvre", "Louvre"), exact_match("(A)", "A")
        (True, False, True)
    """
    if wanted := normalized(gold):
        return normalized(answer) == wanted
    if wanted := " ".join(_bare(gold).split()):
        return " ".join(_bare(answer).split()) == wanted
    written = " ".join(unicodedata.normalize("NFKC", gold).split())
    return bool(written) and " ".join(unicodedata.normalize("NFKC", answer).split()) == written


def _bare(text: str) -> str:
    """A text in lower case, without punctuation that tells nothing."""
    lower = _DASHES.sub("-", unicodedata.normalize("NFKC", text).lower())
    telling = {place for found in _TELLING.finditer(lower) for place in range(*found.span())}
    return "".join(c for place, c in enumerate(lower) if place in telling or not _is_sign(c))


def _is_sign(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
