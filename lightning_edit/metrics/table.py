"""The figures of edits before and after them, as a table for people."""

from rich.table import Table

from lightning_edit.messages import counted
from lightning_edit.metrics.ways import in_words, way_of

# What the model says by itself, beside what it is asked to complete.
MEASURES = {"efficacy": "reliability", "paraphrase": "generalization", "locality": "locality"}
FREE = {
    "generated": {"efficacy": "generated_match", "paraphrase": "generated_paraphrase"},
    "exact": {kind: f"wild_exact_{measure}" for kind, measure in MEASURES.items()},
    "judged": {kind: f"wild_judged_{measure}" for kind, measure in MEASURES.items()},
}
KINDS = ("efficacy", "paraphrase", "neighborhood", "attribute", "locality")
GENERATION = {
    "generation_entropy": (1, " bits"),
    "reference_score": (100, " %"),
    "essence_score": (1, " (perplexity)"),
    "efficacy_nll": (1, " nats"),
    "paraphrase_nll": (1, " nats"),
    "generated_rouge_l": (100, " %"),
    "generated_paraphrase_rouge_l": (100, " %"),
}


def table(results: dict[str, dict[str, float]], edits: int) -> Table:
    """The figures before and after editing, in percent; scores with the standard error of the mean over records.

    Args:
        results: Figures under ``before`` and ``after``.
        edits: Number of edits written.
    """
    before, after = results.get("before") or {}, results.get("after") or {}
    # Token accuracy says something new only where there is no second answer to compare with.
    scored = any(f"{kind}_score" in after for kind in KINDS)
    figures = ["score", "magnitude", "accuracy"] if scored else ["accuracy", "token_accuracy", "unchanged"]
    free = {title: names for title, names in FREE.items() if any(name in after for name in names.values())}
    if scored and free:
        # What is said counts more than how sure of it the model is; all figures are in ``metrics.json``.
        figures.remove("magnitude")
    drawn = Table(title=counted(edits, "edit"), title_style="bold")
    drawn.add_column("%")
    for figure in [*figures, *free]:
        drawn.add_column(figure.replace("_", " "), justify="right")
    # The run's own way to ask first, then the others.
    for way in dict.fromkeys(["", *(way_of(name)[0] for name in after)]):
        _add_rows(drawn, before, after, way, figures, list(free.values()))
    return drawn


def _add_rows(
    drawn: Table,
    before: dict[str, float],
    after: dict[str, float],
    way: str,
    figures: list[str],
    free: list[dict[str, str]],
) -> None:
    """The rows of one way to ask."""
    start, title = (f"{way}_", f", {in_words(way)}") if way else ("", "")
    drawn.add_section()
    for kind in KINDS:
        cells = [_change(before, after, f"{start}{kind}_{figure}") for figure in figures]
        cells += [_change(before, after, names.get(kind, "") if not way else "") for names in free]
        if any(cells):
            drawn.add_row(kind + title, *cells)
    if f"{start}S" in after:
        drawn.add_section()
        drawn.add_row(f"S{title}", _change(before, after, f"{start}S"), style="bold")


def generation_lines(results: dict[str, dict[str, float]]) -> list[str]:
    """What was measured on generated texts, one line a figure; none where nothing was generated.

    Args:
        results: Figures under ``before`` and ``after``.
    """
    before, after = results.get("before") or {}, results.get("after") or {}
    return [
        f"{name.replace('_', ' ')} {_change(before, after, name, scale)}{unit}"
        for name, (scale, unit) in GENERATION.items()
        if name in after
    ]


def _change(before: dict[str, float], after: dict[str, float], name: str, scale: float = 100) -> str:
    if name not in after:
        return ""
    digits = 1 if scale == 100 else 2
    shown = f"{scale * after[name]:.{digits}f}"
    if after.get(f"{name}_stderr") and not name.endswith(("_magnitude", "_accuracy")):
        shown += f" ± {scale * after[f'{name}_stderr']:.{digits}f}"
    return f"{scale * before[name]:.{digits}f} -> {shown}" if name in before else shown
