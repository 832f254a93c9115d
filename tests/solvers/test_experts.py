"""Experts: one least squares over all of them, whose second moment is block-diagonal."""

import pytest
import torch

from lightning_edit import EMMET, MEMIT, RROME, AlphaEdit, EditError
from lightning_edit.solvers import EditProblem, LayerSolver, PreviousKeys
from lightning_edit.solvers.blocks import LazyBlocks, weighted_rows
from lightning_edit.solvers.checks import check_second_moments

EXPERTS, D_IN, D_OUT, EDITS = 5, 6, 7, 9
SOLVERS = [
    EMMET(second_moment_weight=3.0, emmet_lambda=0.2),
    EMMET(second_moment_weight=3.0, emmet_lambda=0.0),
    MEMIT(second_moment_weight=2.0, ridge=0.5),
    AlphaEdit(threshold=2.0, ridge=0.3),
]


def problem(edits=EDITS, visits=2, seed=0):
    """Keys of which each has a part at so many experts, and blocks of C."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randn(EXPERTS, D_IN, 3 * D_IN, dtype=torch.float64, generator=generator)
    keys = torch.zeros(EXPERTS, D_IN, edits, dtype=torch.float64)
    for edit in range(edits):
        for expert in torch.randperm(EXPERTS, generator=generator)[:visits]:
            keys[expert, :, edit] = torch.randn(D_IN, dtype=torch.float64, generator=generator)
    residual = torch.randn(D_OUT, edits, dtype=torch.float64, generator=generator)
    return EditProblem(keys.flatten(0, 1), residual, blocks @ blocks.mT / (3 * D_IN))


def dense(given):
    """The same with C as a whole."""
    return EditProblem(given.keys, given.residual, torch.block_diag(*given.second_moment))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_blocks_give_the_update_of_the_dense_stacked_problem(solver):
    given = problem()
    update, expected = solver(given), solver(dense(given))
    assert (update.dense() - expected.dense()).norm() <= 1e-10 * expected.dense().norm()
    for error in ("preservation_error", "memorization_error"):
        assert getattr(given, error)(update) == pytest.approx(
            getattr(dense(given), error)(expected), rel=1e-9, abs=1e-12
        )


def test_more_edits_than_stacked_dimensions():
    given = problem(edits=EXPERTS * D_IN + 4)
    update, expected = MEMIT(second_moment_weight=2.0)(given), MEMIT(second_moment_weight=2.0)(dense(given))
    assert (update.dense() - expected.dense()).norm() <= 1e-10 * expected.dense().norm()


def test_the_update_is_a_stationary_point_of_both_goals_together():
    solver, given = MEMIT(second_moment_weight=2.0), problem()
    delta = solver(given).dense().requires_grad_()
    preserved = (weighted_rows(delta, given.second_moment) * delta).sum() * solver.second_moment_weight
    objective = (delta @ given.keys - given.residual).square().sum() + preserved
    (gradient,) = torch.autograd.grad(objective, delta)
    assert gradient.norm() <= 1e-10 * given.residual.norm()


def test_the_formula_expert_by_expert():
    """Delta_j = R (G + lam I)^-1 K_j^T C'_j^-1 with G = sum_j K_j^T C'_j^-1 K_j, keys weighted by their router."""
    solver, given = EMMET(second_moment_weight=3.0, emmet_lambda=0.2), problem()
    keys = given.keys.view(EXPERTS, D_IN, EDITS)
    solved = torch.linalg.solve(3.0 * given.second_moment, keys)
    gram = (keys.mT @ solved).sum(0)
    writer = torch.linalg.solve(gram + solver.lam(EDITS) * torch.eye(EDITS, dtype=torch.float64), solved.mT)
    expected = given.residual @ writer
    found = solver(given).dense().view(D_OUT, EXPERTS, D_IN).transpose(0, 1)
    assert (found - expected).norm() <= 1e-10 * expected.norm()


def test_an_expert_that_no_edit_visits_is_neither_changed_nor_factored():
    given = problem(visits=1)
    given.keys.view(EXPERTS, D_IN, EDITS)[3] = 0
    solver = EMMET(second_moment_weight=3.0)
    state = solver.factor(given.second_moment)
    update = solver.solve(state, given).update.dense().view(D_OUT, EXPERTS, D_IN)
    assert isinstance(state.base, LazyBlocks)
    assert 3 not in state.base._factors
    assert not update[:, 3].any()


def test_earlier_edits_are_preserved_across_experts():
    solver, first, second = MEMIT(second_moment_weight=2.0), problem(seed=0), problem(seed=1)
    blocks = first.second_moment
    layer_solver = LayerSolver(solver, blocks)
    previous = PreviousKeys().extended(first.keys)
    solution, _ = layer_solver.solve(EditProblem(second.keys, second.residual, blocks), previous)
    expected = solver(
        EditProblem(second.keys, second.residual, torch.block_diag(*blocks), first.keys @ first.keys.T)
    ).dense()
    assert (solution.update.dense() - expected).norm() <= 1e-10 * expected.norm()
    folded, _ = LayerSolver(solver, blocks).solve(EditProblem(second.keys, second.residual, blocks), previous.folded())
    assert (folded.update.dense() - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("solver", SOLVERS[2:], ids=repr)
def test_many_updates_need_no_matrix_over_all_experts(solver, monkeypatch):
    """The stacked matrix has (E d)^2 numbers: of a model with 128 experts of 768 dimensions 77 GB."""
    blocks, previous, whole = problem().second_moment, PreviousKeys(), torch.zeros(EXPERTS * D_IN, EXPERTS * D_IN)
    layer_solver, whole = LayerSolver(solver, blocks), whole.double()
    for seed in range(3):
        given = problem(seed=seed)
        given = EditProblem(given.keys, given.residual, blocks)
        expected = solver(EditProblem(given.keys, given.residual, torch.block_diag(*blocks), whole)).dense()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "block_diag", lambda *_: pytest.fail("a matrix over all experts"))
            solution, _ = layer_solver.solve(given, previous)
        assert (solution.update.dense() - expected).norm() <= 1e-10 * expected.norm()
        previous, whole = previous.extended(given.keys, experts=True), whole + given.keys @ given.keys.T
        assert previous.moment is None


def test_a_single_edit_is_written_exactly():
    given = problem(edits=1)
    assert given.memorization_error(RROME()(given)) <= 1e-10


def test_a_poor_expert_is_named():
    blocks = problem().second_moment.clone()
    blocks[2] = torch.outer(torch.ones(D_IN), torch.ones(D_IN))
    with pytest.raises(EditError, match=r"expert 2 of layer 4 has rank 1 of 6"):
        check_second_moments({4: blocks}, EMMET())
    check_second_moments({4: blocks}, AlphaEdit(threshold=1e-9))
    with pytest.raises(EditError, match="0 of the 30 eigenvalues"):
        check_second_moments({4: problem().second_moment}, AlphaEdit(threshold=1e-9))
