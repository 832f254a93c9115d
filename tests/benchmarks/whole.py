"""Whole edits: values, keys and solving of one batch in one layer, with second moments and where they are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.table import Table
from torch import Tensor

from lightning_edit.editor import Editor
from lightning_edit.keys.layer_stats import TOKENS_PER_DIMENSION
from lightning_edit.keys.moment_pass import compute_second_moments
from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import ProgressBars
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import EMMET
from lightning_edit.updates.edited_weights import EditedWeights
from tests.benchmarks.floor import key_flops, matrix_rate, moment_flops, reached, solve_flops, timed, value_flops
from tests.benchmarks.material import Choice, Material, load, random_rows
from tests.benchmarks.moments import batches
from tests.benchmarks.show import Row, Run, number, percent, ratio, table_of
from tests.benchmarks.values import BATCHED, DESCENT, settings, spread
from tests.plain import explicit_emmet, plain_at_subject, plain_keys, plain_second_moment, plain_value

PLAIN, LIBRARY = "published", "library"
# With another optimizer and fewer passes; what they are worth is not measured here.
FEWER = "library, descent"
MODELS = ("gpt2", "tiny")
SOLVER = EMMET(ridge=1.0)
VALUES, WRITE, MOMENTS = "values", "keys and solving", "second moments"
GIVEN, ALL = "all, second moments given", "all, with second moments"


@dataclass(frozen=True)
class Way:
    """The three parts of one way.

    Args:
        values: From edits and a number of passes, their z ``(n, d_model)``.
        write: From edits, z and C, what was added to the weight ``(d_out, d_in)``.
        moments: From rows of token ids, C ``(d_in, d_in)``.
    """

    values: Callable[[Sequence[EditRequest], int], Tensor]
    write: Callable[[Sequence[EditRequest], Tensor, Tensor], Tensor]
    moments: Callable[[Sequence[Sequence[int]]], Tensor]


def library(case: Material, search: str = BATCHED) -> Way:
    """All edits at once, with an editor.

    Args:
        case: Model and edits.
        search: How values are searched, see `settings`.
    """
    decoder = find_decoder(case.model)

    def editor(steps: int, moments: dict[int, Tensor]) -> Editor:
        weights = EditedWeights(decoder, [case.layer])
        wanted = settings(steps, search)
        return Editor(weights, case.tokenizer, SOLVER, [case.layer], case.templates, wanted, moments)

    def find(requests: Sequence[EditRequest], steps: int) -> Tensor:
        with ProgressBars() as report:
            return editor(steps, {}).find_values(requests, report).z

    def write(requests: Sequence[EditRequest], z: Tensor, moment: Tensor) -> Tensor:
        found = editor(2, {case.layer: moment}).write(requests, z, measured=False)
        return found.factors[case.layer].dense()

    return Way(find, write, lambda rows: compute_second_moments(decoder, rows, [case.layer])[case.layer])


def plain(case: Material) -> Way:
    """One edit after the other, whole passes, explicit inverses."""
    decoder = find_decoder(case.model)
    block, module = decoder.blocks[case.layer], decoder.down_projection(case.layer)

    def find(requests: Sequence[EditRequest], steps: int) -> Tensor:
        values, wanted = [], settings(steps)
        with ProgressBars() as report:
            for i, request in enumerate(requests):
                values.append(plain_value(case.model, block, case.tokenizer, request, case.templates, wanted).z)
                report("values (edits)", i + 1, len(requests))
        return torch.stack(values)

    def write(requests: Sequence[EditRequest], z: Tensor, moment: Tensor) -> Tensor:
        keys = plain_keys(case.model, module, case.tokenizer, requests, case.templates)
        bare = [(request.prompt, request.subject) for request in requests]
        residual = (z.double() - plain_at_subject(case.model, block, case.tokenizer, bare, entering=False)).T
        preserved = SOLVER.second_moment_weight * moment
        preserved += SOLVER.ridge * torch.eye(len(preserved), dtype=preserved.dtype, device=preserved.device)
        delta = explicit_emmet(keys, residual, preserved, SOLVER.lam(len(requests)))
        weight = decoder.weight(case.layer)
        with torch.no_grad():
            weight.copy_((weight.double() + delta).to(weight.dtype))
        return delta

    def moment(rows: Sequence[Sequence[int]]) -> Tensor:
        return plain_second_moment(case.model, module, batches(rows), stop=True)

    return Way(find, write, moment)


WAYS = {PLAIN: plain, LIBRARY: library, FEWER: partial(library, search=DESCENT)}


def text(case: Material, tokens: int) -> list[list[int]]:
    """Rows of random tokens that fit the model."""
    longest = min(256, find_decoder(case.model).context or 256)
    return random_rows(tokens, case.model.config.vocab_size, longest // 4, longest)


def measure(how: str, choice: Choice, few: int | None, steps: int, tokens: int | None) -> list[Row]:
    """Seconds and floor of each part of one way for the whole batch; run in its own process.

    Args:
        how: The way.
        choice: Model and edits.
        few: Of so many edits values are found, and the time is scaled; None for all.
        steps: Passes of each edit.
        tokens: Of text for second moments, the time is scaled to ten for each dimension; None for as many.
    """
    case = load(choice)
    decoder, way, edits = find_decoder(case.model), WAYS[how](case), case.requests
    d_out, d_in = decoder.weight(case.layer).shape
    wanted = TOKENS_PER_DIMENSION * d_in
    rows = text(case, min(tokens or wanted, wanted))
    some = edits if few is None else spread(case, min(few, len(edits)))
    # What only the first call needs, before anything is timed.
    way.values(some[:1], 2)
    way.moments([rows[0][:16]])

    moments = timed(lambda: way.moments(rows), 1, choice.dtype, choice.device)
    values = timed(lambda: way.values(some, steps), 1, choice.dtype, choice.device)
    z = values.result if few is None else values.result.mean(0).expand(len(edits), -1)
    written = timed(lambda: way.write(edits, z, moments.result), 1, choice.dtype, choice.device)

    arguments = (decoder, case.tokenizer, edits, case.templates, case.layer)
    scale = wanted / sum(map(len, rows))
    solve = solve_flops(len(edits), d_in, d_out) / matrix_rate(torch.float64, choice.device)
    # Of each part what was measured, and its floor.
    parts = {
        VALUES: (values.seconds * len(edits) / len(some), value_flops(*arguments, settings(steps)) / values.rate),
        WRITE: (written.seconds, key_flops(*arguments) / written.rate + solve),
        MOMENTS: (moments.seconds * scale, moment_flops(decoder, rows, case.layer) / moments.rate * scale),
    }
    parts[GIVEN] = (parts[VALUES][0] + parts[WRITE][0], parts[VALUES][1] + parts[WRITE][1])
    parts[ALL] = (parts[GIVEN][0] + parts[MOMENTS][0], parts[GIVEN][1] + parts[MOMENTS][1])
    about = {"model": choice.title, "method": how, "edits": len(edits), "steps": steps, "moment_tokens": wanted}
    return [{**about, "part": part, **reached(*pair)} for part, pair in parts.items()]


def compare(choice: Choice, steps: int) -> Row:
    """How far apart both ways' updates are in float64, relative to the published one (Frobenius)."""
    found = []
    for make in (library, plain):
        case = load(choice, torch.float64)
        way = make(case)
        moment = way.moments(text(case, 256))
        found.append(way.write(case.requests, way.values(case.requests, steps), moment))
    difference = float((found[0] - found[1]).norm() / found[1].norm())
    return {"model": choice.title, "edits": choice.edits, "steps": steps, "relative_error_float64": difference}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    timings, compared = [], []
    few, steps, fewer, tokens = (2, 4, 2, 512) if quick else (4, 20, 7, 4096 if run.device == "cpu" else None)
    for choice in run.choices(MODELS, 8 if quick else 64):
        for how, passes in ((PLAIN, steps), (LIBRARY, steps), (FEWER, fewer)):
            what = f"{choice.title}: {how}, {choice.edits} edits, {passes} steps"
            timings += run(what, measure, how, choice, few if how == PLAIN else None, passes, tokens)
        if choice.dtype == torch.float32:
            some = replace(choice, edits=min(2, choice.edits))
            compared.append(run(f"{choice.title}: equality in float64, {some.edits} edits", compare, some, 3))
    return {"timed": timings, "compared": compared}


