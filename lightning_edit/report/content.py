"""What a finished run shows in loggers: the page's facts as texts, tables and pictures."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_edit.commands.comparison.figure import draw
from lightning_edit.commands.comparison.figure_file import SETTINGS
from lightning_edit.commands.comparison.lines import lines_of
from lightning_edit.commands.comparison.methods import published
from lightning_edit.commands.comparison.runs import Run, read_runs
from lightning_edit.commands.comparison.settings import LAYERS, METHOD, MODEL, ONCE
from lightning_edit.loggers.content import RunContent, Setting, Table, escaped
from lightning_edit.messages import counted
from lightning_edit.report.charts import draw_panel, draw_shares
from lightning_edit.report.examples import Answer, shown
from lightning_edit.report.facts import Facts, facts_of
from lightning_edit.report.figures import NO_NUMBER
from lightning_edit.report.records import Edit, read_records
from lightning_edit.report.settings import without_folders

# The figures by which runs are compared, in all of them: TensorBoard takes the columns of the first run for all.
FIGURES = (
    *("edit/S", "edit/efficacy_score", "edit/paraphrase_score", "edit/neighborhood_score", "edit/generated_match"),
    *("collateral/kept", "update/retention_score", "update/edits_per_second"),
)
# And these where a run has them.
FURTHER = re.compile(
    r"edit/(efficacy_accuracy|generated_rouge_l)|update/perplexity|collateral/long_context_perplexity_ratio|"
    r"layer_[^/]+/weight_growth"
)
# Settings that say little, or that are said otherwise.
UNSAID = (
    *("model", METHOD, ONCE, MODEL, LAYERS, "model.context_templates", "model.chat_settings", "model.down_projection"),
    *("model.trust_remote_code", "model.values.kl_prompt", "model.own_answers"),
)
# What curves show where the run was measured in between, else at its ends.
CURVES = (
    ("retention/efficacy_score", "retention/paraphrase_score", "retention/neighborhood_score"),
    ("efficacy_score", "paraphrase_score", "neighborhood_score"),
)
DPI = 150
LARGE = 1.6


def content_of(folder: Path, examples: int, tags: Sequence[str], page: Path | None) -> RunContent:
    """Reads what a finished run shows.

    Args:
        folder: The run's.
        examples: How many edits are shown at most.
        tags: The figures that loggers have.
        page: The run's report, if it was written.

    Raises:
        EditError: If a file of the run is not what a run writes.
    """
    run = read_runs([folder])[0][0]
    facts = facts_of(run)
    tables = (_examples(read_records(folder).edits, examples), _worse(facts), _lost(facts))
    further = sorted(tag for tag in tags if FURTHER.fullmatch(tag))
    return RunContent(
        overview=_overview(facts),
        tables=[table for table in tables if table is not None],
        pictures=dict(_pictures(facts)),
        settings=_settings(run),
        figures=[*FIGURES, *further],
        page=page,
    )


def _overview(facts: Facts) -> str:
    lines = [f"### {escaped(facts.title)}", "", escaped(facts.sentence), ""]
    lines += [f"- **{escaped(tile.value)}** {escaped(tile.label)} ({escaped(tile.note)})" for tile in facts.tiles]
    lines += [f"- {escaped(warning)}" for warning in facts.warnings]
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {escaped(name)} | {escaped(value)} |" for name, value in facts.settings]
    return "\n".join(lines)


# -- tables ------------------------------------------------------------------------------------------------------------


def _examples(edits: Sequence[Edit], most: int) -> Table | None:
    if not edits or not most:
        return None
    ordered = sorted(edits, key=lambda edit: edit.said)[:most]
    failed = sum(not edit.said for edit in edits)
    chosen = "All" if len(ordered) == len(edits) else f"{len(ordered):,} of {len(edits):,}"
    return Table(
        name="answers/edits",
        title="Edits with the model's answers before and after",
        columns=(
            "prompt",
            "new answer",
            "before",
            "after",
            "says it",
            "other wordings",
            "probability before",
            "probability after",
        ),
        rows=tuple(map(_example, ordered)),
        note=f"{chosen}, failures first: {failed:,} of {counted(len(edits), 'edit')} failed.",
        wide=2,
    )


def _example(edit: Edit) -> tuple[str, ...]:
    reworded = "" if edit.reworded is None else f"{edit.reworded[0]} of {edit.reworded[1]}"
    said, sure = "yes" if edit.said else "no", ["" if p is None else _number(p) for p in edit.sure]
    return (
        edit.question,
        edit.new,
        _answer(edit.before, edit.new),
        _answer(edit.after, edit.new),
        said,
        reworded,
        *sure,
    )


def _answer(text: str | None, new: str) -> str:
    return "" if text is None else _joined(shown(text, new))


def _joined(answer: Answer) -> str:
    return "".join(part for part, _ in answer.parts) + "…" * answer.cut


def _worse(facts: Facts) -> Table | None:
    changes = [*facts.worse, *facts.unsaid]
    if not changes:
        return None
    return Table(
        name="answers/worse",
        title="Answers that changed for the worse",
        columns=("prompt", "before", "after", "what is worse"),
        rows=tuple((one.question, _joined(one.before), _joined(one.after), one.reason or "") for one in changes),
        note="The worst of those that were asked beside the edits.",
    )


def _lost(facts: Facts) -> Table | None:
    if not facts.losses:
        return None
    return Table(
        name="answers/lost",
        title="Similar facts of others that were known before and are not any more",
        columns=("prompt", "right answer", "before", "after", "edited beside it"),
        rows=tuple(
            (one.question, one.answer, _number(one.before), _number(one.after), ", ".join(one.edits))
            for one in facts.losses
        ),
        note=f"{len(facts.losses):,} of {facts.all_losses:,}, the worst first; {facts.others:,} were known before. "
        "Numbers are probabilities of the right answer.",
    )


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return NO_NUMBER if math.isnan(value) else f"{value:.3g}"


# -- pictures ----------------------------------------------------------------------------------------------------------


def _pictures(facts: Facts) -> Iterator[tuple[str, bytes]]:
    rows = [one for group in facts.groups.values() for one in group]
    if rows:
        yield "run/before_and_after", _png(draw_shares(rows), LARGE)
    measured = facts.run.metrics()
    metrics = next(([name for name in names if name in measured] for names in CURVES if names[0] in measured), [])
    if metrics:
        with rc_context(SETTINGS):
            yield "run/figure", _png(draw(lines_of([facts.run], "edits"), metrics, "edits"))
    for panel in facts.panels:
        yield f"run/{panel.title.lower().replace(' ', '_')}", _png(draw_panel(panel), LARGE)


def _png(figure: Figure, larger: float = 1.0) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI * larger, facecolor="white")
    return picture.getvalue()


# -- settings ----------------------------------------------------------------------------------------------------------


def _settings(run: Run) -> dict[str, Setting]:
    known: dict[str, Setting] = {
        "method": published(run.settings[METHOD]),
        "model": without_folders(run.settings.get(MODEL, "")),
        "layers": run.settings.get(LAYERS, "").strip("[]"),
        "edits": float(run.edits),
        "edits_per_update": float(run.batch_size),
    }
    others = {
        name: _value(without_folders(value))
        for name, value in sorted(run.settings.items())
        if not any(name == part or (name.startswith(f"{part}.") and part != "model") for part in UNSAID)
    }
    return {name: value for name, value in (known | others).items() if value != ""}


def _value(text: str) -> Setting:
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
