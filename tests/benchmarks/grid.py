"""What a tuning finds beside the best point of the whole grid: ``python -m tests.benchmarks.grid MODEL --data FILE``.

Both make their trials on the same edits, with the same value vectors and second moments; the grid tries every point
with all edits. Trials are kept as they are made, so a run that was stopped goes on. The cost is counted in written
edits. Where the whole grid takes too long, ``--vectors 10`` tries ten sets of value vectors, drawn at random, with
every weight: what is best among those is at most as good as the best of the grid.
"""

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from lightning_edit.cli.loaded import decoder_on
from lightning_edit.cli.tune import read_requests
from lightning_edit.datamodules.preservation import TextFile
from lightning_edit.progress import ProgressBars
from lightning_edit.tuning.judge import FAVORS
from lightning_edit.tuning.log import as_json
from lightning_edit.tuning.points import Point
from lightning_edit.tuning.search import best_of
from lightning_edit.tuning.tune import TuneSettings, bench_for, hash_of, log_for, make_plan, tune


def drawn(space: Iterable[Point], vectors: int | None) -> list[Point]:
    """The points of so many sets of value vectors, in the order of the grid.

    Args:
        space: All points.
        vectors: How many sets; None for all.
    """
    points = list(space)
    sets = sorted({(point.layers, point.lr, point.clamp) for point in points})
    chosen = set(sets if vectors is None else random.Random(0).sample(sets, min(vectors, len(sets))))
    return [point for point in points if (point.layers, point.lr, point.clamp) in chosen]


def main() -> None:
    """Tunes, tries the grid, and shows both."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.grid", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", help="edits; public facts if not given")
    parser.add_argument("--preserve", help="ordinary text; the model's own if not given")
    parser.add_argument("--edits", type=int, default=32)
    parser.add_argument("--vectors", type=int, help="how many sets of value vectors of the grid; all if not given")
    parser.add_argument("--output", type=Path, default=Path("grid.json"))
    given = parser.parse_args()
    decoder, tokenizer = decoder_on(given.model, "auto", "auto")
    requests = None if given.data is None else read_requests(given.data)
    file = None if given.preserve is None else TextFile(given.preserve)
    texts = None if file is None else file.texts()
    # Second moments read only as many texts as they need, the hash all of them.
    preserved = hash_of(None if file is None else file.texts())
    settings = TuneSettings(given.edits)
    with ProgressBars() as report:
        plan = make_plan(decoder, tokenizer, settings, requests, report=report)
        bench = bench_for(decoder, tokenizer, plan, settings, texts, report=report)
        log = log_for(given.output.with_suffix(".trials.jsonl"), bench, plan, settings, preserved)
        edits, grid = len(plan.material.requests), []
        found = {favor: tune(bench, plan, TuneSettings(given.edits, favor), log, report) for favor in FAVORS}
        # What was tuned first would otherwise find its value vectors in the grid.
        tried = drawn(plan.space, given.vectors)
        for number, point in enumerate(tried, start=1):
            if (trial := log.get(point, edits)) is None:
                trial = bench.run(point, edits)
                log.add(trial)
            grid.append(trial)
            report("grid (trials)", number, len(tried))
    rows = []
    for favor, outcome in found.items():
        best = best_of(grid, favor)
        cost = sum(trial.edits for trial in outcome.trials) / (edits * len(plan.space))
        means = (outcome.chosen.score.mean(favor), best.score.mean(favor))
        rows.append({"favor": favor, "tuned": as_json(outcome.chosen), "grid": as_json(best), "means": means})
        Console().print(f"{favor}: tuned {means[0]:.3f}, best of {len(grid)} points {means[1]:.3f}, cost {cost:.1%}")
    given.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