def _lines(rows: dict[str, list[Row]]) -> list[tuple[str, ...]]:
    """Each part of each way beside the published one."""
    error = {row["model"]: f"{row['relative_error_float64']:.0e}" for row in rows["compared"]}
    found = {(row["model"], row["part"], row["method"]): row for row in rows["timed"]}
    lines = []
    for (model, part, how), fast in found.items():
        # Fewer passes change the values, and what the values are a part of.
        if how == PLAIN or (how == FEWER and part in (WRITE, MOMENTS)):
            continue
        slow = found[model, part, PLAIN]
        lines.append(
            (
                model,
                part,
                how,
                str(fast["edits"]),
                str(fast["steps"]),
                number(slow["seconds"]),
                number(fast["seconds"]),
                ratio(slow["seconds"], fast["seconds"]),
                number(fast["floor_seconds"]),
                percent(fast),
                error.get(model, "") if part == WRITE else "",
            )
        )
    return lines


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    steps = next(row["steps"] for row in rows["timed"] if row["method"] == PLAIN)
    columns = ("edits", "steps", "published s", "seconds", "times faster", "floor s", "reached", "difference")
    return [
        table_of(
            "Whole edits: one batch in one layer, EMMET",
            f"The published way takes {steps} steps; its values are timed on a few edits. Second moments, of ten "
            "tokens for each dimension, are timed on a part of them. Both scaled. Difference of the updates in "
            "float64, Frobenius, relative.",
            ("model", "part", "method", *columns),
            3,
            _lines(rows),
        )
    ]
