"""Whether two answers are the same but for what does not count: SQuAD's exact match."""

import re
import string
import unicodedata

NORMALIZATION = (
    "SQuAD: NFKC, lower case, no punctuation, no articles (a, an, the), single spaces; but minus signs, decimal points "
    "and / and : of numbers, and the signs behind a letter in A+, C++ and C# stay, and so do articles where nothing "
    "else would be left"
)
_ARTICLES = re.compile(r"\b(a|an|the)\b(?![+#])")
_CURRENCY = "$\u00a2\u00a3\u00a5\u20a0-\u20cf"
_NUMBER = rf"(?=[{_CURRENCY}]?\.?\d)"
# Between numbers all dashes are one; before a number those are minus signs that are not dashes of a text.
_DASHES = re.compile(rf"(?:[\u2010-\u2012\u2212]|(?<![^\s{_CURRENCY}])\u2013|(?<=\d)[\u2013-\u2015]){_NUMBER}")
_MINUS_BEFORE_CURRENCY = re.compile(rf"(?<![^\W\d_])(?<!-)-([{_CURRENCY}])(?=\.?\d)")
_FRACTION_SLASHES = re.compile(r"[\u2044\u2215]")
# Two of them in a number are no decimal points.
_POINTS_OF_THOUSANDS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{3}){2,}(?!\.?\d)")
# A minus sign or the dash between numbers, but not that of "Covid-19"; a decimal point; the sign of a fraction, a ratio
# or a time; signs behind a letter, but no more than are part of a name: "###" is the end of an answer.
_TELLING = re.compile(
    r"(?<![^\W\d_])(?<!-)-(?=\.?\d)|(?<=\d)[./:](?=\d)|(?<![\w.])\.(?=\d)"
    r"|(?<=[^\W\d_])(?:\+{1,2}|#)(?![^\W_]|[+#])"
)


def normalized(text: str) -> str:
    """An answer as SQuAD compares it (Rajpurkar et al., 2016), but for what tells numbers and names apart.

    Lower case, without punctuation (ASCII's and all that Unicode calls so) and articles, with single spaces. Characters
    that Unicode can write in several ways are written in one (NFKC). SQuAD's script drops all signs, so that ``-5`` and
    ``5``, ``3.5`` and ``35``, ``3/4`` and ``34``, ``C++`` and ``C`` are equal; here minus signs, decimal points, ``/``
    and ``:`` between digits, and ``+``, ``++`` or ``#`` at the end of a word stay. Points of thousands do not, where
    there are two or more: one alone is a decimal point.

    Args:
        text: The answer.

    Example:
        >>> normalized(" The  Eiffel-Tower, Paris\u2026"), normalized("$-3.5."), normalized("C++, 1,000")
        ('eiffeltower paris', '-3.5', 'c++ 1000')
        >>> normalized("-$5"), normalized("10:30"), normalized("1.000.000"), normalized("Paris###")
        ('-5', '10:30', '1000000', 'paris')
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
    lower = _FRACTION_SLASHES.sub("/", _MINUS_BEFORE_CURRENCY.sub(r"\1-", lower))
    lower = _POINTS_OF_THOUSANDS.sub(lambda number: number[0].replace(".", ""), lower)
    telling = {place for found in _TELLING.finditer(lower) for place in range(*found.span())}
    return "".join(c for place, c in enumerate(lower) if place in telling or not _is_sign(c))


def _is_sign(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
