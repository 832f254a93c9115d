"""The figures of a run in plain words: of each what it means, before, after, and how sure it is."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_edit.commands.comparison.runs import Figures, Run
from lightning_edit.ripples import PORTABILITY, axis_of, tests_of

NEW, REWORDED, OTHERS, TOGETHER = "The new facts", "The new facts in other words", "Everything else", "All together"
NO_NUMBER = "not a number"
# Name in `metrics.json`, title, what a share of 100 % means. A name with a minus is of harm: 100 % less it is shown.
KNOWN: Mapping[str, Sequence[tuple[str, str, str]]] = {
    NEW: (
        ("generated_match", "Says the new answer", "Left to answer freely, the model says every new answer."),
        (
            "generated_rouge_l",
            "Words of long answers",
            "Left to answer freely, the model writes all words of the long new answers, in their order.",
        ),
        (
            "efficacy_score",
            "Prefers the new answer to the old",
            "Of the new and the old answer, the model always finds the new one likelier.",
        ),
        (
            "efficacy_accuracy",
            "New answer comes first",
            "Of all that the model could write, the new answer is always the likeliest, piece by piece.",
        ),
    ),
    REWORDED: (
        (
            "generated_paraphrase",
            "Says it in known rewordings",
            "Asked in the other wordings of the data, the model says every new answer.",
        ),
        (
            "generated_paraphrase_rouge_l",
            "Words of long answers, reworded",
            "Asked in other words, the model writes all words of the long new answers, in their order.",
        ),
        ("reworded_said", "Says it in free rewordings", "Asked in free wordings, the model says every new answer."),
        (
            "paraphrase_score",
            "Prefers it when reworded",
            "Asked in other words, the model always finds the new answer likelier than the old one.",
        ),
        (
            "paraphrase_accuracy",
            "Comes first when reworded",
            "Asked in other words, the new answer is always the likeliest, piece by piece.",
        ),
    ),
    OTHERS: (
        (
            "neighborhood_score",
            "Similar facts preferred",
            "Asked the same about others, the model always finds their right answer likelier than the new one.",
        ),
        (
            "neighborhood_accuracy",
            "Similar facts come first",
            "Asked the same about others, their right answer is always the likeliest, piece by piece.",
        ),
        (
            "attribute_score",
            "Others with that answer",
            "Asked about others of whom the new answer was true already, the model still prefers it.",
        ),
        (
            "locality_token_accuracy",
            "Unrelated answers right",
            "Unrelated questions of the data are all answered rightly.",
        ),
        (
            "locality_unchanged",
            "Unrelated answers unchanged",
            "Unrelated questions of the data are all answered as before.",
        ),
        ("-general_worse", "General questions not worse", "No general question is answered worse than before."),
        ("-old_object_lost", "Old answers still known", "Old answers are still given where they are right."),
        (
            "-other_subjects_worse",
            "Other subjects not worse",
            "No question about another subject in the wording of an edit is answered worse.",
        ),
        (
            "-same_subject_worse",
            "Same subjects not worse",
            "No other question about an edited subject is answered worse.",
        ),
    ),
    TOGETHER: (
        (
            "S",
            "S, the usual single score",
            "The harmonic mean of new facts preferred, reworded ones preferred, and similar facts preferred: "
            "it is high only if all three are.",
        ),
    ),
}
FOLLOWING = "What follows from the new facts, and what should stay"
FOLLOWS = {
    "said": "Left to answer freely, the model says the right answers in all {tests}.",
    "score": "Where edit and conditions allow to tell, the model passes all {tests}.",
    "unchanged": "The model answers all {tests} as before.",
}
# Those that are also measured in other ways to ask, see `lightning_edit.metrics.ways`.
_WAY = re.compile(r"(plain|system_\d+)_((efficacy|paraphrase|neighborhood)_score|efficacy_accuracy)")


@dataclass(frozen=True)
class Shown:
    """A figure of the page, a share that is best at 100 %.

    Args:
        name: Its name in ``metrics.json``.
        title: Its name in words.
        meaning: What a share of 100 % means.
        before: The share before, None if it was not measured.
        after: The share after.
        error: The standard error of the latter, None if unknown.
        count: Over how many records or questions it was taken, None if unknown.
    """

    name: str
    title: str
    meaning: str
    before: float | None
    after: float
    error: float | None
    count: int | None

    @property
    def was(self) -> str:
        """The share before, as a text."""
        return "–" if self.before is None else percent(self.before)

    @property
    def now(self) -> str:
        """The share after, with its standard error where that is known."""
        return percent(self.after) if self.error is None else f"{percent(self.after)} ± {100 * self.error:.1f}"


def percent(share: float) -> str:
    """A share as a text.

    Args:
        share: From 0 to 1, or NaN where the model's numbers were no finite ones.
    """
    return NO_NUMBER if math.isnan(share) else f"{100 * share:.1f} %"


def groups_of(run: Run, collateral: Figures) -> dict[str, list[Shown]]:
    """The figures that a run has, in groups.

    Args:
        run: The run.
        collateral: The figures of what else changed.
    """
    after = {**run.after, **collateral}
    groups = {
        heading: [_shown(*one, run.before, after) for one in known if one[0].lstrip("-") in after]
        for heading, known in KNOWN.items()
    }
    titles = {name: (title, text) for known in KNOWN.values() for name, title, text in known}
    for name in after:
        if (way := _WAY.fullmatch(name)) is not None:
            title, text = titles[way[2]]
            heading = f"Asked {_in_words(way[1])}"
            groups.setdefault(heading, []).append(_shown(name, title, text, run.before, after))
        elif (found := axis_of(name)) is not None and found[0] != PORTABILITY and found[1] in FOLLOWS:
            axis, how = found[0].replace("_", " "), FOLLOWS[found[1]]
            title, text = f"{axis[0].upper()}{axis[1:]}: {found[1]}", how.format(tests=tests_of(found[0]))
            groups.setdefault(FOLLOWING, []).append(_shown(name, title, text, run.before, after))
    return {heading: shown for heading, shown in groups.items() if shown}


def _in_words(way: str) -> str:
    return "in plain text, not in the chat" if way == "plain" else f"under system prompt {way.rpartition('_')[2]}"


def _shown(name: str, title: str, text: str, before: Figures, after: Figures) -> Shown:
    stored = name.lstrip("-")
    rest = name != stored
    count = after.get(f"{stored}_n")
    was = before.get(stored)
    return Shown(
        name=f"1 - {stored}" if rest else stored,
        title=title,
        meaning=text,
        before=None if was is None else (1 - was if rest else was),
        after=1 - after[stored] if rest else after[stored],
        error=after.get(f"{stored}_stderr"),
        count=None if count is None else int(count),
    )


def certainty(groups: Mapping[str, Sequence[Shown]]) -> str | None:
    """What a figure of exactly 0 or 100 % leaves open, None where there is none.

    Of n independent trials that all went the same way, the other way may still have a chance of up to about 3 / n (the
    "rule of three", for 95 %).

    Args:
        groups: The figures.
    """
    sure = [one for shown in groups.values() for one in shown if one.after in (0.0, 1.0) and one.count]
    if not sure:
        return None
    fewest = min(sure, key=lambda one: one.count or 0)
    open_ = 100 * min(1.0, 3 / (fewest.count or 1))
    return (
        f"A figure of exactly 0 or 100 % is not certain either: {fewest.title[0].lower()}{fewest.title[1:]}, for "
        f"example, was asked of {fewest.count:,}, and up to about {open_:.1f} % of other cases may still turn out "
        "differently (95 % confidence)."
    )
