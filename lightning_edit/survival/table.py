"""What became of the edits, as a table: a row for each variant."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.messages import counted
from lightning_edit.survival.results import Result

KINDS = ("efficacy", "paraphrase", "neighborhood")
HEADINGS = {
    "generated_paraphrase": "re-\nworded",
    "efficacy": "effi-\ncacy",
    "paraphrase": "para-\nphrase",
    "neighborhood": "neigh-\nbors",
    "locality_token_accuracy": "lo-\ncality",
    "perplexity": "per-\nplexity",
}


def shown_figures(results: Sequence[Result]) -> list[str]:
    """The figures that a table shows, of those that were measured.

    Args:
        results: What was measured.
    """
    there = {name for result in results for name in result.figures}
    names = ["generated_paraphrase"]
    for kind in KINDS:
        names.append(f"{kind}_score" if f"{kind}_score" in there else f"{kind}_accuracy")
    names += ["S", "locality_token_accuracy", "perplexity"]
    return [name for name in names if name in there]


def still_said(result: Result, edited: Result | None) -> tuple[int, int] | None:
    """How many edits a model still says of those that the edited model says, and how many these are.

    Args:
        result: Of the model.
        edited: Of the edited model; None where it was not measured.
    """
    if edited is None or not edited.answers or len(edited.said) != len(result.said):
        return None
    return sum(now and then for now, then in zip(result.said, edited.said, strict=True)), sum(edited.said)


def edited_of(results: Sequence[Result]) -> Result | None:
    """The result of the edited model as it is, if it was measured.

    Args:
        results: All results.
    """
    return next((one for one in results if one.variant == "edited" and one.answers), None)


def table(results: Sequence[Result]) -> Table:
    """Draws the table; what was not run is said in the lines of `not_run`.

    Args:
        results: In the order of the rows.
    """
    names, edited = shown_figures(results), edited_of(results)
    edits = max((len(result.answers) for result in results), default=0)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, title_style="bold", caption_justify="left")
    drawn.title, drawn.caption = f"What survives of {counted(edits, 'edit')}", _caption(names)
    drawn.add_column("model", no_wrap=True)
    drawn.add_column("says it", justify="right", no_wrap=True)
    drawn.add_column("still\nsaid", justify="right", no_wrap=True)
    for name in names:
        drawn.add_column(_heading(name), justify="right", no_wrap=True)
    for result in results:
        drawn.add_row(result.title, *_cells(result, edited, names))
    return drawn


def _cells(result: Result, edited: Result | None, names: Sequence[str]) -> list[str]:
    if result.not_run:
        return ["not run"]
    kept = still_said(result, edited)
    still = "" if kept is None or result is edited else f"{kept[0]} of {kept[1]}"
    figures = [result.figure(name) for name in names]
    shown = ["" if value is None else quantity(name).text(value) for name, value in zip(names, figures, strict=True)]
    return [f"{sum(result.said)} of {len(result.said)}", still, *shown]


def _heading(name: str) -> str:
    return HEADINGS.get(name) or HEADINGS.get(name.partition("_")[0]) or name


def _caption(names: Sequence[str]) -> str:
    """What the figures are, as there is no room for it in the headings."""
    scores = any(name.endswith("_score") for name in names)
    said = "scores" if scores else "accuracies"
    return f"In percent. Efficacy, paraphrase and neighbors are {said}; reworded is said to paraphrases."


def not_run(results: Sequence[Result]) -> list[str]:
    """Why variants have no figures, a line each.

    Args:
        results: All results.
    """
    return [f"{result.title}, not run: {result.not_run}" for result in results if result.not_run]
