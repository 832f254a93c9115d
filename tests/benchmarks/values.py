"""Value vectors: all edits at once in the library against the published loop, one edit after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from rich.table import Table

from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import ProgressBars, Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.values.optimize import ValueSettings, optimize_values
from lightning_edit.values.recorded import Recordings
from tests.benchmarks.floor import timed, value_flops
from tests.benchmarks.material import Choice, Material, load
from tests.benchmarks.show import Row, Run, mebibytes, number, percent, ratio, table_of
from tests.plain import plain_texts, plain_value

PLAIN, SINGLE, BATCHED = "published loop", "library, one by one", "library, all at once"
# On a GPU, where passes are recorded otherwise.
UNRECORDED = {f"{how}, not recorded": how for how in (SINGLE, BATCHED)}
# With another optimizer and fewer passes; what they are worth is not measured here.
DESCENT = "descent, all at once"
FEWER = {"descent, one by one": SINGLE, DESCENT: BATCHED}
MODELS = ("gpt2", "tiny")
DOUBLE = torch.float64


@dataclass(frozen=True)
class Amounts:
    """How much is measured.

    Args:
        edits: All at once.
        few: One after the other, spread over them.
        steps: Passes of each edit.
        fewer: With descent.
        compared_edits: In float64.
        compared_steps: In float64.
    """

    edits: int
    few: int
    steps: int
    fewer: int
    compared_edits: int
    compared_steps: int


FULL, QUICK = Amounts(64, 4, 20, 7, 2, 5), Amounts(8, 2, 4, 2, 1, 2)


def settings(steps: int, how: str = BATCHED) -> ValueSettings:
    """The defaults without early stop, so that every edit takes every step."""
    return ValueSettings(optimizer="descent" if how in FEWER else "adam", steps=steps, early_stop_loss=0.0)


def mean_tokens(case: Material, requests: Sequence[EditRequest]) -> float:
    """Tokens of a text, targets included."""
    prompt = ValueSettings().kl_prompt
    texts = [plain_texts(case.tokenizer, request, case.templates, prompt) for request in requests]
    return sum(len(text.ids) for row in texts for text in row) / sum(map(len, texts))


def spread(case: Material, count: int) -> list[EditRequest]:
    """A few of the edits whose lengths stand for all: the middles of as many equal parts, from short to long."""
    ranked = sorted(case.requests, key=lambda request: mean_tokens(case, [request]))
    return [ranked[(2 * i + 1) * len(ranked) // (2 * count)] for i in range(count)]


def runner(how: str, case: Material) -> Callable[[Sequence[EditRequest], ValueSettings, Report], Any]:
    """One of the ways."""
    decoder = find_decoder(case.model)
    if how in UNRECORDED:
        recorded = runner(UNRECORDED[how], case)

        def unrecorded(*given: Any) -> Any:
            with patch.object(Recordings, "on", lambda *_: Recordings(False)):
                return recorded(*given)

        return unrecorded

    def batched(requests: Sequence[EditRequest], wanted: ValueSettings, report: Report) -> Any:
        return optimize_values(decoder, case.tokenizer, requests, case.templates, case.layer, wanted, report)

    def single(requests: Sequence[EditRequest], wanted: ValueSettings, report: Report) -> Any:
        for i, request in enumerate(requests):
            batched([request], wanted, silent)
            report("values (edits)", i + 1, len(requests))

    def plain(requests: Sequence[EditRequest], wanted: ValueSettings, report: Report) -> Any:
        block = decoder.blocks[case.layer]
        for i, request in enumerate(requests):
            plain_value(case.model, block, case.tokenizer, request, case.templates, wanted)
            report("values (edits)", i + 1, len(requests))

    return {PLAIN: plain, SINGLE: single, BATCHED: batched}[FEWER.get(how, how)]


def measure(how: str, choice: Choice, few: int | None, steps: int) -> Row:
    """Seconds an edit, floor and memory of one way, over a few edits or all; run in its own process."""
    case = load(choice)
    run, wanted = runner(how, case), settings(steps, how)
    requests = case.requests if few is None else spread(case, min(few, choice.edits))
    run(requests[:1], settings(2, how), silent)
    with ProgressBars() as report:
        timing = timed(lambda: run(requests, wanted, report), dtype=choice.dtype, device=choice.device)
    needed = value_flops(find_decoder(case.model), case.tokenizer, requests, case.templates, case.layer, wanted)
    return {
        "model": choice.title,
        "method": how,
        "edits": len(requests),
        "steps": steps,
        "texts_per_edit": len(case.templates.texts) + 1,
        "mean_tokens_per_text": mean_tokens(case, requests),
        **timing.against(needed, len(requests)),
    }


def compare(choice: Choice, steps: int) -> Row:
    """The largest error of the library's z among some edits, relative to |z - z0| of the published loop, in float64."""
    case = load(choice, DOUBLE)
    decoder, wanted = find_decoder(case.model), settings(steps)
    found = optimize_values(decoder, case.tokenizer, case.requests, case.templates, case.layer, wanted)
    errors = []
    for z, request in zip(found.z, case.requests, strict=True):
        plain = plain_value(case.model, decoder.blocks[case.layer], case.tokenizer, request, case.templates, wanted)
        errors.append(float((z - plain.z).norm() / (plain.z - plain.z0).norm()))
    return {"model": choice.title, "edits": len(errors), "steps": steps, "relative_error_float64": max(errors)}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    timings, compared, amounts = [], [], QUICK if quick else FULL
    for choice in run.choices(MODELS, amounts.edits):
        for how in (PLAIN, SINGLE, BATCHED, *FEWER):
            few = None if FEWER.get(how, how) == BATCHED else amounts.few
            steps = amounts.fewer if how in FEWER else amounts.steps
            what = f"{choice.title}: {how}, {few or choice.edits} edits, {steps} steps"
            timings.append(run(what, measure, how, choice, few, steps))
        # A model in bfloat16 is too large to be had in float64.
        if choice.dtype == torch.float32:
            some = replace(choice, edits=min(amounts.compared_edits, choice.edits))
            what = f"{choice.title}: equality in float64, {some.edits} edits"
            compared.append(run(what, compare, some, amounts.compared_steps))
    return {"timed": timings, "compared": compared}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    slow = {row["model"]: row["seconds"] for row in rows["timed"] if row["method"] == PLAIN}
    timings = table_of(
        "Value vectors",
        "No early stop. The published loop, and the library one by one, are timed on a few edits of representative "
        "length. Floor: operations on real tokens at the matrix rate measured around each. Memory: rise of the peak "
        "above the loaded model, each in its own process.",
        ("model", "method", "edits timed", "steps", "s per edit", "times faster", "floor s", "reached", "peak memory"),
        2,
        [
            (
                row["model"],
                row["method"],
                str(row["edits"]),
                str(row["steps"]),
                number(row["seconds"]),
                ratio(slow[row["model"]], row["seconds"]),
                number(row["floor_seconds"]),
                percent(row),
                mebibytes(row["memory_bytes"]),
            )
            for row in rows["timed"]
        ],
    )
    compared = table_of(
        "Value vectors: equality in float64",
        "Largest |z - z'| / |z' - z0'| of any edit.",
        ("model", "edits", "steps", "relative error"),
        1,
        [
            (row["model"], str(row["edits"]), str(row["steps"]), f"{row['relative_error_float64']:.1e}")
            for row in rows["compared"]
        ],
    )
    return [timings, compared]
