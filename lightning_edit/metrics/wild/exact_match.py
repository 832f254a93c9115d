"""Whether two answers are the same but for what does not count: SQuAD's exact match."""

import re
import string
import unicodedata

NORMALIZATION = "SQuAD: NFKC, lower case, no punctuation, no articles (a, an, the), single spaces"
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """An answer as SQuAD compares it (Rajpurkar et al., 2016).

    Lower case, without punctuation (ASCII's and all that Unicode calls so) and articles, with single spaces. Characters
    that Unicode can write in several ways are written in one (NFKC).

    Args:
        text: The answer.

    Example:
        >>> normalized(" The  Eiffel-Tower, Paris\u2026")
        'eiffeltower paris'
    """
    lower = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(c for c in lower if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def exact_match(answer: str, gold: str) -> bool:
    """Whether an answer is the right one, see `normalized`.

    A right answer of which nothing would be left, such as the letter A or a sign, is compared as it stands.

    Args:
        answer: What the model wrote.
        gold: The right answer.

    Example:
        >>> exact_match("the Louvre.", "Louvre"), exact_match("in the Louvre", "Louvre"), exact_match("", "A")
        (True, False, False)
    """
    if wanted := normalized(gold):
        return normalized(answer) == wanted
    return _written(answer) == _written(gold)


def _written(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
