"""What stands between a prompt and its answer: a space, or nothing where script, bracket or quote want none."""

import re
import unicodedata

from lightning_edit.requests import EditRequest

# Scripts that put no space between words, with their punctuation: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and
# Japanese. Korean has spaces.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED, _WORD = re.compile(f"[{UNSPACED}]"), re.compile(rf"[^\W{UNSPACED}]+")
QUOTES = "\"'`"
# Between words, these belong to what follows.
LEADING = "_/\\@#$"


def join_target(prompt: str, target: str, separator: str | None = None) -> str:
    """The prompt followed by its answer.

    Args:
        prompt: A complete prompt.
        target: The answer, without a leading space.
        separator: What stands between the two; None for what is usual, see `usual_separator`.
    """
    return prompt + (usual_separator(prompt, target) if separator is None else separator) + target


def usual_separator(prompt: str, target: str) -> str:
    """What a writer puts between a prompt and its answer: one space, or nothing.

    Nothing follows a prompt that brings its own space, that ends with an opening bracket or quote, or with a sign that
    belongs to what follows. In a text of a script without spaces nothing stands before an answer: one in such a script
    makes a text that has any of it one, another answer only a text that is mostly of it and has no spaces around it.

    Args:
        prompt: A complete prompt.
        target: The answer.
    """
    if not prompt or prompt[-1].isspace():
        return ""
    unspaced = len(_UNSPACED.findall(prompt))
    if unspaced and _UNSPACED.match(target):
        return ""
    # About two characters make a word; some writers do put spaces around them.
    spaced = re.search(rf"[{UNSPACED}]\s|\s[{UNSPACED}]", prompt)
    if _UNSPACED.match(prompt[-1]) and not spaced and unspaced > 2 * len(_WORD.findall(prompt)):
        return ""
    return "" if prompt[-1] in LEADING or _opens(prompt) else " "


def _opens(prompt: str) -> bool:
    last, before = prompt[-1], prompt[-2:-1]
    if unicodedata.category(last) == "Ps":
        return True
    if last == "=":
        return bool(before) and (before.isalnum() or before == "_")
    if last in QUOTES:
        return not before or before.isspace() or before in ":=,<" or unicodedata.category(before) == "Ps"
    # In some languages the same quote opens and in others it closes.
    return unicodedata.category(last) == "Pi" and not (before.isalnum() and not _UNSPACED.match(before))


def separator_of(request: EditRequest) -> str:
    """What stands between an edit's rewrite prompt and its new target.

    Args:
        request: The edit.
    """
    given = request.separator
    return usual_separator(request.rewrite_prompt, request.target_new) if given is None else given
