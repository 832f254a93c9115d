"""Sequential editing: methods side by side, one update after the other, on what each has left of model and edits.

A case of one's own goes on where it was stopped: ``python -m tests.benchmarks.sequential cf-gpt FOLDER``.
"""

import argparse
import csv
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.figure import draw
from lightning_edit.commands.comparison.lines import Line
from lightning_edit.commands.comparison.runs import Run as Finished
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.commands.comparison.style import SMALL
from lightning_edit.errors import EditError
from lightning_edit.tiny import World
from tests.benchmarks.sequential_methods import CASES, Case, methods, newer, options_of, others, updates_of
from tests.benchmarks.show import Row, Run

PERPLEXITY, GROWTH = "downstream/perplexity", "weight_growth"
PANELS = ("retention/efficacy_score", "retention/neighborhood_score", PERPLEXITY, GROWTH)
POINTS = 10
SCORES = {"ES": "efficacy_score", "PS": "paraphrase_score", "NS": "neighborhood_score", "S": "S"}
SAID = {"says it": "generated_match", "reworded": "generated_paraphrase"}
WORSE = {"general worse": "general_worse", "old objects lost": "old_object_lost"}
FIRST = "first kept"
# Stages that are no part of editing.
MEASURED = ("load", "evaluate", "collateral", "watch", "retention", "downstream", "examples")


def _perplexity_task(case: Case, folder: Path) -> Path:
    """A task file for the case's text."""
    text = case.text or folder / "text.jsonl"
    if case.text is None:
        sentences = list(World.generate().sentences(seed=0))[-2000:]
        text.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences), encoding="utf-8")
    task = folder / "perplexity.yaml"
    task.write_text(f'kind: text\ntext: text\nseparator: " "\ndata:\n  file: {text}\n', encoding="utf-8")
    return task


def command(case: Case, method: str, task: Path, folder: Path, points: int = POINTS) -> list[str]:
    """The command line of one run that is measured so many times on its way."""
    every = max(1, case.edits // points // updates_of(case, method))
    return [
        "fit",
        f"--data.batch_size={case.per_update}",
        *(option.replace("{edits}", str(case.edits)) for option in options_of(case, method)),
        f"--downstream.tasks={task}",
        "--downstream.tests=20",
        f"--downstream.every_n_updates={every}",
        "--retention.sample=200",
        f"--retention.every_n_updates={every}",
        "--watch.every_n_updates=null",
        f"--trainer.logger.save_dir={folder}",
    ]


def fit(words: Sequence[str]) -> float:
    """Seconds of one run, the measurements included; in its own process."""
    start = time.perf_counter()
    cli.main(list(words))
    return time.perf_counter() - start


def finished(folder: Path) -> Finished | None:
    """The last finished run in a folder, with the norms of its weights; None if there is none."""
    try:
        found = read_runs([folder])[0]
    # Nothing was run yet, or it was stopped.
    except EditError:
        return None
    measured = {at: dict(figures) for at, figures in found[-1].measured.items()}
    measured.get(0, {})[GROWTH] = 1.0
    # What trains in one go, or edits nothing, has no updates.
    if (updates := found[-1].folder / "updates.csv").is_file():
        for row in csv.DictReader(updates.read_text(encoding="utf-8").splitlines()):
            growths = [float(value) for name, value in row.items() if name.endswith("/weight_growth") and value]
            if growths and int(row["edits"]) in measured:
                measured[int(row["edits"])][GROWTH] = max(growths)
    return replace(found[-1], measured=measured)


def compare(
    case: Case, names: Sequence[str], folder: Path, run: Run, again: bool = True, points: int = POINTS
) -> dict[str, Any]:
    """Runs methods on a case, and draws them.

    Args:
        case: What is edited.
        names: The methods, see `methods`.
        folder: Gets a folder of runs for each, and ``sequential.png``.
        run: Runs a job in a process of its own.
        again: Whether a method that has a finished run in the folder is run again.
        points: How often a run is measured on its way.

    Raises:
        EditError: If the folder has runs of a method with other options.

    Returns:
        ``rows``, one for each method, and the path of the ``figure``.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    task, lines, rows = _perplexity_task(case, folder), [], []
    for name in names:
        place = folder / name.replace(", ", "_").replace(" ", "_")
        words, told = command(case, name, task, place, points), place / "command.json"
        if not again and told.is_file() and json.loads(told.read_text(encoding="utf-8")) != words:
            raise EditError(f"{place} has runs with other options: choose another folder, or delete that one.")
        if again or finished(place) is None:
            place.mkdir(parents=True, exist_ok=True)
            told.write_text(json.dumps(words) + "\n", encoding="utf-8")
            run(f"{name}: {case.edits} edits", fit, words)
        done = finished(place)
        assert done is not None
        lines.append(Line(name, (done,)))
        rows.append(row_of(name, done, case.per_update))
        # Drawn after each method, so that a long comparison that is ended leaves what it had.
        figure = draw(lines, PANELS, "edits")
        for axes, panel in zip(figure.axes, PANELS, strict=True):
            if panel in (PERPLEXITY, GROWTH):
                _logarithmic(axes)
        figure.savefig(folder / "sequential.png")
    return {"rows": rows, "figure": str(folder / "sequential.png")}


def _logarithmic(axes: Axes) -> None:
    """A logarithmic y axis whose numbers are written out."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    axes.tick_params(which="both", labelsize=SMALL)


def row_of(name: str, done: Finished, first: int) -> Row:
    """What the table shows of a run.

    Args:
        name: Of the method.
        done: The run.
        first: How many edits, the first of the run, are looked at by themselves.
    """
    spent = done.seconds
    metrics = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))
    worse = (metrics.get("collateral") or {}).get("figures", {})
    return {
        "method": name,
        "edits": done.edits,
        **{short: done.after[long] for short, long in (SCORES | SAID).items()},
        **{short: worse.get(long) for short, long in WORSE.items()},
        FIRST: _kept(done.folder / "records.jsonl", first),
        "perplexity_before": done.before[PERPLEXITY],
        "perplexity_after": done.after[PERPLEXITY],
        "weight_growth": done.after.get(GROWTH),
        **{f"{stage}_seconds": spent.get(stage, 0.0) for stage in ("values", "solve", "checkpoints")},
        "total_seconds": sum(seconds for stage, seconds in spent.items() if stage not in MEASURED),
    }


