"""What became of all answers: figures, the worst changes in words, and a line for each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_edit.collateral.asking import Asked
from lightning_edit.collateral.judging import ANSWER_LOST, Verdict, judge
from lightning_edit.collateral.probe import GENERAL, KINDS, OLD_OBJECT, REWORDED, Probe
from lightning_edit.collateral.sources import in_turn
from lightning_edit.metrics.record_means import RecordMeans

WORST = 10
# Kinds of probes whose answers should not become worse.
KEPT = tuple(kind for kind in KINDS if kind != REWORDED)
FIGURES = (
    "general_changed",
    "general_worse",
    "general_lost",
    "general_kl",
    "old_object_lost",
    "other_subjects_changed",
    "other_subjects_worse",
    "same_subject_changed",
    "same_subject_worse",
    "reworded_said",
    "kept",
)


class CollateralMetrics(RecordMeans):
    """Means over probes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(FIGURES, **kwargs)

    def update(self, figures: Mapping[str, float]) -> None:
        """Adds one probe.

        Args:
            figures: What it tells.
        """
        self._add(figures)


def figures_of(probes: Sequence[Probe], asked: Sequence[Asked]) -> dict[str, float]:
    """Shares over probes, and the mean KL, each with its standard error and number of probes.

    Args:
        probes: What was asked.
        asked: For each what the model answers now.

    Returns:
        Those of `FIGURES` that there are probes for; `kept` is the mean over the kinds of probes about anything but the
        edits of the share that did not change for the worse.
    """
    if not probes:
        return {}
    means = CollateralMetrics(sync_on_compute=False)
    for probe, (text, kl) in zip(probes, asked, strict=True):
        means.update(_of_one(probe, judge(probe, text), kl))
    figures = {name: float(value) for name, value in means.compute().items()}
    shares = kept_by_kind(figures).values()
    return figures | ({"kept": sum(shares) / len(shares)} if shares else {})


def kept_by_kind(figures: Mapping[str, float]) -> dict[str, float]:
    """For each kind of probes whose answers should not become worse the share that did not.

    Args:
        figures: See `figures_of`.
    """
    worse = {kind: figures.get(f"{kind}_lost" if kind == OLD_OBJECT else f"{kind}_worse") for kind in KEPT}
    return {kind: 1 - share for kind, share in worse.items() if share is not None}


def _of_one(probe: Probe, verdict: Verdict, kl: float | None) -> dict[str, float]:
    if probe.kind == REWORDED:
        return {"reworded_said": float(not verdict.worse)}
    if probe.kind == OLD_OBJECT:
        return {"old_object_lost": float(verdict.worse)}
    figures = {f"{probe.kind}_changed": float(verdict.changed), f"{probe.kind}_worse": float(verdict.worse)}
    if probe.kind == GENERAL:
        figures |= {} if kl is None else {"general_kl": kl}
        figures |= {"general_lost": float(verdict.why == ANSWER_LOST)} if verdict.known else {}
    return figures


def lines_of(probes: Sequence[Probe], asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """All answers, one plain dictionary each.

    Args:
        probes: What was asked.
        asked: For each what the model answers now.
    """
    lines = []
    for probe, (text, kl) in zip(probes, asked, strict=True):
        verdict = judge(probe, text)
        lines.append(
            {
                "kind": probe.kind,
                "edit": probe.edit or None,
                "prompt": probe.prompt,
                "before": probe.before,
                "after": text,
                "changed": verdict.changed,
                "worse": verdict.why,
                "kl": kl,
                "answers": list(probe.answers),
                "unwanted": probe.unwanted or None,
            }
        )
    return lines


def worst(probes: Sequence[Probe], asked: Sequence[Asked], number: int = WORST) -> list[dict[str, Any]]:
    """The worst changes in words: what went wrong, the most telling first, then what merely changed.

    Among equals all kinds of probes have their turn.

    Args:
        probes: What was asked.
        asked: For each what the model answers now.
        number: How many.
    """
    ranks: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for probe, line in zip(probes, lines_of(probes, asked), strict=True):
        verdict = judge(probe, line["after"])
        wanted = probe.kind == REWORDED and not verdict.worse
        if verdict.worse or (verdict.changed and not wanted):
            ranks.setdefault(verdict.rank, {}).setdefault(probe.kind, []).append(line)
    ordered: Iterable[dict[str, Any]] = (
        line for rank in sorted(ranks) for line in in_turn([ranks[rank][k] for k in KINDS if k in ranks[rank]])
    )
    shown = ("kind", "prompt", "before", "after", "worse")
    return [{name: line[name] for name in shown} for line, _ in zip(ordered, range(number), strict=False)]
