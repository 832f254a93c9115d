"""What solvers refuse, with causes and a remedy, and what mends it."""

import pytest
import torch

from lightning_edit.solvers import EMMET, RROME, SingularError
from tests.solvers.cases import SINGLE, SINGULAR, make_problem, random, singular_moment, solvers

D_IN = 8


@solvers(SINGLE)
def test_solvers_of_single_edits_refuse_more(solver):
    with pytest.raises(ValueError, match=r"ROME takes updates of at most 1 edit\(s\), got 2.*use EMMET or MEMIT"):
        solver(make_problem(2))


def refusals(solver, problems):
    """What each of the problems is refused for, None where it is solved."""
    refused = []
    for problem in problems:
        try:
            solver(problem)
            refused.append(None)
        except SingularError as error:
            refused.append(error.what)
    return refused


@pytest.mark.parametrize("rank", [1, D_IN // 2, D_IN - 1])
@solvers(without=[SINGULAR])
def test_a_singular_second_moment_is_refused(solver, rank):
    # Whether rounding leaves a tiny positive or negative pivot is chance: many draws.
    problems = [make_problem(1, second_moment=singular_moment(D_IN, rank, seed)) for seed in range(20)]
    assert refusals(solver, problems) == ["preservation"] * 20


@pytest.mark.parametrize("rank", [1, D_IN // 2, D_IN - 1])
@solvers(SINGULAR)
def test_a_ridge_mends_a_singular_second_moment(solver, rank):
    problem = make_problem(1, second_moment=singular_moment(D_IN, rank, seed=0))
    assert solver(problem).dense().isfinite().all()


@pytest.mark.parametrize("what", ["preservation", "keys"])
def test_refusals_give_likely_causes_and_a_remedy(what):
    with pytest.raises(SingularError, match=rf"The {what} matrix is singular .*Likely causes, most probable.*ridge"):
        raise SingularError(what)


def dependent_keys(kind, seed):
    keys = torch.linalg.qr(random(D_IN, D_IN, seed=seed)).Q
    return {
        "same key twice": keys[:, [0, 1, 2, 0]],
        "a combination": torch.cat([keys[:, :3], keys[:, :1] + keys[:, 1:2]], dim=1),
        "more than d_in": torch.cat([keys, random(D_IN, 1, seed=seed + 50)], dim=1),
    }[kind]


@pytest.mark.parametrize("kind", ["same key twice", "a combination", "more than d_in"])
def test_dependent_keys_without_lambda_are_refused(kind):
    keys = [dependent_keys(kind, seed) for seed in range(20)]
    problems = [make_problem(k.shape[1], seed=seed, keys=k) for seed, k in enumerate(keys)]
    assert refusals(EMMET(10.0, emmet_lambda=0.0), problems) == ["keys"] * 20


def test_a_lambda_takes_dependent_keys():
    keys = random(D_IN, 2)[:, [0, 0, 1]]
    assert EMMET(10.0, emmet_lambda=0.1)(make_problem(3, keys=keys)).dense().isfinite().all()


@pytest.mark.parametrize("condition", [1e4, 1e8])
def test_an_ill_conditioned_second_moment_is_still_solved(condition):
    basis = torch.linalg.qr(random(D_IN, D_IN)).Q
    spectrum = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), D_IN, dtype=torch.float64)
    problem = make_problem(1, second_moment=basis * spectrum @ basis.T)
    assert problem.memorization_error(RROME()(problem)) < 1e-6
