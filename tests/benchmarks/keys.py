"""Keys: texts up to the subject and blocks up to the edited one, against whole texts through the whole model."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from rich.table import Table
from torch import Tensor

from lightning_edit.keys.edit_keys import compute_keys
from lightning_edit.models.decoder import find_decoder
from lightning_edit.requests import EditRequest
from tests.benchmarks.floor import key_flops, timed
from tests.benchmarks.material import Choice, Material, load
from tests.benchmarks.show import Row, Run, mebibytes, number, percent, ratio, table_of
from tests.plain import plain_keys

PLAIN, LIBRARY = "published, whole passes", "library"
MODELS = ("gpt2", "tiny")


def runner(how: str, case: Material) -> Callable[[Sequence[EditRequest]], Tensor]:
    """One of the two ways."""
    decoder = find_decoder(case.model)

    def library(requests: Sequence[EditRequest]) -> Tensor:
        return compute_keys(decoder, case.tokenizer, requests, case.templates, case.layer).mean

    def plain(requests: Sequence[EditRequest]) -> Tensor:
        module = decoder.down_projection(case.layer)
        return plain_keys(case.model, module, case.tokenizer, requests, case.templates)

    return {PLAIN: plain, LIBRARY: library}[how]


def measure(how: str, choice: Choice, repeats: int) -> Row:
    """Seconds an edit, floor and memory of one way; run in its own process."""
    case = load(choice)
    run = runner(how, case)
    run(case.requests[:1])
    timing = timed(lambda: run(case.requests), repeats, choice.dtype, choice.device)
    needed = key_flops(find_decoder(case.model), case.tokenizer, case.requests, case.templates, case.layer)
    about = {"model": choice.title, "method": how, "edits": choice.edits, "layer": case.layer}
    return {**about, **timing.against(needed, choice.edits)}


def compare(choice: Choice) -> Row:
    """How far apart both ways are in float64, relative to the published one (Frobenius)."""
    case = load(choice, torch.float64)
    found, expected = (runner(how, case)(case.requests) for how in (LIBRARY, PLAIN))
    difference = float((found - expected).norm() / expected.norm())
    return {"model": choice.title, "edits": choice.edits, "relative_error_float64": difference}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    timings, compared = [], []
    for choice in run.choices(MODELS, 8 if quick else 64):
        for how in (PLAIN, LIBRARY):
            what = f"{choice.title}: {how}, {choice.edits} edits"
            timings.append(run(what, measure, how, choice, 1 if quick or how == PLAIN else 3))
        if choice.dtype == torch.float32:
            some = replace(choice, edits=min(4, choice.edits))
            compared.append(run(f"{choice.title}: equality in float64, {some.edits} edits", compare, some))
    return {"timed": timings, "compared": compared}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    slow = {row["model"]: row["seconds"] for row in rows["timed"] if row["method"] == PLAIN}
    error = {row["model"]: f"{row['relative_error_float64']:.0e}" for row in rows["compared"]}
    return [
        table_of(
            "Keys of one layer",
            "Floor: texts up to the subject's last token, heads of templates once, at the measured matrix rate. "
            "Difference of both ways in float64, Frobenius, relative.",
            ("model", "method", "edits", "ms per edit", "times faster", "floor ms", "reached", "memory", "difference"),
            2,
            [
                (
                    row["model"],
                    row["method"],
                    str(row["edits"]),
                    number(1000 * row["seconds"]),
                    ratio(slow[row["model"]], row["seconds"]),
                    number(1000 * row["floor_seconds"]),
                    percent(row),
                    mebibytes(row["memory_bytes"]),
                    error.get(row["model"], "") if row["method"] == LIBRARY else "",
                )
                for row in rows["timed"]
            ],
        )
    ]
