"""Where the subject stands in a complete prompt."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted


def cut_out(text: str, subject: str) -> tuple[str, str] | None:
    """Puts ``{}`` in the place of a subject.

    The subject is looked for first as whole words, then as whole words in another case ("the beatles" for "The
    Beatles"), and last inside a word in its own case. Of several places of the best kind the first is taken; the others
    stay text, for an edit has one place. Any white space may stand where the subject has some, and its letters may be
    written in either of the ways that Unicode has for some (NFC or NFD).

    Args:
        text: A complete prompt; one that holds a ``{}`` already is left as it is.
        subject: What to look for.

    Returns:
        The prompt with ``{}``, and the subject as it stands in the text; None if it is not there.
    """
    if "{}" in text or not subject.strip():
        return text, subject
    for whole, flags in ((True, re.NOFLAG), (True, re.IGNORECASE), (False, re.NOFLAG)):
        for words, whole_words in map(_patterns, _forms(subject)):
            if match := re.search(whole_words if whole else words, text, flags):
                return f"{text[: match.start()]}{{}}{text[match.end() :]}", match.group()
    return None


def refuse_hole(prompt: Any) -> None:
    """Refuses the prompt of a record without a subject, where its ``{}`` says that there should be one.

    Args:
        prompt: What the record holds.

    Raises:
        EditError: Says what to write.
    """
    if isinstance(prompt, str) and "{}" in prompt:
        raise EditError(
            f"the prompt {quoted(prompt)} holds {{}}, where a subject goes, and the record has none. Give it a "
            "`subject`; an edit without a subject has a complete prompt, without {}."
        )


def stands_in(text: str, subject: str) -> bool:
    """Whether a text holds a subject as whole words in its own case.

    Args:
        text: A prompt.
        subject: What to look for.
    """
    return any(_stands_in(text, form) for form in _forms(subject))


def _stands_in(text: str, subject: str) -> bool:
    words = subject.split()
    # Making a pattern takes longer than all else that is done with a record.
    return bool(words) and words[0] in text and re.search(_patterns(subject)[1], text) is not None


def _forms(subject: str) -> Iterator[str]:
    """The subject as it is given first, then in the ways in which Unicode writes it otherwise."""
    yield subject
    if not subject.isascii():
        others = (unicodedata.normalize(form, subject) for form in ("NFC", "NFD"))
        yield from dict.fromkeys(form for form in others if form != subject)


def _patterns(subject: str) -> tuple[str, str]:
    """A subject anywhere, and as whole words; any white space may stand where it has some."""
    words = r"\s+".join(re.escape(word) for word in subject.split())
    return words, rf"(?<!\w){words}(?!\w)"
