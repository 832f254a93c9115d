"""Second moments: one pass for all edited layers against a pass for each."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from rich.table import Table

from lightning_edit.architectures import find_decoder
from lightning_edit.progress import ProgressBars, Report, silent
from lightning_edit.second_moment import compute_second_moments
from tests.benchmarks.material import gpt2_small, random_rows
from tests.benchmarks.measure import MemoryGrowth, seconds
from tests.benchmarks.show import Row, Run, mebibytes, ratio
from tests.plain import plain_second_moment

LIBRARY, STOPPED, WHOLE = "library, one pass for all", "a pass for each, up to the layer", "a whole pass for each"
LAYERS = (4, 5, 6)
BATCH_TOKENS = 2048
STAGE = "second moments (tokens)"


def batches(rows: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Rows of similar length together, up to `BATCH_TOKENS` with their padding, as the published code has it."""
    found: list[list[Sequence[int]]] = []
    for row in sorted(rows, key=len, reverse=True):
        if found and (len(found[-1]) + 1) * len(found[-1][0]) <= BATCH_TOKENS:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _plain(model: Any, rows: Sequence[Sequence[int]], report: Report, stop: bool) -> dict[int, torch.Tensor]:
    done, total, moments = 0, len(LAYERS) * sum(map(len, rows)), {}

    def note(tokens: int) -> None:
        nonlocal done
        done += tokens
        report(STAGE, done, total)

    for layer in LAYERS:
        module = model.transformer.h[layer].mlp.c_proj
        moments[layer] = plain_second_moment(model, module, batches(rows), stop, note)
    return moments


def _library(model: Any, rows: Sequence[Sequence[int]], report: Report) -> dict[int, torch.Tensor]:
    return compute_second_moments(find_decoder(model), rows, LAYERS, report)


def measure(how: str, tokens: int, repeats: int) -> Row:
    """Tokens per second and memory of one way; run in its own process."""
    model = gpt2_small()
    ways = {LIBRARY: _library, STOPPED: partial(_plain, stop=True), WHOLE: partial(_plain, stop=False)}
    rows = random_rows(tokens, model.config.vocab_size)
    growth = MemoryGrowth()
    ways[how](model, [rows[0][:16]], silent)
    with ProgressBars() as report:
        taken, moments = seconds(lambda: ways[how](model, rows, report), repeats)
    return {
        "method": how,
        "layers": LAYERS,
        "tokens": tokens,
        "tokens_per_second": tokens / taken,
        "memory_bytes": growth(),
        "traces": [float(moments[layer].trace()) for layer in LAYERS],
    }


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every way; see the module."""
    tokens, repeats = 512 if quick else 4096, 1
    what = f"GPT-2, 124 M, random: {{}}, {len(LAYERS)} layers, {tokens} tokens"
    rows = [run(what.format(how), measure, how, tokens, repeats) for how in (WHOLE, STOPPED, LIBRARY)]
    expected = rows[0]["traces"]
    for row in rows:
        pairs = zip(row["traces"], expected, strict=True)
        row["relative_difference_of_traces"] = max(abs(found / trace - 1) for found, trace in pairs)
    return {"timed": rows}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    first = rows["timed"][0]
    table = Table(
        title=f"Second moments of layers {', '.join(map(str, LAYERS))}, GPT-2, 124 M, random, {first['tokens']} tokens",
        caption="Tokens of text per second, all layers done. The published code makes a pass up to the layer for each.",
    )
    for name in ("method", "tokens per s", "times faster", "peak memory", "relative difference of traces"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows["timed"]:
        table.add_row(
            row["method"],
            f"{row['tokens_per_second']:,.0f}",
            ratio(row["tokens_per_second"], first["tokens_per_second"]),
            mebibytes(row["memory_bytes"]),
            f"{row['relative_difference_of_traces']:.1e}",
        )
    return [table]
