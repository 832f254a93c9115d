"""What a tuning finds beside the best point of the whole grid: ``python -m tests.benchmarks.grid MODEL --data FILE``.

Both make their trials on the same edits, with the same value vectors and second moments; the grid tries every point
with all edits. Trials are kept as they are made, so a run that was stopped goes on. The cost is counted in written
edits.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from lightning_edit.cli.loaded import decoder_on
from lightning_edit.cli.tune import read_requests
from lightning_edit.datamodules.preservation import TextFile
from lightning_edit.progress import ProgressBars
from lightning_edit.tuning.judge import FAVORS
from lightning_edit.tuning.log import as_json
from lightning_edit.tuning.search import best_of
from lightning_edit.tuning.tune import TuneSettings, bench_for, log_for, make_plan, tune


def main() -> None:
    """Tunes, tries the grid, and shows both."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.grid", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", help="edits; public facts if not given")
    parser.add_argument("--preserve", help="ordinary text; the model's own if not given")
    parser.add_argument("--edits", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path("grid.json"))
    given = parser.parse_args()
    decoder, tokenizer = decoder_on(given.model, "auto", "auto")
    requests = None if given.data is None else read_requests(given.data)
    texts = None if given.preserve is None else TextFile(given.preserve).texts()
    settings = TuneSettings(given.edits)
    with ProgressBars() as report:
        plan = make_plan(decoder, tokenizer, settings, requests, report=report)
        bench = bench_for(decoder, tokenizer, plan, settings, texts, report=report)
        log = log_for(given.output.with_suffix(".trials.jsonl"), bench, plan, settings, str(given.preserve))
        edits, grid = len(plan.material.requests), []
        found = {favor: tune(bench, plan, TuneSettings(given.edits, favor), log, report) for favor in FAVORS}
        # What was tuned first would otherwise find its value vectors in the grid.
        for number, point in enumerate(plan.space, start=1):
            if (trial := log.get(point, edits)) is None:
                trial = bench.run(point, edits)
                log.add(trial)
            grid.append(trial)
            report("grid (trials)", number, len(plan.space))
    rows = []
    for favor, outcome in found.items():
        best = best_of(grid, favor)
        cost = sum(trial.edits for trial in outcome.trials) / (edits * len(grid))
        means = (outcome.chosen.score.mean(favor), best.score.mean(favor))
        rows.append({"favor": favor, "tuned": as_json(outcome.chosen), "grid": as_json(best), "means": means})
        Console().print(f"{favor}: tuned {means[0]:.3f}, best of {len(grid)} points {means[1]:.3f}, cost {cost:.1%}")
    given.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
