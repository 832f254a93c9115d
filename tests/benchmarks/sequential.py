"""Sequential editing: methods side by side, one update after the other, on what each has left of model and edits.

A case of one's own goes on where it was stopped: ``python -m tests.benchmarks.sequential cf-gpt FOLDER``.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter
from rich.console import Console
from rich.table import Table

from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.figure import SMALL, draw
from lightning_edit.commands.comparison.lines import Line
from lightning_edit.commands.comparison.runs import Run as Finished
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.tiny import World
from tests.benchmarks.show import Row, Run
from tests.conftest import SHARED

PERPLEXITY, GROWTH = "downstream/perplexity", "weight_growth"
PANELS = ("retention/efficacy_score", "retention/neighborhood_score", PERPLEXITY, GROWTH)
POINTS = 10
SCORES = {"ES": "efficacy_score", "PS": "paraphrase_score", "NS": "neighborhood_score", "S": "S"}


@dataclass(frozen=True)
class Case:
    """What all methods edit, and their settings for it.

    Args:
        options: Model, layers, values and data, as on the command line.
        edits: How many.
        per_update: Edits of an update; ROME and r-ROME write each by itself.
        text: Ordinary text for perplexity, JSON lines with a field ``text``; the embedded world's own if not given.
        weight: w of MEMIT and EMMET.
        ridge: Of ENCORE.
        mpes: Passes with the answer after which MPES stops.
        threshold: Of AlphaEdit.
        alpha_ridge: Of AlphaEdit.
        eta: Of values from gradients.
    """

    options: tuple[str, ...]
    edits: int
    per_update: int
    text: Path | None
    weight: float
    ridge: float
    mpes: int
    threshold: float
    alpha_ridge: float
    eta: float


CASES = {
    "tiny": Case(
        options=("--model.layers=[0]", "--data=TinyWorld", "--data.edits={edits}"),
        edits=200,
        per_update=20,
        text=None,
        weight=100,
        ridge=1,
        mpes=2,
        threshold=0.02,
        alpha_ridge=1,
        eta=1e-3,
    ),
    "cf-gpt": Case(
        options=(
            f"--model.model={SHARED / 'models' / 'cf-gpt'}",
            "--model.layers=[0]",
            "--model.values.lr=0.1",
            "--model.values.steps=25",
            "--model.values.clamp_norm_factor=4",
            "--model.values.early_stop_loss=0.05",
            "--data=CounterFact",
            f"--data.path={SHARED / 'data' / 'counterfact_known.json'}",
            "--data.limit={edits}",
            "--data.conflicts=keep_first",
            "--data.preservation=TextFile",
            f'--data.preservation.path=["{SHARED / "data" / "text_10k.jsonl"}","{SHARED / "data" / "text_facts.txt"}"]',
        ),
        edits=1000,
        per_update=50,
        text=SHARED / "data" / "text_10k.jsonl",
        # The best of a few, over 100 edits.
        weight=100,
        ridge=3,
        mpes=6,
        threshold=0.1,
        alpha_ridge=3,
        eta=1e-3,
    ),
}


def methods(case: Case) -> dict[str, list[str]]:
    """The options of each method. Where a ridge is no part of the method, it is 0."""

    def solver(name: str, *options: str, **arguments: float) -> list[str]:
        return [
            f"--model.solver={name}",
            *(f"--model.solver.{key}={value}" for key, value in arguments.items()),
            *options,
        ]

    memit = partial(solver, "MEMIT", second_moment_weight=case.weight)
    emmet = partial(solver, "EMMET", second_moment_weight=case.weight, ridge=0, emmet_lambda=0.1)
    earlier, mpes = "--model.previous_keys=true", f"--model.values.mpes={case.mpes}"
    return {
        "ROME": solver("ROME", "--model.values.site=mlp", "--model.key_average=flat", ridge=0),
        "r-ROME": solver("RROME", ridge=0),
        "EMMET": emmet(),
        "MEMIT": memit(ridge=0),
        "EMMET, earlier keys": emmet(earlier),
        "sequential MEMIT": memit(earlier, ridge=0),
        "AlphaEdit": solver("AlphaEdit", threshold=case.threshold, ridge=case.alpha_ridge),
        "EMMET + MPES": emmet(earlier, mpes),
        "ENCORE": memit(earlier, mpes, ridge=case.ridge),
        **_newer(case, solver),
    }


def _newer(case: Case, solver: Callable[..., list[str]]) -> dict[str, list[str]]:
    """Methods of 2025 and 2026, and combinations of their parts that nobody has published."""
    memit = partial(solver, "MEMIT", second_moment_weight=case.weight, ridge=case.ridge)
    alpha = partial(solver, "AlphaEdit", threshold=case.threshold, ridge=case.alpha_ridge)
    gradient = ("--model.source=Gradient", f"--model.source.eta={case.eta}")
    earlier, processed = "--model.previous_keys=true", "--model.post_processing"
    return {
        "LyapLock": memit("--model.anchor=LyapLock"),
        "EvoEdit": alpha("--model.anchor=EvoEdit"),
        "SimIE": memit("--model.anchor=SimIE", "--model.values.weights=unedited"),
        "NAS": alpha("--model.values.norm_anchor=auto"),
        "SPHERE": alpha(f"{processed}=SPHERE"),
        "REVIVE": memit(earlier, f"{processed}=REVIVE"),
        "UltraEdit": solver("Ridge", *gradient, ridge=1),
        "UltraEdit, earlier keys": solver("Ridge", *gradient, earlier, ridge=1),
        "gradients, MEMIT, earlier keys": memit(*gradient, earlier),
        "gradients, AlphaEdit": alpha(*gradient),
        "sequential MEMIT + NAS": memit(earlier, "--model.values.norm_anchor=auto"),
        "ENCORE + SPHERE": memit(earlier, f"--model.values.mpes={case.mpes}", f"{processed}=SPHERE"),
    }


def _perplexity_task(case: Case, folder: Path) -> Path:
    """A task file for the case's text."""
    text = case.text or folder / "text.jsonl"
    if case.text is None:
        sentences = list(World.generate().sentences(seed=0))[-2000:]
        text.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences), encoding="utf-8")
    task = folder / "perplexity.yaml"
    task.write_text(f'kind: text\ntext: text\nseparator: " "\ndata:\n  file: {text}\n', encoding="utf-8")
    return task


