"""How many digits of an update are right: against fifty-digit arithmetic, on small ill-conditioned layers."""

import dataclasses
from contextlib import suppress
from functools import cache

import mpmath
import pytest
import torch
from mpmath import mp

from lightning_edit.solvers import EMMET, MEMIT, ROME, AlphaEdit, EditProblem, LayerSolver, PreviousKeys
from lightning_edit.solvers import preservation as preservation_module
from lightning_edit.solvers.cholesky import SingularError
from lightning_edit.solvers.preservation import CancelledError
from tests.solvers import cases
from tests.solvers.cases import random

D_IN, D_OUT, EPS = 10, 4, torch.finfo(torch.float64).eps
# The relative error of an update is at most this many times eps times the condition number of C'.
ALLOWED = 10
# With less than one right digit an update would be wrong.
WRONG = 0.1
CONDITIONS = [1e4, 1e8, 1e12]


@pytest.fixture(autouse=True)
def fifty_digits():
    with mp.workdps(50):
        yield


def ill_conditioned(condition, seed=0):
    basis = torch.linalg.qr(random(D_IN, D_IN, seed=seed)).Q
    exponents = torch.linspace(0, 1, D_IN, dtype=torch.float64)
    moment = basis * condition**-exponents @ basis.T
    return (moment + moment.T) / 2


def make_problem(n, condition, earlier=None, seed=0):
    draws = [random(rows, n, seed=seed + shift) for shift, rows in ((1, D_IN), (2, D_OUT), (3, D_IN))]
    moment = None if earlier is None else earlier @ earlier.T
    return EditProblem(draws[0], draws[1], ill_conditioned(condition, seed), moment, draws[0] + 0.1 * draws[2])


def exact(tensor):
    return mpmath.matrix(tensor.tolist())


def rounded(matrix):
    return torch.tensor([[float(x) for x in row] for row in matrix.tolist()], dtype=torch.float64)


def cond(matrix):
    values = [abs(value) for value in mp.eigsy(matrix, eigvals_only=True)]
    return float(max(values) / min(values))


def reference(solver, problem, earlier=None):
    """The update by its formula in fifty digits, and the condition number of C' (or of the null space it is in)."""
    keys, residual, n = exact(problem.keys), exact(problem.residual), problem.keys.shape[1]
    moment, previous = exact(problem.second_moment), mp.zeros(D_IN)
    if earlier is not None:
        previous = exact(earlier) * exact(earlier).T
    if isinstance(solver, AlphaEdit):
        values, vectors = mp.eigsy(moment)
        basis = vectors[:, : sum(value < solver.threshold for value in values)]
        gap = min(abs(value - solver.threshold) for value in values)
        inside = basis.T * previous * basis + solver.ridge * mp.eye(basis.cols)
        inverse, conditioned = basis * inside**-1 * basis.T, cond(inside) * float(max(values) / gap)
    else:
        preserved = solver.second_moment_weight * moment + solver.ridge * mp.eye(D_IN) + previous
        inverse, conditioned = preserved**-1, cond(preserved)
    if isinstance(solver, ROME):
        u = inverse * keys
        return residual * u.T / (u.T * exact(problem.bare_keys))[0], conditioned
    system = keys.T * inverse * keys + solver.lam(n) * mp.eye(n)
    return residual * system**-1 * keys.T * inverse, conditioned


@cache
def case(solver, n, condition, previous, seed=0):
    """A problem, and what `reference` says of it, which takes most of the time here."""
    problem = make_problem(n, condition, EARLIER[previous], seed)
    return problem, *reference(solver, problem, EARLIER[previous])


def error(update, expected):
    return float(mp.norm(exact(update) - expected) / mp.norm(expected))


EARLIER = {"alone": None, "sequential": random(D_IN, 4, seed=30)}
conditions = pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: f"{c:.0e}")
solvers = cases.solvers_and_edits(D_IN, sizes=("few", "many"))


