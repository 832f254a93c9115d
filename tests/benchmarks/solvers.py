"""Solvers: Cholesky factors and the smaller of two forms against explicit inverses."""

from dataclasses import dataclass

import torch
from rich.table import Table

from lightning_edit.progress import ProgressBars
from lightning_edit.solvers import EMMET, MEMIT, EditProblem
from tests.benchmarks.measure import seconds
from tests.benchmarks.show import Row, Run, ratio
from tests.plain import explicit_emmet, explicit_memit


@dataclass(frozen=True)
class Sizes:
    """The shape of one layer and the numbers of edits written into it."""

    d_in: int
    d_out: int
    edits: tuple[int, ...]
    repeats: int


FULL = Sizes(3072, 768, (1, 100, 1000, 4000), repeats=3)
QUICK = Sizes(768, 192, (1, 25, 250, 1000), repeats=3)


def problem(n: int, d_in: int, d_out: int) -> EditProblem:
    """Random keys whose coordinates differ in size a hundredfold, and the second moment of others like them."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = torch.logspace(-2, 0, d_in, dtype=torch.float64)[:, None]
    text = draw(d_in, 2 * d_in) * scales
    return EditProblem(draw(d_in, n) * scales, draw(d_out, n), text @ text.T / (2 * d_in))


def measure(n: int, d_in: int, d_out: int, repeats: int) -> list[Row]:
    """Median seconds of both ways for EMMET and MEMIT, and how far apart their updates are; in one process."""
    case = problem(n, d_in, d_out)
    emmet, memit = EMMET(emmet_lambda=0.1), MEMIT()
    lam = emmet.emmet_lambda if n > 1 else 0.0
    ways = {
        "EMMET": (
            lambda p: emmet(p).dense(),
            lambda p: explicit_emmet(p.keys, p.residual, emmet.second_moment_weight * p.second_moment, lam),
        ),
        "MEMIT": (
            lambda p: memit(p).dense(),
            lambda p: explicit_memit(p.keys, p.residual, memit.second_moment_weight * p.second_moment),
        ),
    }
    small, rows = problem(n=2 if n > 1 else 1, d_in=64, d_out=16), []
    with ProgressBars() as report:
        for done, (name, (library, explicit)) in enumerate(ways.items()):
            library(small)
            explicit(small)
            explicit_time, expected = seconds(lambda way=explicit: way(case), repeats)
            library_time, found = seconds(lambda way=library: way(case), repeats)
            report("systems", done + 1, len(ways))
            rows.append(
                {
                    "solver": name,
                    "edits": n,
                    "d_in": d_in,
                    "d_out": d_out,
                    "library_seconds": library_time,
                    "explicit_seconds": explicit_time,
                    "relative_difference": float((found - expected).norm() / expected.norm()),
                }
            )
    return rows


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every number of edits; see the module."""
    sizes, rows = QUICK if quick else FULL, []
    for n in sizes.edits:
        what = f"EMMET and MEMIT, {n} edits, {sizes.d_in} x {sizes.d_out}"
        rows += run(what, measure, n, sizes.d_in, sizes.d_out, sizes.repeats)
    return {"timed": rows}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    first = rows["timed"][0]
    table = Table(
        title=f"Solvers, d_in = {first['d_in']}, d_out = {first['d_out']}, float64",
        caption="Medians; the difference is Frobenius, relative to the update by explicit inverses. Up to d_in edits "
        "the library solves the dual form, beyond it the primal one.",
    )
    for name in ("solver", "edits", "library s", "inverses s", "times faster", "relative difference"):
        table.add_column(name, justify="left" if name == "solver" else "right")
    for row in rows["timed"]:
        table.add_row(
            row["solver"],
            str(row["edits"]),
            f"{row['library_seconds']:.3f}",
            f"{row['explicit_seconds']:.3f}",
            ratio(row["explicit_seconds"], row["library_seconds"]),
            f"{row['relative_difference']:.1e}",
        )
    return [table]
