"""Whether two methods differ by more than chance: tests over the records that both were measured on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from rich import box
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest, wilcoxon

from lightning_edit.commands.comparison.lines import Line
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.errors import EditError
from lightning_edit.metrics.edit_metrics import FIGURES, figures_of, name_of
from lightning_edit.storage.user.json import json_lines

FILE = "records.jsonl"
LEVEL = 0.05
Records = dict[tuple[str, ...], Mapping[str, float]]


@dataclass(frozen=True)
class Test:
    """Two methods and one figure.

    Args:
        metric: The name of the figure.
        first: The label of a method.
        second: The label of another.
        n: How many records both have it of.
        means: Over these records.
        name: Of the test.
        p: Its p-value, two-sided.
        corrected: The same by Holm, for all tests of a table together.
    """

    metric: str
    first: str
    second: str
    n: int
    means: tuple[float, float]
    name: str
    p: float
    corrected: float = math.nan


def paired_tests(lines: Sequence[Line], metrics: Sequence[str]) -> list[Test]:
    """Tests each pair of methods at the end of their longest runs; p-values are corrected for their number by Holm.

    A figure that is 0 or 1 for every record is tested by McNemar's exact test, any other by Wilcoxon's signed-rank test
    of the differences. Of several seeds each record counts with its mean.

    Args:
        lines: The methods.
        metrics: Names of figures that single records have.

    Raises:
        EditError: If a run has no records, or a pair none in common.
    """
    records = [_records_of(line) for line in lines]
    tests = []
    for metric in metrics:
        for (one, first), (other, second) in combinations(zip(lines, records, strict=True), 2):
            both = [name for name in first if name in second and metric in first[name] and metric in second[name]]
            if both:
                values = [(first[name][metric], second[name][metric]) for name in both]
                tests.append(_test(metric, one.label, other.label, values))
    if not tests:
        raise EditError(
            f"`significance`: no two methods have records in common with {', '.join(metrics)}. Compare runs on the "
            "same edits."
        )
    return [replace(test, corrected=p) for test, p in zip(tests, holm([test.p for test in tests]), strict=True)]


def of_records(metrics: Sequence[str]) -> list[str]:
    """The figures among some that single records have; S and what is measured on the way are of all together.

    Args:
        metrics: Names of figures.

    Raises:
        EditError: If there is none.
    """
    found = [name for name in metrics if name in FIGURES]
    if not found:
        raise EditError(
            f"`significance` needs figures that single records have, such as efficacy_score, got {', '.join(metrics)}."
        )
    return found


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979): the smallest times m, the next times m - 1, never falling.

    Args:
        values: The m p-values.
    """
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = highest
    return corrected


def mcnemar(values: Sequence[tuple[float, float]]) -> float:
    """The exact p-value of McNemar's test: a binomial test of the records in which two methods differ.

    Args:
        values: For each record 0 or 1 of both methods.
    """
    first, second = sum(a > b for a, b in values), sum(a < b for a, b in values)
    return 1.0 if first + second == 0 else float(binomtest(first, first + second, 0.5).pvalue)


def signed_rank(values: Sequence[tuple[float, float]]) -> float:
    """The p-value of Wilcoxon's signed-rank test; records without a difference are left out, as he has it.

    Args:
        values: For each record a number of both methods.
    """
    differences = [a - b for a, b in values]
    return 1.0 if not any(differences) else float(wilcoxon(differences).pvalue)


def _test(metric: str, first: str, second: str, values: Sequence[tuple[float, float]]) -> Test:
    means = (fmean(a for a, _ in values), fmean(b for _, b in values))
    shares = all(value in (0.0, 1.0) for pair in values for value in pair)
    p = mcnemar(values) if shares else signed_rank(values)
    return Test(metric, first, second, len(values), means, "McNemar" if shares else "Wilcoxon", p)


def _records_of(line: Line) -> Records:
    """The figures of each record at the end of a line's last longest run; of several seeds their means."""
    run = max(reversed(line.runs), key=lambda run: run.edits)
    found: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for folder in run.folders:
        for name, figures in _read(folder / FILE).items():
            found.setdefault(name, []).append(figures)
    return {
        name: {metric: fmean(one[metric] for one in all_of) for metric in all_of[0] if all(metric in o for o in all_of)}
        for name, all_of in found.items()
    }


def _read(path: Path) -> Records:
    if not path.is_file():
        raise EditError(
            f"`significance` compares record by record, and there is no {path}. Runs keep it where the callback "
            "RecordResults is among `trainer.callbacks`."
        )
    found: Records = {}
    for record, where in json_lines(path, on_unfinished=lambda where: None):
        try:
            if record["stage"] == "after":
                found[tuple(map(str, name_of(record)))] = _finite(figures_of(record))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise EditError(f"{where}: this is not what a run says of a record ({error}).") from error
    if not found:
        raise EditError(f"{path} holds no records of the edited model; wait for the end of the run.")
    return found


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def table_of(tests: Sequence[Test]) -> Table:
    """A row for each test; what is significant at 5 % after the correction is bold.

    Args:
        tests: See `paired_tests`.
    """
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.title = Text(f"paired tests, corrected by Holm for {len(tests)}", style="bold")
    for heading in ("figure", "methods", "test"):
        drawn.add_column(heading, overflow="fold")
    for heading in ("n", "means", "p", "p (Holm)"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for test in tests:
        shown = quantity(test.metric)
        means = " / ".join(map(shown.text, test.means))
        cells = (shown.heading, f"{test.first} / {test.second}", test.name, str(test.n), means, f"{test.p:.2g}")
        style = "bold" if test.corrected < LEVEL else ""
        drawn.add_row(*map(Text, cells), Text(f"{test.corrected:.2g}", style=style))
    return drawn
