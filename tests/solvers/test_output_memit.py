"""A lambda for each output direction, against dense inverses row by row, and its limits."""

from dataclasses import replace

import pytest
import torch

from lightning_edit import MEMIT, EditError, LyapLock, OutputMEMIT
from lightning_edit.solvers import EditProblem, LayerSolver, OutputDirections, PreviousKeys, SingularError
from tests.solvers.cases import PRESERVATION, make_problem, moment_of, previous_keys, solve
from tests.solvers.test_experts import dense
from tests.solvers.test_experts import problem as problem_of_experts

D_IN, D_OUT = 8, 5
B = moment_of(D_OUT, seed=9)
SOLVER = OutputMEMIT(2.0, 0.1)


def problem_of(n, moment=B, **changes):
    return make_problem(n, D_IN, D_OUT, output_moment=OutputDirections.of(moment), **changes)


def plain(solver, problem, moment=B, previous=None):
    """Row i of U^T Delta by the inverse of K K^T + b_i C', written out."""
    c = solver.second_moment_weight * problem.second_moment + solver.ridge * torch.eye(len(problem.keys)).double()
    c = c if previous is None else c + previous
    b = moment / moment.diagonal().mean()
    b = (1 - solver.sensitivity) * torch.eye(len(b)).double() + solver.sensitivity * b
    values, vectors = torch.linalg.eigh(b)
    right, gram = problem.residual @ problem.keys.T, problem.keys @ problem.keys.T
    rows = [(vectors[:, i] @ right) @ torch.linalg.inv(gram + values[i] * c) for i in range(len(b))]
    return vectors @ torch.stack(rows)


def close(found, expected):
    return float((found - expected).norm()) <= 1e-9 * float(expected.norm())


@pytest.mark.parametrize("n", [1, 3, D_IN, 2 * D_IN + 1])
@pytest.mark.parametrize("kind", PRESERVATION)
@pytest.mark.parametrize("sensitivity", [1.0, 0.4])
def test_each_direction_has_its_own_lambda(n, kind, sensitivity):
    solver, problem, previous = replace(SOLVER, sensitivity=sensitivity), problem_of(n), previous_keys(kind, D_IN)
    expected = plain(solver, problem, previous=None if previous is None else previous.dense())
    assert close(solve(solver, problem, previous).update.dense(), expected)


@pytest.mark.parametrize("n", [3, 2 * D_IN + 1])
def test_it_is_where_both_goals_together_are_least(n):
    problem = problem_of(n)
    delta = SOLVER(problem).dense().requires_grad_()
    c = SOLVER.matrix(problem.second_moment)
    preserved = ((B / B.diagonal().mean()) @ delta @ c * delta).sum()
    (gradient,) = torch.autograd.grad((delta @ problem.keys - problem.residual).square().sum() + preserved, delta)
    assert float(gradient.norm()) <= 1e-9 * float(problem.residual.norm())


@pytest.mark.parametrize("n", [3, 2 * D_IN + 1])
def test_with_all_directions_alike_it_is_memit_whatever_the_scale(n):
    alike = problem_of(n, 7 * torch.eye(D_OUT).double())
    assert close(SOLVER(alike).dense(), MEMIT(2.0, 0.1)(alike).dense())
    small, large = problem_of(n, B), problem_of(n, 1e-6 * B)
    assert close(SOLVER(small).dense(), SOLVER(large).dense())


def test_sensitive_directions_are_written_less():
    moment = torch.diag(torch.tensor([10.0, 1.0, 1.0, 1.0, 0.01]).double())
    problem = problem_of(3, moment)
    problem = replace(problem, residual=problem.residual[:1].expand(D_OUT, 3).clone())
    written = SOLVER(problem).apply(problem.keys).norm(dim=1)
    order = OutputDirections.of(moment).weights.argsort()
    assert order.tolist()[0] == 0 and written[0] < written[1] < written[4]


@pytest.mark.parametrize("edits", [9, 34])
def test_experts_share_the_directions_of_their_output(edits):
    given = problem_of_experts(edits)
    moment = moment_of(len(given.residual), seed=3)
    given = replace(given, output_moment=OutputDirections.of(moment))
    whole = replace(dense(given), output_moment=given.output_moment)
    assert close(SOLVER(given).dense(), plain(SOLVER, whole, moment))


def test_updates_after_each_other_are_those_of_one_dense_problem():
    layer_solver, previous = LayerSolver(SOLVER, moment_of(D_IN, 1), B), PreviousKeys()
    for seed in range(3):
        problem = EditProblem(
            *(getattr(make_problem(2, seed=seed), name) for name in ("keys", "residual")), moment_of(D_IN, 1)
        )
        solution, _ = layer_solver.solve(problem, previous)
        assert close(solution.update.dense(), plain(SOLVER, problem, previous=previous.dense()))
        assert all(value >= 1 for value in solution.condition_numbers().values())
        previous = previous.extended(problem.keys)
    assert layer_solver.factored > 1


def test_what_cannot_be_solved_is_refused():
    keys = torch.ones(D_IN, 2).double()
    blind = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]).double())
    with pytest.raises(SingularError):
        SOLVER(problem_of(2, blind, keys=keys))
    assert SOLVER(problem_of(2, B, keys=keys)).dense().isfinite().all()
    with pytest.raises(ValueError, match="needs `EditProblem"):
        SOLVER(make_problem(2))
    with pytest.raises(ValueError, match="is 0 or not finite"):
        OutputDirections.of(torch.zeros(3, 3).double())
    with pytest.raises(EditError, match="OutputMEMIT gives each a lambda of its own"):
        LyapLock().check(SOLVER)
    LyapLock().check(MEMIT())
