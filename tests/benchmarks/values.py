"""Value vectors: all edits at once in the library against the published loop, one edit after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table

from lightning_edit.architectures import find_decoder
from lightning_edit.progress import ProgressBars, Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.values import ValueSettings, optimize_values
from tests.benchmarks.material import Material, load
from tests.benchmarks.measure import MemoryGrowth, seconds
from tests.benchmarks.show import Row, Run, mebibytes, ratio
from tests.plain import plain_texts, plain_value

PLAIN, SINGLE, BATCHED = "published loop", "library, one by one", "library, all at once"
MODELS = {"gpt2": "GPT-2, 124 M, random", "tiny": "the shipped tiny model"}
DOUBLE = torch.float64


@dataclass(frozen=True)
class Case:
    """One model and how much of it is measured."""

    model: str
    edits: int
    plain_edits: int
    steps: int
    repeats: int
    compared_edits: int
    compared_steps: int


FULL = (Case("gpt2", 32, 3, 20, 1, 2, 5), Case("tiny", 32, 3, 20, 3, 4, 20))
QUICK = (Case("gpt2", 4, 1, 4, 1, 1, 2), Case("tiny", 8, 3, 5, 1, 2, 5))


def settings(steps: int) -> ValueSettings:
    """The defaults without early stop, so that every edit takes every step."""
    return ValueSettings(steps=steps, early_stop_loss=0.0)


def _runner(how: str, case: Material) -> Callable[[list[EditRequest], ValueSettings, Report], Any]:
    decoder, module = find_decoder(case.model), case.model.transformer.h[case.layer]

    def batched(requests: list[EditRequest], wanted: ValueSettings, report: Report) -> Any:
        return optimize_values(decoder, case.tokenizer, requests, case.templates, case.layer, wanted, report)

    def single(requests: list[EditRequest], wanted: ValueSettings, report: Report) -> Any:
        for i, request in enumerate(requests):
            batched([request], wanted, silent)
            report("values (edits)", i + 1, len(requests))

    def plain(requests: list[EditRequest], wanted: ValueSettings, report: Report) -> Any:
        for i, request in enumerate(requests):
            plain_value(case.model, module, case.tokenizer, request, case.templates, wanted)
            report("values (edits)", i + 1, len(requests))

    return {PLAIN: plain, SINGLE: single, BATCHED: batched}[how]


def measure(how: str, model: str, edits: int, timed: int, steps: int, repeats: int) -> Row:
    """Seconds an edit and memory of one way, over the first ``timed`` of ``edits`` edits; run in its own process."""
    case = load(model, edits)
    growth = MemoryGrowth()
    run, requests = _runner(how, case), case.requests[:timed]
    run(requests[:1], settings(2), silent)
    with ProgressBars() as report:
        taken, _ = seconds(lambda: run(requests, settings(steps), report), repeats)
    wanted = settings(steps)
    lengths = [
        len(text.ids)
        for request in requests
        for text in plain_texts(case.tokenizer, request, case.templates, wanted.kl_prompt)
    ]
    return {
        "model": model,
        "method": how,
        "edits": timed,
        "steps": steps,
        "texts_per_edit": len(case.templates.texts) + 1,
        "mean_tokens_per_text": sum(lengths) / len(lengths),
        "seconds_per_edit": taken / timed,
        "memory_bytes": growth(),
    }


def compare(model: str, edits: int, steps: int) -> Row:
    """The largest error of the library's z among some edits, relative to |z - z0| of the published loop, in float64."""
    case = load(model, edits, DOUBLE)
    wanted, module = settings(steps), case.model.transformer.h[case.layer]
    found = optimize_values(find_decoder(case.model), case.tokenizer, case.requests, case.templates, case.layer, wanted)
    errors = []
    for z, request in zip(found.z, case.requests, strict=True):
        plain = plain_value(case.model, module, case.tokenizer, request, case.templates, wanted)
        errors.append(float((z - plain.z).norm() / (plain.z - plain.z0).norm()))
    return {"model": model, "edits": edits, "steps": steps, "relative_error_float64": max(errors)}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every case; see the module."""
    timed, compared = [], []
    for case in QUICK if quick else FULL:
        counts = {PLAIN: case.plain_edits, SINGLE: case.plain_edits, BATCHED: case.edits}
        for how, count in counts.items():
            what = f"{MODELS[case.model]}: {how}, {count} edits, {case.steps} steps"
            timed.append(run(what, measure, how, case.model, case.edits, count, case.steps, case.repeats))
        what = f"{MODELS[case.model]}: equality in float64, {case.compared_edits} edits"
        compared.append(run(what, compare, case.model, case.compared_edits, case.compared_steps))
    return {"timed": timed, "compared": compared}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    timed = Table(
        title="Value vectors",
        caption="No early stop. The published loop, and the library one by one, are timed on a few of the edits and "
        "scaled per edit. Memory: rise of the peak above the loaded model, each in its own process.",
    )
    for name in ("model", "method", "edits timed", "steps", "s per edit", "times faster", "peak memory"):
        timed.add_column(name, justify="left" if name in ("model", "method") else "right")
    plain = {row["model"]: row["seconds_per_edit"] for row in rows["timed"] if row["method"] == PLAIN}
    for row in rows["timed"]:
        timed.add_row(
            MODELS[row["model"]],
            row["method"],
            str(row["edits"]),
            str(row["steps"]),
            f"{row['seconds_per_edit']:.3f}",
            ratio(plain[row["model"]], row["seconds_per_edit"]),
            mebibytes(row["memory_bytes"]),
        )
    compared = Table(title="Value vectors: equality in float64", caption="Largest |z - z'| / |z' - z0'| of any edit.")
    for name in ("model", "edits", "steps", "relative error"):
        compared.add_column(name, justify="left" if name == "model" else "right")
    for row in rows["compared"]:
        error = f"{row['relative_error_float64']:.1e}"
        compared.add_row(MODELS[row["model"]], str(row["edits"]), str(row["steps"]), error)
    return [timed, compared]
