"""Condition numbers of a solver's matrices against exact ones, and refusals before a run."""

import math

import pytest
import torch

from lightning_edit.errors import EditError
from lightning_edit.solvers import MEMIT, EditProblem, SingularError
from lightning_edit.solvers.checks import check_second_moments
from tests.solvers.cases import (
    MOMENT,
    SINGULAR,
    make_problem,
    preservation,
    previous_keys,
    random,
    singular_moment,
    solve,
    solvers,
    solvers_and_edits,
    with_moment,
)

D_IN = 8


def true_conditions(solver, problem):
    """The exact 1-norm condition numbers of C' and of the edits' system, by explicit inverses."""
    preserved = solver.matrix(problem.second_moment, problem.previous_keys_moment)
    d_in, n = problem.keys.shape
    lam = solver.lam(n)
    dual = problem.keys.T @ torch.linalg.inv(preserved) @ problem.keys + lam * torch.eye(n, dtype=torch.float64)
    system = lam * preserved + problem.keys @ problem.keys.T if n > d_in else dual
    return {name: float(torch.linalg.cond(m, 1)) for name, m in (("preservation", preserved), ("keys", system))}


def estimated_conditions(solver, problem):
    return solver.solve(solver.factor(problem.second_moment, problem.previous_keys_moment), problem).condition_numbers()


@pytest.mark.parametrize("seed", range(5))
@preservation
@solvers_and_edits(D_IN, MOMENT)
def test_condition_numbers_are_close_to_the_true_ones(solver, n, kind, seed):
    problem, previous = make_problem(n, seed=10 * seed), previous_keys(kind, D_IN)
    exact = true_conditions(solver, with_moment(problem, previous))
    for estimated in (
        solve(solver, problem, previous).condition_numbers(),
        estimated_conditions(solver, with_moment(problem, previous)),
    ):
        assert estimated.keys() == exact.keys()
        assert all(exact[name] / 10 <= estimated[name] <= exact[name] * (1 + 1e-6) for name in exact)


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("condition", [1e3, 1e9])
def test_condition_numbers_of_larger_matrices(condition, n):
    size = 200
    basis = torch.linalg.qr(random(size, size)).Q
    spectrum = torch.logspace(0, math.log10(condition), size, dtype=torch.float64)
    problem = EditProblem(100 * random(size, n, seed=1), random(3, n, seed=2), basis * spectrum @ basis.T)
    estimated, exact = estimated_conditions(MEMIT(1.0), problem), true_conditions(MEMIT(1.0), problem)
    assert all(exact[name] / 10 <= estimated[name] <= exact[name] * (1 + 1e-6) for name in exact), (estimated, exact)
    assert estimated["preservation"] > condition / 10


def test_the_primal_form_solves_what_it_can_and_gives_an_infinite_condition_number():
    # C' is singular, lam C' + K K^T is not.
    conditions = estimated_conditions(MEMIT(), make_problem(20, second_moment=singular_moment(D_IN, 3, seed=0)))
    assert conditions["preservation"] == math.inf
    assert conditions["keys"] < math.inf


@solvers()
def test_checks_accept_what_can_be_solved(solver):
    solver.check(make_problem(1).second_moment)
    check_second_moments({3: make_problem(1).second_moment}, solver)


@solvers(without=[SINGULAR])
def test_checks_refuse_what_solving_would_refuse(solver):
    with pytest.raises(SingularError, match="preservation"):
        solver.check(singular_moment(D_IN, D_IN - 1, seed=0))
    with pytest.raises(EditError, match=r"layer 3 has rank 7 of 8 .*`second_moment.tokens`.*`ridge`"):
        check_second_moments({3: singular_moment(D_IN, D_IN - 1, seed=0)}, solver)
