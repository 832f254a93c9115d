"""Second moments: one pass for all edited layers against a pass for each, and against the bare forward pass."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.table import Table

from lightning_edit.keys.moment_pass import compute_second_moments, text_batches
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder, find_decoder
from lightning_edit.models.hooks import capture_input, run_until
from tests.benchmarks.floor import reached
from tests.benchmarks.material import Choice, load, random_rows
from tests.benchmarks.measure import MemoryGrowth, seconds
from tests.benchmarks.show import Row, Run, mebibytes, percent, ratio, table_of
from tests.plain import plain_second_moment

LIBRARY, STOPPED, WHOLE = "library, one pass for all", "a pass for each, up to the layer", "a whole pass for each"
BARE = "bare forward pass"
BATCH_TOKENS = 2048
# The sum of each moment's diagonal. The moments themselves stay where they were counted: to copy gigabytes from a GPU
# takes seconds, whatever was counted.
Traces = list[float]


def batches(rows: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Rows of similar length together, up to `BATCH_TOKENS` with their padding, as the published code has it."""
    found: list[list[Sequence[int]]] = []
    for row in sorted(rows, key=len, reverse=True):
        if found and (len(found[-1]) + 1) * len(found[-1][0]) <= BATCH_TOKENS:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _trace(moment: torch.Tensor) -> float:
    return float(moment.diagonal(dim1=-2, dim2=-1).double().sum())


def _plain(decoder: Decoder, layers: Sequence[int], rows: Sequence[Sequence[int]], stop: bool) -> Traces:
    modules = [decoder.down_projection(layer) for layer in layers]
    return [_trace(plain_second_moment(decoder.model, module, batches(rows), stop)) for module in modules]


def _library(decoder: Decoder, layers: Sequence[int], rows: Sequence[Sequence[int]]) -> Traces:
    return list(map(_trace, compute_second_moments(decoder, rows, layers).values()))


def _bare(decoder: Decoder, layers: Sequence[int], rows: Sequence[Sequence[int]]) -> Traces:
    """The library's batches through the model up to where its pass ends, and nothing else."""
    last = decoder.down_projection(max(layers))
    for batch in text_batches(decoder, rows):
        run_until(decoder.model, pad([rows[i] for i in batch], decoder.device).inputs(), capture_input(last, stop=True))
    return []


WAYS: dict[str, Callable[..., Traces]] = {
    WHOLE: partial(_plain, stop=False),
    STOPPED: partial(_plain, stop=True),
    BARE: _bare,
    LIBRARY: _library,
}


def measure(hows: Sequence[str], choice: Choice, tokens: int, repeats: int) -> list[Row]:
    """Seconds, tokens per second and memory of some ways that take turns; run in their own process."""
    case = load(choice)
    decoder, config = find_decoder(case.model), case.model.config
    layers = [layer for layer in range(case.layer - 1, case.layer + 2) if layer in range(len(decoder.blocks))]
    rows = random_rows(tokens, config.vocab_size, longest=min(256, decoder.context or 256))
    memory, taken, traces = dict[str, int](), dict[str, list[float]](), dict[str, Traces]()
    for turn in range(1 + repeats):
        for how in hows:
            growth = MemoryGrowth()
            # The first turn is not counted; a short one will do where no memory and no kernels are got ready for sizes.
            first = rows if choice.device != "cpu" else [rows[0][:16]]
            time, found = seconds(partial(WAYS[how], decoder, layers, rows if turn else first))
            if turn:
                taken.setdefault(how, []).append(time)
                memory.setdefault(how, growth())
                traces[how] = found
    return [_row(choice, how, layers, tokens, taken[how], memory[how], traces[how]) for how in hows]


def _row(
    choice: Choice, how: str, layers: Sequence[int], tokens: int, taken: list[float], memory: int, traces: Traces
) -> Row:
    median = statistics.median(taken)
    about = {"model": choice.title, "method": how, "layers": list(layers), "tokens": tokens}
    about |= {"seconds": median, "tokens_per_second": tokens / median, "memory_bytes": memory}
    return about | {"traces": traces}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    # Enough that beginning and end, the same for any number of tokens, count for little.
    tokens = (512 if quick else 4096) * (1 if run.device == "cpu" else 16)
    timed: list[Row] = []
    for choice in run.choices(("gpt2",), 1):
        rows: list[Row] = []
        for hows, repeats in (((WHOLE,), 1), ((STOPPED,), 1), ((BARE, LIBRARY), 1 if quick else 3)):
            what = f"{choice.title}: {' and '.join(hows)}, {tokens} tokens"
            rows += run(what, measure, hows, choice, tokens, repeats)
        bare = next(row["seconds"] for row in rows if row["method"] == BARE)
        for row in rows:
            row |= reached(row["seconds"], bare)
            pairs = zip(row["traces"], rows[0]["traces"], strict=bool(row["traces"]))
            row["relative_difference_of_traces"] = max((abs(found / trace - 1) for found, trace in pairs), default=None)
        timed += rows
    return {"timed": timed}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    slow = {row["model"]: row["seconds"] for row in rows["timed"] if row["method"] == WHOLE}
    return [
        table_of(
            "Second moments of several layers",
            "Tokens of text per second, all layers done; medians. The published code makes a pass up to the layer for "
            "each. The bare forward pass takes the library's batches up to the highest layer and keeps nothing.",
            (
                "model",
                "method",
                "layers",
                "tokens per s",
                "of the forward pass",
                "times faster",
                "peak memory",
                "difference of traces",
            ),
            3,
            [_cells(row, slow[row["model"]]) for row in rows["timed"]],
        )
    ]


def _cells(row: Row, slow: float) -> tuple[Any, ...]:
    difference = row["relative_difference_of_traces"]
    return (
        row["model"],
        row["method"],
        ", ".join(map(str, row["layers"])),
        f"{row['tokens_per_second']:,.0f}",
        percent(row),
        ratio(slow, row["seconds"]),
        mebibytes(row["memory_bytes"]),
        "" if difference is None else f"{difference:.1e}",
    )
