"""Strong scaling: values of the same edits in two processes against one, one thread each.

The floor is what matrix products gain from a second process on this machine: two cores may share more than memory.
"""

import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed
from rich.table import Table

from lightning_edit.editor import Editor
from lightning_edit.loop.value_finder import ValueFinder
from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import silent
from lightning_edit.solvers import EMMET
from lightning_edit.updates.edited_weights import EditedWeights
from tests.benchmarks.floor import matrix_rate, reached
from tests.benchmarks.material import Choice, load
from tests.benchmarks.show import Row, Run, number, percent, table_of
from tests.benchmarks.values import settings

MODELS = ("gpt2",)
PROCESSES = 2


def _one(rank: int, meeting: str, choice: Choice, steps: int, rounds: int) -> Row:
    """What one of the processes does: in turns the first finds all values alone, and all find them together."""
    torch.set_num_threads(1)
    case = load(choice)
    weights = EditedWeights(find_decoder(case.model), [case.layer])
    editor = Editor(weights, case.tokenizer, EMMET(), [case.layer], case.templates, settings(steps), {})
    editor.find_values(case.requests[:1])
    together = ValueFinder(editor, ())
    times: dict[str, list[float]] = {"alone": [], "together": []}
    rates: dict[str, list[float]] = {"alone": [], "together": []}
    differences = []
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES, timeout=timedelta(hours=1)
    )
    try:
        for _ in range(rounds):
            for name, own in (("alone", rank == 0), ("together", True)):
                torch.distributed.barrier()
                if own:
                    rates[name].append(matrix_rate())
            torch.distributed.barrier()
            start = time.perf_counter()
            alone = editor.find_values(case.requests) if rank == 0 else None
            times["alone"].append(time.perf_counter() - start)
            # The others wait here without a load on the machine.
            torch.distributed.barrier()
            start = time.perf_counter()
            found = together(case.requests, silent)
            times["together"].append(time.perf_counter() - start)
            if alone is not None:
                differences.append(float((found.z - alone.z).norm() / (alone.z - alone.z0).norm()))
    finally:
        # A process that fails lets go of the others.
        torch.distributed.destroy_process_group()
    return {"seconds": times, "rates": rates, "differences": differences}


def measure(choice: Choice, steps: int, rounds: int) -> Row:
    """Median seconds in one process and in two, in turns."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool,
    ):
        meeting = str(Path(folder) / "meeting")
        jobs = [pool.submit(_one, rank, meeting, choice, steps, rounds) for rank in range(PROCESSES)]
        found = [job.result() for job in jobs]
    first = found[0]
    possible = sum(statistics.median(one["rates"]["together"]) for one in found)
    possible /= statistics.median(first["rates"]["alone"])
    alone, together = (statistics.median(first["seconds"][name]) for name in ("alone", "together"))
    return {
        "model": choice.title,
        "edits": choice.edits,
        "steps": steps,
        "processes": PROCESSES,
        "one_seconds": alone,
        **reached(together, alone / possible),
        "ratio": alone / together,
        "possible_ratio": possible,
        "all_seconds": first["seconds"],
        "relative_difference": max(first["differences"]),
    }


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures on the CPU alone; see the module."""
    steps, rounds, edits = (3, 1, 8) if quick else (8, 3, 64)
    choices = run.choices(MODELS, edits) if run.device == "cpu" else []
    return {
        "timed": [
            run(f"{choice.title}: {choice.edits} edits, 1 and {PROCESSES} processes", measure, choice, steps, rounds)
            for choice in choices
        ]
    }


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    return [
        table_of(
            "Strong scaling: value vectors of the same edits",
            "One thread each; medians of runs in turns. Products: how much faster matrix products get. Difference: "
            "|z - z'| / |z' - z0'| over all edits.",
            ("model", "edits", "processes", "one: s", "together: s", "faster", "products", "reached", "difference"),
            1,
            [
                (
                    row["model"],
                    str(row["edits"]),
                    str(row["processes"]),
                    number(row["one_seconds"]),
                    number(row["seconds"]),
                    f"{row['ratio']:.2f}x",
                    f"{row['possible_ratio']:.2f}x",
                    percent(row),
                    f"{row['relative_difference']:.0e}",
                )
                for row in rows["timed"]
            ],
        )
    ]
