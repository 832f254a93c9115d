"""Collateral for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from lightning_edit.collateral.judging import LOOP
from lightning_edit.collateral.long_context import AFTER, BEFORE, RATIO
from lightning_edit.messages import cells, counted, readable
from lightning_edit.sentences import first_sentence

TITLES = {
    "general": "general prompts",
    "old_object": "the old objects",
    "other_subjects": "other subjects",
    "same_subject": "edited subjects",
    "reworded": "edits reworded",
}
# An answer is cut here.
LONGEST = 120


def tables(section: Mapping[str, Any]) -> Iterator[Table | str]:
    """What is shown of a run's collateral.

    Args:
        section: That of ``metrics.json``.
    """
    if not section["asked"]:
        return
    yield _figures(section)
    if (routes := section["figures"].get("routes_changed")) is not None:
        yield f"Of the routes of the general prompts' tokens to experts, {100 * routes:.1f} % are not as before."
    if (now := section["figures"].get(AFTER)) is not None:
        before, ratio = section["figures"][BEFORE], readable(section["figures"][RATIO])
        times = "" if ratio == "1" else f" ({ratio} times as high)"
        yield f"Perplexity behind long contexts: {readable(before)} before, {readable(now)} after{times}."
    if section["worst"]:
        yield _worst(section["worst"])
    cut = [
        f"{section['asked'][kind]} of {number:,} {TITLES[kind]}"
        for kind, number in section["possible"].items()
        if kind != "old_object" and section["asked"][kind] < number
    ]
    if cut:
        yield f"To keep collateral short, only some were asked: {', '.join(cut)}; see `collateral.prompts`."


def _figures(section: Mapping[str, Any]) -> Table:
    figures = section["figures"]
    drawn = Table(title="collateral", title_style="bold")
    drawn.add_column("%")
    for column in ("asked", "changed", "worse", "KL (nats)", "edit said"):
        drawn.add_column(column, justify="right")
    for kind, title in TITLES.items():
        if asked := section["asked"][kind]:
            worse = _percent(figures, f"{kind}_lost" if kind == "old_object" else f"{kind}_worse")
            kl = readable(figures[f"{kind}_kl"]) if f"{kind}_kl" in figures else ""
            changed, said = _percent(figures, f"{kind}_changed"), _percent(figures, f"{kind}_said")
            drawn.add_row(title, str(asked), changed, worse, kl, said)
    return drawn


def _percent(figures: Mapping[str, float], name: str) -> str:
    if name not in figures:
        return ""
    error = figures.get(f"{name}_stderr")
    return f"{100 * figures[name]:.1f}" + (f" ± {100 * error:.1f}" if error else "")


def _worst(lines: list[dict[str, Any]]) -> Table:
    wrong = sum(line["worse"] is not None for line in lines)
    title = "the worst changes" if wrong == len(lines) else f"{counted(wrong, 'failure')}, then what merely changed"
    drawn = Table("prompt", "before", "after", "wrong", title=title)
    for line in lines:
        shown = str if line["worse"] == LOOP else first_sentence
        texts = (" ".join(text.split())[:LONGEST] for text in map(shown, (line["before"], line["after"])))
        drawn.add_row(*cells([line["prompt"], *texts, line["worse"] or ""]))
    return drawn
