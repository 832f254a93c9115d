"""Solvers: Cholesky factors and the smaller of two forms against explicit inverses, and many updates one by one.

The floor of an update is what its form needs in floating-point operations at the matrix rate of float64. A product that
is symmetric, as K K^T, counts half.
"""

from dataclasses import dataclass
from functools import partial

import torch
from rich.table import Table

from lightning_edit.progress import ProgressBars
from lightning_edit.solvers import EMMET, MEMIT, EditProblem, LayerSolver, PreviousKeys
from tests.benchmarks.floor import matrix_rate, reached
from tests.benchmarks.measure import seconds
from tests.benchmarks.show import Row, Run, percent, ratio, table_of
from tests.plain import explicit_emmet, explicit_memit


@dataclass(frozen=True)
class Sizes:
    """The shape of one layer, the numbers of edits written into it at once, and how many updates follow each other."""

    d_in: int
    d_out: int
    edits: tuple[int, ...]
    repeats: int
    updates: int


FULL = Sizes(3072, 768, (1, 100, 1000, 4000), repeats=3, updates=16)
QUICK = Sizes(768, 192, (1, 25, 250, 1000), repeats=3, updates=16)


def problem(n: int, d_in: int, d_out: int, device: str = "cpu") -> EditProblem:
    """Random keys whose coordinates differ in size a hundredfold, and the second moment of others like them."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device=device)

    scales = torch.logspace(-2, 0, d_in, dtype=torch.float64, device=device)[:, None]
    text = draw(d_in, 2 * d_in) * scales
    return EditProblem(draw(d_in, n) * scales, draw(d_out, n), text @ text.T / (2 * d_in))


def operations(n: int, d_in: int, d_out: int) -> float:
    """Of one update, dense at last: factors, triangular solves and products of the form that is taken."""
    factor = d_in**3 / 3
    if n > d_in:
        return factor + d_in**2 * n + 2 * d_out * d_in * n + 2 * d_in**2 * d_out
    return factor + 2 * d_in**2 * n + 3 * n**2 * d_in + n**3 / 3 + 2 * d_out * d_in * n


def operations_among_many(n: int, d_in: int, updates: int, factors: int, recent: float) -> float:
    """Of one update of many, on average: its share of the factors, and so many recent keys beside the last of them."""
    return factors / updates * d_in**3 / 3 + 2 * d_in**2 * n + 4 * d_in * n * recent + 5 * n**2 * d_in + 2 * n**3 / 3


def measure(n: int, d_in: int, d_out: int, repeats: int, device: str = "cpu") -> list[Row]:
    """Median seconds of both ways for EMMET and MEMIT, and how far apart their updates are; in one process."""
    case = problem(n, d_in, d_out, device)
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
    small, rows = problem(n=2 if n > 1 else 1, d_in=64, d_out=16, device=device), []
    with ProgressBars() as report:
        for done, (name, (library, explicit)) in enumerate(ways.items()):
            library(small)
            explicit(small)
            rate = matrix_rate(torch.float64, device)
            explicit_time, expected = seconds(partial(explicit, case), repeats)
            library_time, found = seconds(partial(library, case), repeats)
            rate = (rate + matrix_rate(torch.float64, device)) / 2
            report("systems", done + 1, len(ways))
            rows.append(
                {
                    "solver": name,
                    "edits": n,
                    "form": "dual" if n <= d_in else "primal",
                    "d_in": d_in,
                    "d_out": d_out,
                    "explicit_seconds": explicit_time,
                    "relative_difference": float((found - expected).norm() / expected.norm()),
                    "matrix_rate": rate,
                    **reached(library_time, operations(n, d_in, d_out) / rate),
                }
            )
    return rows


def measure_many(n: int, d_in: int, d_out: int, updates: int, preserved: bool) -> Row:
    """Mean seconds of an update of many with its condition numbers: a new factor for each, or what is kept serves."""
    case, solver = problem(n * updates, d_in, d_out), MEMIT()
    layer_solver, previous = LayerSolver(solver, case.second_moment), PreviousKeys() if preserved else None
    moment = torch.zeros_like(case.second_moment) if preserved else None
    taken, recent, difference, rate = {"anew": 0.0, "kept": 0.0}, 0, 0.0, matrix_rate(torch.float64)

    def anew(one: EditProblem) -> torch.Tensor:
        solution = solver.solve(solver.factor(one.second_moment, moment), one)
        solution.condition_numbers()
        if moment is not None:
            moment.addmm_(one.keys, one.keys.T)
        return solution.update.dense()

    def with_kept(one: EditProblem) -> torch.Tensor:
        nonlocal previous
        solution, previous = layer_solver.solve(one, previous)
        solution.condition_numbers()
        previous = None if previous is None else previous.extended(one.keys)
        return solution.update.dense()

    for keys, residual in zip(case.keys.split(n, dim=1), case.residual.split(n, dim=1), strict=True):
        one = EditProblem(keys.contiguous(), residual, case.second_moment)
        recent += 0 if previous is None else sum(block.shape[1] for block in previous.recent)
        (first, expected), (second, found) = seconds(partial(anew, one)), seconds(partial(with_kept, one))
        taken["anew"] += first / updates
        taken["kept"] += second / updates
        difference = max(difference, float((found - expected).norm() / expected.norm()))
    rate = (rate + matrix_rate(torch.float64)) / 2
    needed = operations_among_many(n, d_in, updates, layer_solver.factored, recent / updates) + 2 * d_out * d_in * n
    about = {"solver": "MEMIT", "edits": n, "d_in": d_in, "d_out": d_out, "updates": updates, "preserved": preserved}
    about |= {"anew_seconds": taken["anew"], "relative_difference": difference, "factors": layer_solver.factored}
    return about | {"matrix_rate": rate, **reached(taken["kept"], needed / rate)}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every number of edits; see the module."""
    sizes = QUICK if quick else FULL
    timed, many = list[Row](), list[Row]()
    for n in sizes.edits:
        what = f"EMMET and MEMIT, {n} edits, {sizes.d_in} x {sizes.d_out}"
        timed += run(what, measure, n, sizes.d_in, sizes.d_out, sizes.repeats)
    n = sizes.edits[1]
    for preserved in (False, True):
        what = f"{sizes.updates} updates of {n} edits{', earlier ones preserved' if preserved else ''}"
        many.append(run(what, measure_many, n, sizes.d_in, sizes.d_out, sizes.updates, preserved))
    return {"timed": timed, "many": many}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    first = rows["timed"][0]
    shape = f"d_in = {first['d_in']}, d_out = {first['d_out']}, float64"
    columns = ("edits", "library s", "floor s", "of the floor", "inverses s", "times faster", "relative difference")
    many = ("factors", "library s", "floor s", "of the floor", "factor each s", "times faster", "relative difference")
    return [
        table_of(
            f"Solvers, {shape}",
            "Medians; the difference is Frobenius, relative to the update by explicit inverses. Up to d_in edits the "
            "library solves the dual form, beyond it the primal one.",
            ("solver", "form", *columns),
            2,
            [
                (row["solver"], row["form"], str(row["edits"]), *_cells(row, "explicit_seconds"))
                for row in rows["timed"]
            ],
        ),
        table_of(
            f"{rows['many'][0]['updates']} updates of {rows['many'][0]['edits']} edits by MEMIT, {shape}",
            "Means of an update with its condition numbers. Beside it a new factor of C' for each update.",
            ("earlier edits", *many),
            1,
            [
                ("preserved" if row["preserved"] else "no", str(row["factors"]), *_cells(row, "anew_seconds"))
                for row in rows["many"]
            ],
        ),
    ]


def _cells(row: Row, slow: str) -> tuple[str, ...]:
    return (
        f"{row['seconds']:.3f}",
        f"{row['floor_seconds']:.3f}",
        percent(row),
        f"{row[slow]:.3f}",
        ratio(row[slow], row["seconds"]),
        f"{row['relative_difference']:.1e}",
    )
