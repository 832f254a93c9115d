"""What got worse, by name: answers, similar facts, perplexity and tasks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.comparison.runs import Figures, Run
from lightning_edit.errors import EditError
from lightning_edit.report.examples import Answer, shown
from lightning_edit.report.figures import percent

# The kinds of questions by which a run is judged, and of each the figure of those that went wrong.
KINDS = {
    "general": ("general questions", "general_worse"),
    "old_object": ("questions whose right answer is an old answer", "old_object_lost"),
    "other_subjects": ("questions about other subjects", "other_subjects_worse"),
    "same_subject": ("other questions about edited subjects", "same_subject_worse"),
}
REASONS = {
    "answer lost": "the right answer is gone",
    "new object taken over": "a new answer is said where it does not belong",
    "empty": "nothing is said",
    "loop": "it repeats itself",
    "edit not said": "the new answer is not said",
}
REWORDED = "reworded"
PERPLEXITY = "perplexity"
# Its name among the figures of what else changed, and how the report calls it.
LONG_CONTEXT, BEHIND = "long_context_perplexity", "text behind long contexts"
# Of a task's figures those that anybody understands.
OF_TASKS = {
    "generated_accuracy": "right answers, written by the model",
    "likelihood_accuracy": "right answers, chosen by the model",
    "invalid": "answers that are none of the choices",
}


@dataclass(frozen=True)
class Changed:
    """An answer that is not as before.

    Args:
        question: What was asked.
        before: The answer before.
        after: The answer after.
        reason: In what way it is worse, None where it only changed.
        reworded: Whether the question is an edit in other words.
    """

    question: str
    before: Answer
    after: Answer
    reason: str | None
    reworded: bool


@dataclass(frozen=True)
class Counted:
    """How many questions of a kind are answered worse.

    Args:
        kind: Which questions.
        asked: How many were asked.
        worse: How many of them are answered worse.
        share: Share and standard error in percent, as a text.
    """

    kind: str
    asked: int
    worse: int
    share: str


@dataclass(frozen=True)
class Ability:
    """A figure of what the model can do beside the edits.

    Args:
        title: Its name.
        before: As a text; empty if it was not measured.
        after: As a text.
        better: Whether "lower" or "higher" is better.
        worse: Whether it is worse than before; None if unknown.
    """

    title: str
    before: str
    after: str
    better: str
    worse: bool | None


def collateral_of(content: Mapping[str, Any], where: str) -> tuple[Figures, list[Counted], list[Changed]]:
    """What a run's ``metrics.json`` says of other answers: figures, counts, and the worst changes.

    Args:
        content: All of the file.
        where: The file, for messages.

    Raises:
        EditError: If that section is not as a run writes it.
    """
    section = content.get("collateral") or {}
    try:
        figures = {name: float(value) for name, value in (section.get("figures") or {}).items() if value is not None}
        asked = {str(kind): int(number) for kind, number in (section.get("asked") or {}).items()}
        counts = [
            _counted(title, asked[kind], figures, name)
            for kind, (title, name) in KINDS.items()
            if asked.get(kind) and name in figures
        ]
        return figures, counts, [_changed(line) for line in section.get("worst") or ()]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise EditError(
            f"{where}: `collateral` is not as a run writes it ({type(error).__name__}: {error}). Put the file back as "
            "it was, or take that section out of it."
        ) from error


def _counted(title: str, asked: int, figures: Figures, name: str) -> Counted:
    error = figures.get(f"{name}_stderr")
    share = percent(figures[name]) + ("" if error is None else f" ± {100 * error:.1f}")
    return Counted(title, asked, round(asked * figures[name]), share)


def _changed(line: Mapping[str, Any]) -> Changed:
    why = line["worse"]
    before, after = (shown(str(line[name] or ""), "", whole=why == "loop") for name in ("before", "after"))
    reason = None if why is None else REASONS.get(why, str(why))
    return Changed(str(line["prompt"]), before, after, reason, line["kind"] == REWORDED)


def abilities_of(run: Run, rows: Sequence[Mapping[str, float]], collateral: Figures) -> list[Ability]:
    """Perplexity and tasks, before and after.

    Args:
        run: The run.
        rows: Those of its ``updates.csv``.
        collateral: The figures of what else changed.
    """
    found = [
        _ability(title, name, run.before.get(name), run.after[name])
        for name in run.after
        if not name.endswith(("_stderr", "_n")) and (title := _title(name)) is not None
    ]
    if (now := collateral.get(LONG_CONTEXT)) is not None:
        found.append(_ability(f"{BEHIND}: {PERPLEXITY}", PERPLEXITY, collateral.get(f"{LONG_CONTEXT}_before"), now))
    watched = [row["perplexity"] for row in rows if "perplexity" in row]
    if len(watched) > 1:
        title = "own text: perplexity, after the first and the last update"
        found.append(_ability(title, "perplexity", watched[0], watched[-1]))
    return found


def _title(name: str) -> str | None:
    """What a figure is called; None for what is no ability, and for further figures of the same answers."""
    room, _, rest = name.partition("/")
    task, slash, figure = rest.rpartition("/")
    if room == "downstream":
        return (f"{task}: {OF_TASKS[figure]}" if figure in OF_TASKS else None) if slash else f"{figure}: {PERPLEXITY}"
    if room != "harness":
        return None
    task, _, figure = rest.partition("/")
    return f"{task}: {re.sub('[_/]', ' ', figure)}"


def _ability(title: str, name: str, before: float | None, after: float) -> Ability:
    # A task of running text has no figure's name in its own.
    known = quantity(PERPLEXITY if PERPLEXITY in title else name)
    unit = " %" if known.unit == "%" else ""
    was = "–" if before is None else f"{known.text(before)}{unit}"
    now = f"{known.text(after)}{unit}"
    worse = None if before is None else was != now and (after > before) == known.lower_is_better
    return Ability(title, was, now, "lower" if known.lower_is_better else "higher", worse)
