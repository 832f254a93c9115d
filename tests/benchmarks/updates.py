"""Thousands of updates of one edit each: whether an update takes as long, and as much memory, late as early.

A whole run of the library on the embedded model, with its checkpoints, its table of updates, the file of each update
and measurements of a few earlier edits after each. ``python -m tests.benchmarks.updates FOLDER`` draws the course.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from rich.console import Console
from rich.table import Table

from lightning_edit import EditingModule
from lightning_edit.callbacks import EditCheckpoint, Watch
from lightning_edit.datamodules import TinyWorldText
from lightning_edit.values.settings import ValueSettings
from tests.benchmarks.material import Choice
from tests.benchmarks.show import Row, Run, mebibytes, number, table_of
from tests.benchmarks.stream import Gauge, Stream

MODELS = ("tiny",)
FULL, QUICK = 2_000, 40
# Updates around which a figure is the median, and after which a row of the table stands.
AROUND, PLACES = 50, (100, 1_000, 2_000, 5_000, 10_000, 20_000)
STEPS = 3
TIMES = ("seconds", "processor", "values", "solve", "checkpoints", "other")


def measure(choice: Choice, minutes: int | None = None) -> list[Row]:
    """What each update took, and what there was after it.

    Args:
        choice: The model, and how many updates.
        minutes: After which no more are begun; None for all.
    """
    module = EditingModule(
        choice.model,
        layers=[1],
        edits_per_update=1,
        context_templates=["{}"],
        values=ValueSettings(steps=STEPS),
        previous_keys=True,
    )
    data, gauge = Stream(choice.edits, 1, TinyWorldText()), Gauge()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1,
            accelerator=choice.device if choice.device == "cpu" else "gpu",
            logger=CSVLogger(folder, name=""),
            callbacks=[EditCheckpoint(), Watch(sample=16), gauge],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            max_time=None if minutes is None else {"minutes": minutes},
        )
        trainer.fit(module, datamodule=data)
    return gauge.rows


def at_places(rows: Sequence[Row], places: Sequence[int] = PLACES) -> list[Row]:
    """The course at some updates and at its end: medians of times over the updates up to there.

    Args:
        rows: A row for each update.
        places: The numbers of the updates.
    """
    reached = sorted({place for place in (*places, len(rows)) if place <= len(rows)})
    parts = [rows[max(0, place - AROUND) : place] for place in reached]
    return [part[-1] | {name: statistics.median(row[name] for row in part) for name in TIMES} for part in parts]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws time and memory of each update over its number.

    Args:
        rows: A row for each update.
        path: Of the PNG.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    numbers = [row["edits"] for row in rows]
    panels = {
        "ms of an update (processor)": [1000 * row["processor"] for row in rows],
        "memory, MiB": [row["memory_bytes"] / 2**20 for row in rows],
    }
    for axes, (name, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.plot(numbers, values, ".", markersize=1, color="0.75")
        size = max(1, len(rows) // 100)
        middles = [statistics.median(values[i : i + size]) for i in range(0, len(values), size)]
        axes.plot(numbers[size - 1 :: size], middles[: len(numbers[size - 1 :: size])], linewidth=1.5)
        axes.set(xlabel="update", title=name, ylim=(0, 1.6 * max(middles)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.savefig(path, dpi=150)


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    rows = []
    for choice in run.choices(MODELS, QUICK if quick else FULL):
        found = run(f"{choice.model}: {choice.edits} updates of one edit", measure, choice)
        rows += [{"model": choice.model, **row} for row in at_places(found)]
    return {"timed": rows}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    lines = [
        (
            row["model"],
            f"{row['edits']:,}",
            *(number(1000 * row[name]) for name in TIMES),
            mebibytes(row["memory_bytes"]),
            f"{row['checkpoint_bytes'] / 1024:,.0f} KiB",
            f"{row['table_bytes'] / 1024:,.0f} KiB",
        )
        for row in rows["timed"]
    ]
    columns = ("model", "updates", "ms an update", "processor", "values", "solve", "files", "other")
    columns += ("memory", "checkpoint", "updates.csv")
    title = "Updates of one edit"
    caption = f"Medians of {AROUND} updates; memory and sizes of files after the last of them. Other: data and tables."
    return [table_of(title, caption, columns, 1, lines)]


def main() -> None:
    """Runs so many updates, and leaves their course as updates.png and updates.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.updates", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where figure and numbers go")
    parser.add_argument("--edits", type=int, default=FULL, help="how many updates")
    parser.add_argument("--minutes", type=int, help="after which no more are begun")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    args, console = parser.parse_args(), Console()
    run = Run(console, args.threads)
    found = run(
        f"tiny: {args.edits} updates of one edit", measure, Choice("tiny", args.edits, "cpu", False), args.minutes
    )
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "updates.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    draw(found, args.folder / "updates.png")
    timed = [{"model": "tiny", **row} for row in at_places(found)]
    for table in tables({"timed": timed}):
        Console(width=max(console.width, 140)).print(table)


if __name__ == "__main__":
    main()
