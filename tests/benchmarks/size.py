"""What an edit costs as things grow: the model, the number of edits, the layers, and the answers.

A cost is fitted as a power, cost = c size^p, over the sizes of each row (least squares of the logarithms); p of 1 is
proportional, p below 1 means that larger is cheaper by the piece. Fits say how a cost grows between the sizes that were
measured, not beyond.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.table import Table

from lightning_edit.editor import Editor
from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import MEMIT
from lightning_edit.updates.edited_weights import EditedWeights
from tests.benchmarks.material import Choice, invented_requests, load
from tests.benchmarks.measure import MemoryGrowth, seconds
from tests.benchmarks.show import Row, Run, mebibytes, number, table_of
from tests.benchmarks.values import settings

VALUES, WRITE = "values", "keys and solving"
PARAMETERS, EDITS, LAYERS, ANSWER = "parameters of the model", "edits", "layers", "tokens of an answer"
MODELS = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
SOLVER = MEMIT(second_moment_weight=100.0)
# Some of the invented words are several tokens.
WORD = " Rome"


def editor_of(choice: Choice, layers: Sequence[int] | None = None, steps: int = 4) -> tuple[Editor, Any]:
    """An editor of a random model, with the identity as C, and its material.

    Args:
        choice: Which model, and how many edits.
        layers: The edited ones; that of the material if not given.
        steps: Passes of each edit.
    """
    case = load(choice)
    decoder = find_decoder(case.model)
    layers = [case.layer] if layers is None else list(layers)
    moments = {layer: torch.eye(decoder.weight(layer).shape[1], dtype=torch.float64) for layer in layers}
    weights = EditedWeights(decoder, layers)
    return Editor(weights, case.tokenizer, SOLVER, layers, case.templates, settings(steps), moments), case


def values_of_none(editor: Editor, count: int) -> torch.Tensor:
    """Some vectors in place of values, ``(count, d_model)``: what is written does not change what writing costs."""
    return torch.zeros(count, editor.weights.decoder.weight(editor.layers[0]).shape[0])


def measured(about: str, size: float, stage: str, job: Callable[[], Any]) -> Row:
    """Seconds and memory of a job, as a row."""
    growth = MemoryGrowth()
    taken, _ = seconds(job)
    return {"axis": about, "size": size, "stage": stage, "seconds": taken, "memory_bytes": growth()}


def of_model(choice: Choice, steps: int) -> list[Row]:
    """Values, and keys and solving, of some edits in one layer."""
    editor, case = editor_of(choice, steps=steps)
    size = sum(parameter.numel() for parameter in case.model.parameters())
    editor.find_values(case.requests[:1])
    z = values_of_none(editor, len(case.requests))
    return [
        measured(PARAMETERS, size, VALUES, lambda: editor.find_values(case.requests)),
        measured(PARAMETERS, size, WRITE, lambda: editor.write(case.requests, z, measured=False)),
    ]


def of_edits(choice: Choice, count: int, steps: int) -> list[Row]:
    """The same of so many edits in a narrow model, or of keys and solving alone where there are no steps."""
    editor, case = editor_of(replace(choice, edits=count), steps=max(steps, 2))
    z = values_of_none(editor, count)
    rows = [measured(EDITS, count, WRITE, lambda: editor.write(case.requests, z, measured=False))]
    if steps:
        rows.insert(0, measured(EDITS, count, VALUES, lambda: editor.find_values(case.requests)))
    return rows


def of_layers(choice: Choice, count: int) -> list[Row]:
    """Keys and solving in so many layers."""
    editor, case = editor_of(choice, range(count))
    z = values_of_none(editor, len(case.requests))
    return [measured(LAYERS, count, WRITE, lambda: editor.write(case.requests, z, measured=False))]


def of_answer(choice: Choice, words: int, steps: int) -> list[Row]:
    """Values for answers of so many words, each a token."""
    editor, case = editor_of(choice, steps=steps)
    answer = (WORD * words).strip()
    requests = [replace(request, target_new=answer) for request in invented_requests(choice.edits)]
    tokens = len(case.tokenizer(" " + answer).input_ids)
    editor.find_values(requests[:1])
    return [measured(ANSWER, tokens, VALUES, lambda: editor.find_values(requests))]


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures each axis; see the module."""
    steps, models = (2, ("tiny",)) if quick else (4, MODELS)
    edits = (1, 4) if quick else (1, 10, 100, 1000, 10_000)
    layers, words = ((1,), (1, 4)) if quick else ((1, 2, 4, 8), (1, 4, 16, 64))
    rows: list[Row] = []
    for choice in run.choices(models, 4):
        rows += run(f"{choice.title}: {choice.edits} edits", of_model, choice, steps)
    narrow = replace(run.choices(models[:1], 4)[0], shrunk=True)
    for count in edits:
        # Values of all are found by the batch, so a tenth of the most is enough to see it.
        rows += run(f"{narrow.title}: {count:,} edits", of_edits, narrow, count, steps if count <= 1000 else 0)
    first = run.choices(models[:1], 8)[0]
    for count in layers:
        rows += run(f"{first.title}: {count} layers", of_layers, first, count)
    for count in words:
        rows += run(f"{first.title}: answers of {count} words", of_answer, first, count, steps)
    return {"timed": rows, "fitted": fits(rows)}


def power(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The exponent p of cost = c size^p by least squares of logarithms; None for fewer than two sizes."""
    if len(set(sizes)) < 2 or min(costs) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def fits(rows: Sequence[Row]) -> list[Row]:
    """The exponents of seconds and of memory for each axis and stage, and between its two largest sizes."""
    found = []
    for axis, name in dict.fromkeys((row["axis"], row["stage"]) for row in rows):
        own = sorted((row for row in rows if (row["axis"], row["stage"]) == (axis, name)), key=lambda row: row["size"])
        sizes, costs = [row["size"] for row in own], [row["seconds"] for row in own]
        found.append(
            {
                "axis": axis,
                "stage": name,
                "exponent": power(sizes, costs),
                "last_exponent": power(sizes[-2:], costs[-2:]),
                "memory_exponent": power(sizes, [row["memory_bytes"] for row in own]),
            }
        )
    return found


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    timed = [
        (row["axis"], row["stage"], f"{row['size']:,.0f}", number(row["seconds"]), mebibytes(row["memory_bytes"]))
        for row in rows["timed"]
    ]
    fitted = [
        (row["axis"], row["stage"], *(_power(row[name]) for name in ("exponent", "last_exponent", "memory_exponent")))
        for row in rows["fitted"]
    ]
    return [
        table_of(
            "Cost over size",
            "Random models; C is the identity; values of four edits by four passes, or of as many edits as are named, "
            "which are those of a narrow model with two blocks. Memory: rise of the peak above the loaded model.",
            ("what grows", "stage", "size", "seconds", "peak memory"),
            2,
            timed,
        ),
        table_of(
            "Exponents",
            "p of cost = c size^p, over all sizes and between the two largest.",
            ("what grows", "stage", "seconds", "seconds, at the largest", "memory"),
            2,
            fitted,
        ),
    ]


def _power(exponent: float | None) -> str:
    return "" if exponent is None else f"{exponent:.2f}"