def _kept(records: Path, first: int) -> float:
    """The share of the first edits whose answer is still said at the end of the run."""
    lines = map(json.loads, records.read_text(encoding="utf-8").splitlines())
    said = [record["generated_match"] for record in lines if record["stage"] == "after"][:first]
    return sum(said) / len(said)


def stage(run: Run, quick: bool) -> dict[str, Any]:
    """All methods on the embedded model; see the module."""
    case = CASES["tiny"]
    if quick:
        quicker = replace(case, edits=30, per_update=10)
        return compare(quicker, ("MEMIT", "ENCORE"), Path("runs/benchmark_sequential_quick"), run)
    # The newer ones by themselves: all together take a quarter of an hour.
    newer_ones = {**newer(case, lambda *_, **__: []), **others(case)}
    older = [name for name in methods(case) if name not in newer_ones]
    return compare(case, older, Path("runs/benchmark_sequential"), run)


def tables(found: dict[str, Any]) -> list[Table]:
    """The figures, for people."""
    first = found["rows"][0]
    table = Table(
        box=SIMPLE,
        title=f"Sequential editing, {first['edits']} edits",
        caption="Scores in % over all edits at the end. Says it: greedy answers to the prompts, to other wordings, and "
        "to the prompts of the first update. General answers that got worse; questions whose answer is an old object "
        "and that is lost; perplexity of ordinary text; |W| / |W0| of the edited weight that grew most. Seconds "
        f"without measurements. Figure: {found['figure']}",
    )
    shares = (*SCORES, *SAID, FIRST, *WORSE)
    headings = ("method", *shares, "perplexity", "|W| growth", "values s", "solve s", "total s")
    for name in headings:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in found["rows"]:
        table.add_row(
            row["method"],
            *("" if row[name] is None else f"{100 * row[name]:.1f}" for name in shares),
            f"{row['perplexity_before']:.3g} -> {row['perplexity_after']:.3g}",
            "" if row["weight_growth"] is None else f"{row['weight_growth']:.2f}",
            *(f"{row[f'{name}_seconds']:.1f}" for name in ("values", "solve", "total")),
        )
    return [table]


def main() -> None:
    """Compares methods on one case, and leaves alone what is finished already."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sequential", description=main.__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder", type=Path, help="where the runs, the figure and sequential.json go")
    parser.add_argument("--edits", type=int, help="how many, in place of the case's own number")
    parser.add_argument("--only", nargs="+", choices=methods(CASES["tiny"]), help="which methods")
    parser.add_argument("--points", type=int, default=POINTS, help="how often a run is measured on its way")
    parser.add_argument("--eta", type=float, help="of values from gradients, in place of the case's own")
    parser.add_argument("--weight", type=float, help="w of MEMIT and EMMET, in place of the case's own")
    parser.add_argument("--gradient_layers", help="whose maps those change, e.g. [3]")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    parser.add_argument(
        "--options", nargs="+", default=[], help="further options of each run, e.g. model.second_moment.questions=6000"
    )
    args, console = parser.parse_args(), Console()
    names = ("edits", "eta", "weight", "gradient_layers")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.points < 1:
        raise SystemExit(f"--points must be 1 or more, got {args.points}.")
    case = replace(CASES[args.case], **given)
    case = replace(case, options=(*case.options, *(f"--{option}" for option in args.options)))

    run = Run(console, args.threads)
    found = compare(case, args.only or tuple(methods(case)), args.folder, run, again=False, points=args.points)
    (args.folder / "sequential.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for table in tables(found):
        Console(width=max(console.width, 160)).print(table)


if __name__ == "__main__":
    main()
