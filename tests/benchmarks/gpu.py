"""Models of published sizes on a GPU: each stage beside its floor and the published way, each model loaded once.

``python -m tests.benchmarks.gpu --output gpu.json``; `gpu.sh` beside it does that on a bare machine. A stage that fails
is reported as such, and the others go on. ``--device cpu --shrunk --edits 4`` shows that everything runs.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import find_decoder
from tests.benchmarks import gradients, keys, moments, solvers, values
from tests.benchmarks.floor import SHAPES_CUDA, matrix_rate, reached
from tests.benchmarks.material import SHAPES, Choice, load
from tests.benchmarks.measure import apart, machine
from tests.benchmarks.show import Row, number, percent, table_of

MODELS = ("gpt2-xl", "gpt-j", "llama-3-8b", "qwen3-30b-a3b")
STEPS, FEW = 20, 2
ALL, ONE = values.BATCHED, values.SINGLE
Jobs = dict[str, Callable[[], list[Row]]]


def _values(choice: Choice, how: str, edits: int | None) -> list[Row]:
    # Pays for the first use of these shapes.
    values.measure(how, choice, edits, FEW)
    return [values.measure(each, choice, edits, STEPS) for each in (how, f"{how}, not recorded")]


def _moments(choice: Choice, tokens: int) -> list[Row]:
    bare, library = moments.measure((moments.BARE, moments.LIBRARY), choice, tokens, 2)
    return [library | reached(library["seconds"], bare["seconds"])]


def _solve(choice: Choice, edits: Sequence[int]) -> list[Row]:
    d_out, d_in = find_decoder(load(choice).model).weight(load(choice).layer).shape
    return [row for n in edits for row in solvers.measure(n, d_in, d_out, 1, choice.device)]


def jobs(choice: Choice, gradient_edits: Sequence[int], tokens: int, solved: Sequence[int]) -> Jobs:
    """What is measured on a loaded model, by stage."""
    dense = not find_decoder(load(choice).model).experts(load(choice).layer)
    found: Jobs = {
        "values": lambda: _values(choice, ALL, None),
        "one value": lambda: _values(choice, ONE, 1),
        "published values": lambda: [values.measure(values.PLAIN, choice, FEW, STEPS)],
        "keys": lambda: [keys.measure(keys.LIBRARY, choice, 2)],
        "second moments": lambda: _moments(choice, tokens),
    }
    if dense:
        found["solve"] = lambda: _solve(choice, solved)
        # The published way by the smaller number alone: it would take long.
        found["gradients"] = lambda: [
            row
            for i, n in enumerate(gradient_edits)
            for row in gradients.measure(_with_edits(choice, n), 1, published_too=i == 0)
        ]
    return found


def _with_edits(choice: Choice, edits: int) -> Choice:
    """The same loaded model with another number of edits."""
    requests = load(replace(choice, model="gpt2", edits=edits, shrunk=True, held=None, device="cpu")).requests
    return replace(choice, edits=edits, held=replace(load(choice), requests=requests))


def measure(
    choice: Choice, gradient_edits: Sequence[int], tokens: int, solved: Sequence[int], output: Path
) -> dict[str, Any]:
    """All stages of one model; run in its own process, so that each has the whole device.

    Args:
        choice: The model, and how many values are searched at once.
        gradient_edits: How many edits have values from gradients.
        tokens: Of text for second moments.
        solved: How many edits there are in an update of one layer.
        output: The file of all figures, written after each stage: what is stopped leaves what it had.
    """
    start = time.perf_counter()
    held = replace(choice, held=load(choice))
    results = json.loads(output.read_text(encoding="utf-8"))
    found = results["models"][choice.title] = {"load seconds": time.perf_counter() - start}
    for name, job in jobs(held, gradient_edits, tokens, solved).items():
        before = time.perf_counter()
        try:
            found[name] = job()
        # Anything may be wrong on a machine that nobody has tried; what else was measured is kept.
        except (RuntimeError, EditError, ValueError, TypeError, IndexError) as error:
            found[name] = [{"error": f"{type(error).__name__}: {str(error)[:300]}"}]
        found[f"{name}: seconds in all"] = time.perf_counter() - before
        if choice.device == "cuda":
            found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return found


def _rates(device: str) -> dict[str, float]:
    dtypes = (torch.bfloat16, torch.float32, torch.float64)
    return {str(dtype).removeprefix("torch."): matrix_rate(dtype, device) for dtype in dtypes}


def _lines(model: str, found: dict[str, Any]) -> list[tuple[str, ...]]:
    lines = list[tuple[str, ...]]()
    for stage, rows in found.items():
        for row in rows if isinstance(rows, list) else []:
            if "error" in row:
                lines.append((model, stage, "failed", row["error"], "", ""))
                continue
            what = str(row.get("method", row.get("solver", "")))
            edits = str(row.get("edits", row.get("tokens", "")))
            memory = f"{row['memory_bytes'] / 2**30:.1f} GiB" if "memory_bytes" in row else ""
            lines.append((model, stage, f"{what}, {edits}", number(row["seconds"]), percent(row), memory))
    return lines


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu", description=__doc__, formatter_class=formatter
    )
    parser.add_argument("--models", choices=tuple(SHAPES), nargs="+", default=list(MODELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--shrunk", action="store_true", help="models get two narrow blocks")
    parser.add_argument("--edits", type=int, default=256, help="whose values are searched at once")
    parser.add_argument("--gradient_edits", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--tokens", type=int, default=131072, help="of text for second moments")
    parser.add_argument("--solved", type=int, nargs="+", default=[100, 4000], help="edits of one layer's update")
    parser.add_argument("--here", action="store_true", help="all models in this process, to see that everything runs")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measures the models, writes the figures after each, and shows them.

    Args:
        words: The command line.
    """
    args, console = _arguments(words), Console(width=140)
    results: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "models": {}}
    results["machine"] = machine(None, args.device) | {"shapes": SHAPES_CUDA if args.device == "cuda" else "cpu"}
    results["matrix_rates"] = (lambda job, *given: job(*given) if args.here else apart(job, *given))(
        _rates, args.device
    )
    console.print({name: f"{rate:.3g}" for name, rate in results["matrix_rates"].items()})
    args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for name in args.models:
        choice = Choice(name, args.edits, args.device, args.shrunk)
        given = (choice, args.gradient_edits, args.tokens, args.solved, args.output)
        found = measure(*given) if args.here else apart(measure, *given)
        columns = ("model", "stage", "what", "seconds, of each edit", "of the floor", "memory")
        table = table_of("", "", columns, 3, _lines(name, found))
        table.box = SIMPLE
        console.print(table)
        spent = {key.partition(":")[0]: f"{value:.0f}" for key, value in found.items() if key.endswith("in all")}
        console.print(f"seconds in all: load {found['load seconds']:.0f}, {spent}")
    failed = [
        f"{model}: {stage}"
        for model, found in json.loads(args.output.read_text(encoding="utf-8"))["models"].items()
        for stage, rows in found.items()
        if isinstance(rows, list) and any("error" in row for row in rows)
    ]
    if failed:
        raise SystemExit(f"These stages failed: {', '.join(failed)}. Their messages are in {args.output}.")


if __name__ == "__main__":
    main()
