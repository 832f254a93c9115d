"""Which edits are shown: by a rule that the page states, and not by choice."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lightning_edit.report.records import Edit
from lightning_edit.sentences import first_sentence
from lightning_edit.whole_words import find_whole

SHOWN = 10
# Failures come first, but leave room for what went well where anything did.
MOST_FAILURES = 5
# An answer is cut after so many characters.
LONGEST = 240

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Answer:
    """What a model wrote, as it is shown.

    Args:
        parts: The text in pieces, each with whether it is the new answer.
        cut: Whether it is shorter than a sentence of it, or than what is shown whole.
    """

    parts: tuple[tuple[str, bool], ...]
    cut: bool


def chosen(edits: Sequence[Edit]) -> list[Edit]:
    """The edits of the table: failures first, then others, each evenly spread over the run.

    Args:
        edits: All of them, in the order in which they were measured.
    """
    failed, fine = [one for one in edits if not one.said], [one for one in edits if one.said]
    room = max(MOST_FAILURES, SHOWN - len(fine))
    shown = spread(failed, room)
    partly = [one for one in fine if one.reworded and one.reworded[0] < one.reworded[1]]
    shown += spread(partly, min(MOST_FAILURES - len(shown[:MOST_FAILURES]), SHOWN - len(shown)))
    taken = {id(one) for one in shown}
    return shown + spread([one for one in fine if id(one) not in taken], SHOWN - len(shown))


def rule(edits: Sequence[Edit]) -> str:
    """How the edits of the table were chosen, in words.

    Args:
        edits: All of them.
    """
    if len(edits) <= SHOWN:
        return "These are all facts of the run; those that the model does not say come first."
    failed = sum(not one.said for one in edits)
    shown = min(failed, max(MOST_FAILURES, SHOWN - len(edits) + failed))
    first = f"{shown} of {failed:,}" if shown < failed else ("there are none" if not failed else f"{failed} in all")
    return (
        f"How these {SHOWN} of {len(edits):,} were chosen: first come facts that the model does not say ({first}); "
        f"then facts that it says, but not in every other wording, until there are {MOST_FAILURES}; the rest are facts "
        "that it says. Each group is spread evenly over the order of the run. Nobody picked them by hand."
    )


def spread(things: Sequence[Thing], number: int) -> list[Thing]:
    """Some of many at even distances, the first and the last among them.

    Args:
        things: All of them.
        number: How many at most.
    """
    if len(things) <= number:
        return list(things)
    if number < 2:
        return list(things[: max(0, number)])
    return [things[round(i * (len(things) - 1) / (number - 1))] for i in range(number)]


def shown(text: str, new: str, whole: bool = False) -> Answer:
    """An answer as it is shown: its first sentence, or more where the new answer comes later.

    Args:
        text: What the model wrote.
        new: The new answer, which is marked.
        whole: Whether the text is shown beyond its first sentence in any case.
    """
    # As where it is judged whether an answer says the new one.
    text, new = (unicodedata.normalize("NFC", one) for one in (text, new))
    line = " ".join(text.split())
    first = " ".join(first_sentence(text, words=1).split())
    at = find_whole(line, new)
    # A full stop alone tells nothing of what was written.
    says_something = re.search(r"\w", first) is not None
    kept = line if whole or not says_something or (at is not None and at[1] > len(first)) else first
    cut = len(kept) > LONGEST
    if cut:
        kept = kept[: max(LONGEST, at[1] if at is not None and at[1] < 2 * LONGEST else 0)]
    parts = _parts(kept, at if at is not None and at[1] <= len(kept) else None)
    return Answer(tuple(part for part in parts if part[0]), cut)


def _parts(text: str, at: tuple[int, int] | None) -> list[tuple[str, bool]]:
    if at is None:
        return [(text, False)]
    start, end = at
    return [(text[:start], False), (text[start:end], True), (text[end:], False)]
