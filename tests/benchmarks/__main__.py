"""Runs the benchmarks: ``python -m tests.benchmarks``, or ``make benchmark``.

Each stage is measured beside the published way of doing it, in the same run on the same edits, and beside its floor:
the floating-point operations that it needs on real tokens, without padding and with nothing done twice, at the rate of
matrix products that the machine shows right before and after (`tests.benchmarks.floor`). For second moments the floor
is the bare forward pass. Weights of published shapes are random, so nothing is downloaded; no edit stops early.

    values      value vectors, 20 passes for every edit
    keys        what enters the edited layer
    gradients   whole updates with values from gradients
    solvers     the update of one layer, dual and primal
    moments     second moments of several layers
    evaluation  answers to all prompts of records, and texts
    whole       values, keys and solving of one batch; with second moments, and where they are given
    memory      peaks of whole edits against the bare model, with `memory: normal` and `low`
    size        seconds and memory as the model, the number of edits, the layers and the answers grow
    scaling     values of the same edits in two processes against one
    stream      memory, seconds and files over 100,000 edits by gradient values, one update after the other
    updates     the same over thousands of updates of one edit
    sequential  methods side by side, one update after the other: quality, not only speed

The last five are run where ``--only`` names them, the others in a quarter of an hour. Tables go to the screen,
and all figures to a JSON file. On a GPU: ``--device cuda --models gpt2-xl gpt-j llama-3-8b``.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks import (
    evaluation,
    gradients,
    keys,
    memory,
    moments,
    scaling,
    sequential,
    size,
    solvers,
    stream,
    updates,
    values,
    whole,
)
from tests.benchmarks.material import SHAPES
from tests.benchmarks.measure import machine
from tests.benchmarks.show import Run

STAGES = {
    "values": values,
    "keys": keys,
    "gradients": gradients,
    "solvers": solvers,
    "moments": moments,
    "evaluation": evaluation,
    "whole": whole,
    "memory": memory,
    "size": size,
    "scaling": scaling,
    "stream": stream,
    "updates": updates,
    "sequential": sequential,
}

# These take as long as all others together, and are run by name.
LONG = ("size", "scaling", "stream", "updates", "sequential")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="small cases, to see that everything runs")
    usual = [name for name in STAGES if name not in LONG]
    parser.add_argument("--only", choices=STAGES, nargs="+", default=usual, help="which stages to run")
    parser.add_argument("--models", choices=("tiny", *SHAPES), nargs="+", help="in place of each stage's own")
    parser.add_argument("--edits", type=int, help="how many edits or records, in place of each stage's own number")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models are")
    parser.add_argument("--shrunk", action="store_true", help="random models get two narrow blocks")
    parser.add_argument("--here", action="store_true", help="all jobs in this process, with its threads")
    parser.add_argument("--threads", type=int, help="torch's threads; its own choice if not given")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.json"), help="where the figures are written")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the stages, prints their tables and writes their figures."""
    args, progress = _arguments(words), Console(stderr=True)
    # A pipe has no width of its own, and rich's 80 columns would fold the tables.
    console = Console(width=None if sys.stdout.isatty() else 140)
    models = None if args.models is None else tuple(args.models)
    run = Run(progress, args.threads, args.device, models, args.edits, args.shrunk, args.here)
    results: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": args.quick,
        "machine": machine(args.threads, args.device),
    }
    taken = results["stage_seconds"] = dict[str, float]()
    for name in args.only:
        progress.rule(name)
        start = time.perf_counter()
        results[name] = STAGES[name].stage(run, args.quick)
        taken[name] = time.perf_counter() - start
        for table in STAGES[name].tables(results[name]):
            console.print(table)
        # Written after each stage, so that a long run that is ended leaves what it had.
        args.output.write_text(json.dumps(results, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    console.print(f"{'Quick run, not for quoting. ' if args.quick else ''}Measured with {about}.")
    console.print(f"Seconds: {', '.join(f'{name} {seconds:.0f}' for name, seconds in taken.items())}")
    console.print(f"Figures: {args.output}")


if __name__ == "__main__":
    main()
