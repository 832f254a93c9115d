"""Right answers that a reply comes to later than it did before the run."""

import re
from collections.abc import Sequence

from lightning_edit.collateral.asking import Asked, Asking
from lightning_edit.collateral.judging import ANSWER_LOST, judge, says
from lightning_edit.collateral.probe import GENERAL, Probe

# As much room again: where replies get more, they also come upon the answer while they ramble.
MORE_ROOM = 2


def with_late_answers(probes: Sequence[Probe], asked: Sequence[Asked], asking: Asking) -> list[Asked]:
    """The replies to probes; to general ones those that lack what was said before are read on, with twice as much room.

    A reply that begins in another way, with "Here is a function that ..." say, may be cut before it says what it said
    before. Where it does say it, it is kept as far as that, so that what is behind it is not judged; all other replies
    stay as they are. So do those to other kinds of probes, which ask for a name: who does not begin with it evades the
    question.

    Args:
        probes: What was asked.
        asked: The replies, those of all processes.
        asking: Asks the model; all processes must call this.
    """
    found = list(asked)
    lacking = [i for i, (probe, now) in enumerate(zip(probes, asked, strict=True)) if _lacks(probe, now)]
    if not lacking:
        return found
    room = [MORE_ROOM * asking.tokens] * len(lacking)
    for i, longer in zip(lacking, asking.now([probes[i].prompt for i in lacking], room=room), strict=True):
        found[i] = asked[i]._replace(text=_up_to_answer(longer.text, probes[i]) or asked[i].text)
    return found


def _lacks(probe: Probe, now: Asked) -> bool:
    return probe.kind == GENERAL and judge(probe, now.text).why == ANSWER_LOST


def _up_to_answer(text: str, probe: Probe) -> str | None:
    """The beginning of a text up to the word that completes a right answer; None where it says none."""
    ends = (word.end() for word in re.finditer(r"\S+", text))
    return next((text[:end] for end in ends if says(text[:end], probe.answers)), None)