@conditions
@pytest.mark.parametrize("previous", [pytest.param("alone", marks=pytest.mark.slow), "sequential"])
@solvers
def test_the_error_is_a_small_multiple_of_rounding_times_condition(solver, n, previous, condition):
    for seed in (0, 10):
        problem, expected, conditioned = case(solver, n, condition, previous, seed)
        assert error(solver(problem).dense(), expected) <= ALLOWED * conditioned * EPS


@conditions
@solvers
@pytest.mark.slow
def test_so_is_that_of_earlier_keys_that_are_added_batch_after_batch(solver, n, condition):
    (problem, expected, conditioned), earlier = case(solver, n, condition, "sequential"), EARLIER["sequential"]
    problem = dataclasses.replace(problem, previous_keys_moment=None)
    for keys in (
        PreviousKeys(None, (earlier[:, :1], earlier[:, 1:])),
        PreviousKeys(earlier[:, :2] @ earlier[:, :2].T, (earlier[:, 2:],)),
    ):
        solution, _ = LayerSolver(solver, problem.second_moment).solve(problem, keys)
        assert error(solution.update.dense(), expected) <= ALLOWED * conditioned * EPS


def by_inverse(problem, precision):
    inverse = torch.linalg.inv(5.0 * problem.second_moment.to(precision)).double()
    keys = problem.keys
    system = keys.T @ inverse @ keys + torch.eye(keys.shape[1], dtype=torch.float64)
    return problem.residual @ torch.linalg.solve(system, keys.T @ inverse)


@conditions
def test_an_inverse_in_single_precision_would_be_found_out(condition):
    problem = make_problem(3, condition)
    expected, conditioned = reference(MEMIT(5.0), problem)
    assert error(by_inverse(problem, torch.float32), expected) > ALLOWED * conditioned * EPS


@pytest.mark.parametrize("condition", [1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e24])
@pytest.mark.parametrize("solver", [ROME(), EMMET(5.0, emmet_lambda=0.0)], ids=lambda s: type(s).__name__)
@pytest.mark.slow
def test_what_cannot_be_trusted_is_refused_not_answered(solver, condition):
    answered = 0
    for seed in range(10):
        problem = make_problem(1, condition, seed=10 * seed)
        for solve in (solver, lambda p: LayerSolver(solver, p.second_moment).solve(p, PreviousKeys())[0].update):
            with suppress(SingularError):
                assert error(solve(problem).dense(), reference(solver, problem)[0]) < WRONG
                answered += 1
    assert answered == 20 if condition < 1e14 else answered == 0 or condition < 1e18


def cancelling():
    """An earlier key in a direction that ordinary text hardly has, and new ones near it."""
    basis = torch.linalg.qr(random(D_IN, D_IN)).Q
    moment, rare = torch.eye(D_IN, dtype=torch.float64) - (1 - 1e-9) * basis[:, :1] @ basis[:, :1].T, basis[:, :1]
    keys = rare + 1e-3 * random(D_IN, 2, seed=50)
    return dataclasses.replace(make_problem(2, 1.0), keys=keys, second_moment=moment), PreviousKeys(None, (rare,))


def test_where_earlier_keys_take_nearly_all_a_new_factor_is_made(monkeypatch):
    problem, earlier = cancelling()
    expected, conditioned = reference(MEMIT(5.0), problem, earlier.recent[0])
    layer_solver = LayerSolver(MEMIT(5.0), problem.second_moment)
    with pytest.raises(CancelledError):
        layer_solver.state(earlier).weighted(problem.keys)
    solution, after = layer_solver.solve(problem, earlier)
    assert (after.recent, layer_solver.factored) == ((), 2)
    right = error(solution.update.dense(), expected)
    assert right <= ALLOWED * conditioned * EPS
    # What it is good for: the digits that would be lost.
    monkeypatch.setattr(preservation_module, "MOST_CANCELLED", float("inf"))
    wrong = LayerSolver(MEMIT(5.0), problem.second_moment).solve(problem, earlier)[0].update.dense()
    assert error(wrong, expected) > 1e5 * right
