"""What can be known of a solver's matrices: condition numbers against exact ones, and refusals before a run."""

import math

import pytest
import torch

from lightning_edit.errors import EditError
from lightning_edit.solvers import EMMET, MEMIT, ROME, RROME, EditProblem, SingularError
from lightning_edit.solvers.checks import check_second_moments, check_solver
from tests.solvers.test_solvers import D_IN, METRIC_SOLVERS, SOLVERS, make_problem, random, singular_moment


def true_conditions(solver, problem):
    """The exact 1-norm condition numbers of C' and of the edits' system, by explicit inverses."""
    preservation = solver.preservation(problem.second_moment, problem.previous_keys_moment)
    d_in, n = problem.keys.shape
    lam = solver.lam(n)
    dual = problem.keys.T @ torch.linalg.inv(preservation) @ problem.keys + lam * torch.eye(n, dtype=torch.float64)
    system = lam * preservation + problem.keys @ problem.keys.T if n > d_in else dual
    return {name: float(torch.linalg.cond(m, 1)) for name, m in (("preservation", preservation), ("keys", system))}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("previous", [None, torch.eye(D_IN, dtype=torch.float64)], ids=["alone", "sequential"])
@pytest.mark.parametrize(("solver", "n"), METRIC_SOLVERS)
def test_condition_numbers_are_close_to_the_true_ones(solver, n, previous, seed):
    problem = make_problem(n, seed=10 * seed, previous_keys_moment=previous)
    found, exact = solver.condition_numbers(problem), true_conditions(solver, problem)
    assert found.keys() == exact.keys()
    assert all(exact[name] / 10 <= found[name] <= exact[name] * (1 + 1e-9) for name in exact), (found, exact)


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("condition", [1e3, 1e9])
def test_condition_numbers_of_larger_matrices(condition, n):
    size = 200
    basis = torch.linalg.qr(random(size, size)).Q
    spectrum = torch.logspace(0, math.log10(condition), size, dtype=torch.float64)
    problem = EditProblem(100 * random(size, n, seed=1), random(3, n, seed=2), basis * spectrum @ basis.T)
    found, exact = MEMIT(1.0).condition_numbers(problem), true_conditions(MEMIT(1.0), problem)
    assert all(exact[name] / 10 <= found[name] <= exact[name] * (1 + 1e-6) for name in exact), (found, exact)
    assert found["preservation"] > condition / 10


def test_singular_matrices_have_infinite_condition_numbers():
    singular = make_problem(2, second_moment=singular_moment(3, seed=0))
    assert MEMIT().condition_numbers(singular) == {"preservation": math.inf, "keys": math.inf}
    same = make_problem(2, keys=random(D_IN, 1)[:, [0, 0]])
    found = EMMET(emmet_lambda=0.0).condition_numbers(same)
    assert found["keys"] == math.inf
    assert found["preservation"] < math.inf


@pytest.mark.parametrize("solver", [ROME(), RROME(), EMMET(), MEMIT()], ids=lambda s: type(s).__name__)
def test_checks_find_what_solving_would_find(solver):
    problem = make_problem(1)
    solver.check(problem.second_moment)
    with pytest.raises(SingularError, match="preservation"):
        solver.check(singular_moment(D_IN - 1, seed=0))
    with pytest.raises(EditError, match=r"layer 3 has rank 7 of 8 .*`second_moment.tokens`.*`ridge`"):
        check_second_moments({3: singular_moment(D_IN - 1, seed=0)}, solver)
    assert solver.basis(problem.second_moment) is None
    assert not solver.preserves_edits


@pytest.mark.parametrize(
    "solver", [MEMIT(0.0), EMMET(-1.0), MEMIT(1.0, -0.1), ROME(-0.1), MEMIT(float("nan"))], ids=repr
)
def test_settings_that_no_text_can_mend_are_refused(solver):
    with pytest.raises(EditError, match="`second_moment_weight` > 0 and `ridge` >= 0"):
        check_solver(solver)


@pytest.mark.parametrize(("solver", "n"), SOLVERS)
def test_good_settings_are_taken(solver, n):
    check_solver(solver)
