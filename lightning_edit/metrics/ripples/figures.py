"""Figures of tests: of one record, and over all of them with their standard errors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from lightning_edit.metrics.record_means import RecordMeans
from lightning_edit.ripples import OF_AN_AXIS, PORTABILITY, name_of

# Of the axes together.
OVER_AXES = ("said", "exact", "token_accuracy", "score")
# What became of a test by RippleEdits' rule.
PASSED, FAILED, EDIT_FAILED, UNMET = COUNTED = ("passed", "failed", "edit_failed", "condition_unmet")
# Of the last ones those of what is kept to which the unedited model replied with nothing.
UNANSWERED = "unanswered"


def ripple_figures(tests: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The figures of one record, axis by axis.

    - ``said``: the share of tests whose answers the model says (see `says_all`), or whose right choice it names first
      (see `chooses`), whatever it knew before.
    - ``exact``: the share of tests with one answer to a query that are answered with nothing else (see `is_exactly`).
    - ``token_accuracy``: mean over queries and their answers of the share of an answer's tokens that are the argmax.
    - ``score``: of the tests that count the share that passed; none where none counts.
    - ``unchanged``: mean over queries of what is kept of the share of the answer's tokens that are predicted as before;
      without an answer whether the reply is that of the unedited model, where that is not empty.
    - ``rouge_l``: of long answers, see `metrics.generated_text.rouge_l`.

    Args:
        tests: What `RippleMetrics` says of each test of the record, or what was read back from ``records.jsonl``.

    Returns:
        Under each axis those figures that its tests tell.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for test in tests:
        of_axis = values.setdefault(test["axis"], {})
        for figure, found in _of_test(test):
            of_axis.setdefault(figure, []).append(found)
    return {axis: {name: fmean(found) for name, found in named.items()} for axis, named in values.items()}


def _of_test(test: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """The values of one test; those of its queries count one by one."""
    for name in ("said", "exact"):
        if test.get(name) is not None:
            yield name, float(test[name])
    if test.get("counted") in (PASSED, FAILED):
        yield "score", float(test["counted"] == PASSED)
    for query in test["queries"]:
        answers = query.get("answers", ())
        if answers:
            yield "token_accuracy", fmean(one["tokens_correct"] / one["tokens"] for one in answers)
        if query.get("unchanged") is not None:
            yield "unchanged", float(query["unchanged"])
        if query.get("rouge_l") is not None:
            yield "rouge_l", query["rouge_l"]


class RippleMeans:
    """Means over records of each axis, and over the axes of what follows from edits.

    Of each figure of an axis there are the mean over the records that have it, the standard error of the mean
    (``_stderr``) and the number of those records (``_n``), as in `RecordMeans`. ``ripple_portability_...`` are the
    means over the axes of what follows (KnowEdit's portability; Zhang et al., 2024); what is kept is no part of them.
    Their variance is ``n / (n - 1) sum_i u_i^2`` with the influence ``u_i = 1/k sum_a (x_ia - mean_a) / n_a`` of record
    i over the k axes, as the axes are measured on the same records; ``_n`` is the number of records with any.

    Example:
        >>> means = RippleMeans()
        >>> means.update({"reasoning": {"said": 1.0}, "multi_hop": {"said": 0.0}})
        >>> means.update({"reasoning": {"said": 0.0}})
        >>> {name: round(value, 3) for name, value in means.compute().items() if name.endswith("said")}
        {'ripple_reasoning_said': 0.5, 'ripple_multi_hop_said': 0.0, 'ripple_portability_said': 0.25}
    """

    def __init__(self) -> None:
        self._records: list[Mapping[str, Mapping[str, float]]] = []
        self._kept: set[str] = set()

    def update(self, figures: Mapping[str, Mapping[str, float]], kept: Iterable[str] = ()) -> None:
        """Adds one record.

        Args:
            figures: See `ripple_figures`.
            kept: Those of its axes on which answers should stay.
        """
        self._records.append(figures)
        self._kept.update(kept)

    def compute(self) -> dict[str, float]:
        """All figures; none where no record has a test."""
        if not self._records:
            return {}
        axes = list(dict.fromkeys(axis for record in self._records for axis in record))
        names = [name_of(axis, figure) for axis in axes for figure in OF_AN_AXIS]
        means = _Means(names)
        for record in self._records:
            means.update(
                {name_of(axis, name): value for axis, named in record.items() for name, value in named.items()}
            )
        found = {name: float(value) for name, value in means.compute().items()}
        following = [axis for axis in axes if axis not in self._kept]
        for figure in OVER_AXES:
            found |= self._over_axes(figure, [axis for axis in following if name_of(axis, figure) in found], found)
        return found

    def _over_axes(self, figure: str, axes: Sequence[str], found: Mapping[str, float]) -> dict[str, float]:
        if not axes:
            return {}
        name = name_of(PORTABILITY, figure)
        means = {axis: found[name_of(axis, figure)] for axis in axes}
        counts = {axis: found[f"{name_of(axis, figure)}_n"] for axis in axes}
        influences = []
        for record in self._records:
            own = [axis for axis in axes if figure in record.get(axis, {})]
            if own:
                influences.append(math.fsum((record[a][figure] - means[a]) / counts[a] for a in own) / len(axes))
        count = len(influences)
        figures = {name: fmean(means.values()), f"{name}_n": float(count)}
        if min(counts.values()) > 1:
            figures[f"{name}_stderr"] = math.sqrt(count / (count - 1) * math.fsum(u * u for u in influences))
        return figures


class _Means(RecordMeans):
    """Means over records of figures that the records name."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, sync_on_compute=False)

    def update(self, figures: Mapping[str, float]) -> None:
        """Adds one record."""
        self._add(figures)
