"""Downstream figures for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from lightning_edit.messages import readable

COLUMNS = ("likelihood_accuracy", "generated_accuracy", "invalid")


def table(curves: Sequence[dict[str, Any]], tasks: Sequence[str]) -> Table:
    """The figures of tasks at their first and last measurement; perplexities stand below.

    Args:
        curves: What was measured in a run, see `Scheduled`.
        tasks: Names of the tasks.
    """
    drawn = Table("task", title="downstream (%)", title_style="bold", caption_style="")
    for column in COLUMNS:
        drawn.add_column(column.replace("_", " "), justify="right")
    texts = []
    for task in tasks:
        cells = [_change(curves, f"downstream/{task}/{column}") for column in COLUMNS]
        if any(cells):
            drawn.add_row(task, *cells)
        elif change := _change(curves, f"downstream/{task}"):
            texts.append(f"{task}: perplexity {change}")
    drawn.caption = "\n".join(texts) or None
    return drawn


def _shown(name: str, value: float) -> str:
    return readable(value) if name.count("/") == 1 else f"{100 * value:.1f}"


def _change(curves: Sequence[dict[str, Any]], name: str) -> str:
    values = [line["figures"][name] for line in curves if name in line["figures"]]
    return " -> ".join(_shown(name, value) for value in values[:1] + values[1:][-1:])
