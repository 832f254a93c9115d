"""Two halves of all probes, so that a model is never judged by what it was preserved with.

The half is a property of the text itself, not of its place in a list: it stays the same when lists grow, and a subject
or wording of the user's own falls into the same half as the shipped one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable


def folded(text: str) -> str:
    """A text without what does not make it another one: case, spaces, a leading "the", a mark at its end.

    Args:
        text: A subject, wording or prompt.
    """
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(words[1:] if words[:1] == ["the"] else words).rstrip(".?! ")


def judges(text: str) -> bool:
    """Whether a subject or wording is in the half that judges; the others are for preserving.

    Args:
        text: A subject, or a wording with its ``{}``.
    """
    return bool(hashlib.sha256(folded(text).encode()).digest()[0] & 1)


def judging(texts: Iterable[str]) -> list[str]:
    """Those texts that may judge a model, in their order.

    Args:
        texts: Subjects or wordings.
    """
    return [text for text in texts if judges(text)]


def preserving(texts: Iterable[str]) -> list[str]:
    """Those texts that a model may be preserved with, in their order.

    Args:
        texts: Subjects or wordings.
    """
    return [text for text in texts if not judges(text)]
