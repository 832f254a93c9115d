"""What follows from edits, for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from lightning_edit.messages import counted
from lightning_edit.metrics.ripples.figures import FAILED, PASSED, UNANSWERED
from lightning_edit.ripples import OF_AN_AXIS, PORTABILITY, axis_of, name_of

TITLES = {"token_accuracy": "token\naccuracy", "rouge_l": "ROUGE-L"}
# What fits; all figures are in ``metrics.json``.
SHOWN = tuple(figure for figure in OF_AN_AXIS if figure != "exact")
WITH_ERROR = ("score",)


def axes_of(figures: Mapping[str, float]) -> list[str]:
    """The axes that a run has figures of, in their order; the mean over them comes last.

    Args:
        figures: The figures of a stage.
    """
    named = (axis_of(name) for name in figures)
    axes = dict.fromkeys(found[0] for found in named if found is not None)
    return [*(axis for axis in axes if axis != PORTABILITY), *([PORTABILITY] if PORTABILITY in axes else [])]


def tables(results: Mapping[str, Mapping[str, float]], section: Mapping[str, Any]) -> Iterator[Table]:
    """A row for each axis: figures before and after in percent, and how many of its tests count for the score.

    Args:
        results: Figures under ``before`` and ``after``.
        section: ``ripples`` of ``metrics.json``.
    """
    before, after = results.get("before") or {}, results.get("after") or {}
    axes = axes_of(after)
    if not axes:
        return
    figures = [figure for figure in SHOWN if any(name_of(axis, figure) in after for axis in axes)]
    drawn = Table(title="what follows from the edits", title_style="bold")
    drawn.add_column("%", no_wrap=True)
    for figure in figures:
        drawn.add_column(TITLES.get(figure, figure), justify="right")
    drawn.add_column("tests\ncounted", justify="right")
    for axis in axes:
        if axis == PORTABILITY:
            drawn.add_section()
        drawn.add_row(axis.replace("_", " "), *_row(before, after, axis, figures), _counts(section.get(axis)))
    if left_out := sum(counts.get(UNANSWERED, 0) for counts in section.values()):
        tests = counted(left_out, "test of what is kept does", "tests of what is kept do")
        drawn.caption = f"{tests} not count, as the unedited model replies with nothing"
    yield drawn


def _row(before: Mapping[str, float], after: Mapping[str, float], axis: str, figures: Sequence[str]) -> Iterator[str]:
    for figure in figures:
        name = name_of(axis, figure)
        if name not in after:
            yield ""
            continue
        error = after.get(f"{name}_stderr") if figure in WITH_ERROR else None
        shown = f"{100 * after[name]:.1f}" + (f" ± {100 * error:.1f}" if error else "")
        yield f"{100 * before[name]:.1f} -> {shown}" if name in before else shown


def _counts(counts: Mapping[str, int] | None) -> str:
    return "" if counts is None else f"{counts[PASSED] + counts[FAILED]} of {counts['tests']}"
