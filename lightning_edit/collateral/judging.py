"""Whether an answer changed for the worse, decided by rule from what was said before and after."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_edit.collateral.probe import REWORDED, Probe
from lightning_edit.sentences import first_sentence
from lightning_edit.whole_words import says_one_of, words_in

ANSWER_LOST, TAKEN_OVER, EMPTY, LOOP, EDIT_NOT_SAID = WHYS = (
    "answer lost",
    "new object taken over",
    "empty",
    "loop",
    "edit not said",
)
# How often a phrase of so many words stands in a row in a loop; of more words twice.
TIMES = {1: 4, 2: 3, 3: 3}
# The same few letters five times in a row, as in "hahahahaha"; one letter eight times; a digit, which makes a number,
# or a sign that draws no lines, twelve times; a zero twenty times.
_STUTTER = re.compile(r"([^\W\d_]{2,8}?)\1{4,}|([^\W\d_])\2{7,}|([1-9!?,;:$%&@+/()。！？，、])\3{11,}|0{20}")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Verdict:
    """What became of an answer.

    Args:
        changed: Whether its first sentence is another one, spaces aside (see `first_sentence`).
        why: In what way it is worse; None where it is not.
        known: Whether the answer before was one of the right ones.
    """

    changed: bool
    why: str | None
    known: bool

    @property
    def worse(self) -> bool:
        """Whether there is something wrong."""
        return self.why is not None

    @property
    def rank(self) -> int:
        """How bad it is, 0 being the worst; what did not change at all comes last."""
        return len(WHYS) + (not self.changed) if self.why is None else WHYS.index(self.why)


def judge(probe: Probe, after: str) -> Verdict:
    """Compares an answer with what the model said before the run.

    An answer changed for the worse, in this order, where

    - it was right before, and is not any more ("answer lost"): one of `Probe.answers` was said, and none is now (see
      `with_late_answers` for general prompts that are answered later);
    - it says the new object of an edit that is not asked about, and did not before ("new object taken over");
    - it is empty, or of signs alone as in "!!!!", and was not;
    - it repeats itself, and did not ("loop"), see `loops`.

    The rewording of an edit is right where it says the new answer, whatever was said before ("edit not said").

    Args:
        probe: What was asked, and the answer before.
        after: The answer now.
    """
    before, unwanted = probe.before, [probe.unwanted] if probe.unwanted else []
    known, right = says(before, probe.answers), says(after, probe.answers)
    if probe.kind == REWORDED:
        wrong = {EDIT_NOT_SAID: not right}
    else:
        wrong = {
            ANSWER_LOST: known and not right,
            TAKEN_OVER: says(after, unwanted) and not says(before, unwanted),
            EMPTY: says_something(before) and not says_something(after),
            LOOP: loops(after) and not loops(before),
        }
    why = next((reason for reason, true in wrong.items() if true), None)
    return Verdict(first_sentence(before).split() != first_sentence(after).split(), why, known)


def says_something(text: str) -> bool:
    """Whether there is a letter or a digit in a text: a model that breaks down often repeats a single sign.

    Args:
        text: What the model wrote.
    """
    return _LETTER_OR_DIGIT.search(text) is not None


def says(text: str, answers: Iterable[str]) -> bool:
    """Whether a text says one of some answers, in whole words; neither case nor raised digits count, see `says_one_of`.

    Args:
        text: What the model wrote.
        answers: Accepted answers.
    """
    return says_one_of(text, answers)


def loops(text: str) -> bool:
    """Whether a text repeats itself: a phrase stands several times in a row, see `TIMES`, or a few letters do.

    Args:
        text: What the model wrote.

    Example:
        >>> loops("L'Etoile, la France, la France, la France"), loops("from Paris to Paris, and on to Paris")
        (True, False)
    """
    words = words_in(text.casefold())
    return _STUTTER.search(text.casefold()) is not None or any(
        words[start : start + length] * times == words[start : start + length * times]
        for length in range(1, len(words) // 2 + 1)
        for times in [TIMES.get(length, 2)]
        for start in range(len(words) - length * times + 1)
    )