def command(case: Case, method: str, task: Path, folder: Path) -> list[str]:
    """The command line of one run."""
    size = 1 if method in ("ROME", "r-ROME") else case.per_update
    every = max(1, case.edits // POINTS // size)
    return [
        "fit",
        *(option.replace("{edits}", str(case.edits)) for option in case.options),
        f"--data.batch_size={case.per_update}",
        f"--model.edits_per_update={size}",
        *methods(case)[method],
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
    found = read_runs([folder])[0] if any(folder.rglob("metrics.json")) else []
    if not found:
        return None
    measured = {at: dict(figures) for at, figures in found[-1].measured.items()}
    measured.get(0, {})[GROWTH] = 1.0
    with (found[-1].folder / "updates.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            growths = [float(value) for name, value in row.items() if name.endswith("/weight_growth") and value]
            if growths and int(row["edits"]) in measured:
                measured[int(row["edits"])][GROWTH] = max(growths)
    return replace(found[-1], measured=measured)


def compare(case: Case, names: Sequence[str], folder: Path, run: Run, again: bool = True) -> dict[str, Any]:
    """Runs methods on a case, and draws them.

    Args:
        case: What is edited.
        names: The methods, see `methods`.
        folder: Gets a folder of runs for each, and ``sequential.png``.
        run: Runs a job in a process of its own.
        again: Whether a method that has a finished run in the folder is run again.

    Returns:
        ``rows``, one for each method, and the path of the ``figure``.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    task, lines, rows = _perplexity_task(case, folder), [], []
    for name in names:
        place = folder / name.replace(", ", "_").replace(" ", "_")
        if again or finished(place) is None:
            run(f"{name}: {case.edits} edits", fit, command(case, name, task, place))
        done = finished(place)
        assert done is not None
        lines.append(Line(name, (done,)))
        rows.append(row_of(name, done))
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


def row_of(name: str, done: Finished) -> Row:
    """What the table shows of a run."""
    spent = done.seconds
    return {
        "method": name,
        "edits": done.edits,
        **{short: done.after[long] for short, long in SCORES.items()},
        "perplexity_before": done.before[PERPLEXITY],
        "perplexity_after": done.after[PERPLEXITY],
        "weight_growth": done.after[GROWTH],
        **{f"{stage}_seconds": spent.get(stage, 0.0) for stage in ("values", "solve", "checkpoints")},
        "total_seconds": sum(seconds for stage, seconds in spent.items() if stage != "evaluate"),
    }


def stage(run: Run, quick: bool) -> dict[str, Any]:
    """All methods on the embedded model; see the module."""
    case = CASES["tiny"]
    if quick:
        quicker = replace(case, edits=30, per_update=10)
        return compare(quicker, ("MEMIT", "ENCORE"), Path("runs/benchmark_sequential_quick"), run)
    # The newer ones by themselves: all together take a quarter of an hour.
    older = [name for name in methods(case) if name not in _newer(case, lambda *_, **__: [])]
    return compare(case, older, Path("runs/benchmark_sequential"), run)


def tables(found: dict[str, Any]) -> list[Table]:
    """The figures, for people."""
    first = found["rows"][0]
    table = Table(
        title=f"Sequential editing, {first['edits']} edits",
        caption="Scores in % over all edits at the end; perplexity of ordinary text; |W| / |W0| of the edited weight "
        f"that grew most. Seconds without measurements. Figure: {found['figure']}",
    )
    headings = ("method", *SCORES, "perplexity", "|W| growth", "values s", "solve s", "checkpoints s", "total s")
    for name in headings:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in found["rows"]:
        table.add_row(
            row["method"],
            *(f"{100 * row[name]:.1f}" for name in SCORES),
            f"{row['perplexity_before']:.3g} -> {row['perplexity_after']:.3g}",
            f"{row['weight_growth']:.2f}",
            *(f"{row[f'{name}_seconds']:.1f}" for name in ("values", "solve", "checkpoints", "total")),
        )
    return [table]


def main() -> None:
    """Compares methods on one case, and leaves alone what is finished already."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sequential", description=main.__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder", type=Path, help="where the runs, the figure and sequential.json go")
    parser.add_argument("--edits", type=int, help="how many, in place of the case's own number")
    parser.add_argument("--only", nargs="+", choices=methods(CASES["tiny"]), help="which methods")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    args, console = parser.parse_args(), Console()
    case = replace(CASES[args.case], **({"edits": args.edits} if args.edits else {}))

    run = Run(console, args.threads)
    found = compare(case, args.only or tuple(methods(case)), args.folder, run, again=False)
    (args.folder / "sequential.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for table in tables(found):
        Console(width=max(console.width, 130)).print(table)


if __name__ == "__main__":
    main()
