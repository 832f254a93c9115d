"""Many updates of one layer with what is kept from one to the next, against each of them solved anew."""

import copy
from dataclasses import replace

import pytest
import torch

from lightning_edit.solvers import MEMIT, LayerSolver, PreviousKeys
from lightning_edit.solvers.cholesky import Cholesky
from lightning_edit.solvers.previous_keys import SHARE
from tests.solvers import cases

D_IN, D_OUT, UPDATES = 48, 7, 12
MOMENT = cases.moment_of(D_IN, seed=1)
# Alone and a few: kept as recent keys. Half of d_in: too many for that. More than d_in: the primal form.
solvers = cases.solvers_and_edits(D_IN, sizes=("single", "few", "half", "many"))


def make_problem(update, n, previous=None):
    return cases.make_problem(n, D_IN, D_OUT, seed=10 * update, second_moment=MOMENT, previous_keys_moment=previous)


def run(solver, n, updates, layer_solver=None, previous=None):
    """Writes update after update; the deltas, and what is preserved then."""
    layer_solver, previous, deltas = layer_solver or LayerSolver(solver, MOMENT), previous or PreviousKeys(), []
    for update in updates:
        problem = make_problem(update, n)
        solution, previous = layer_solver.solve(problem, previous)
        deltas.append(solution.update.dense())
        previous = previous.extended(problem.keys)
    return deltas, previous


@solvers
def test_every_update_is_what_a_new_factor_gives(solver, n):
    layer_solver, previous, moment = LayerSolver(solver, MOMENT), PreviousKeys(), torch.zeros_like(MOMENT)
    for update in range(UPDATES):
        problem, anew = make_problem(update, n), make_problem(update, n, moment)
        solution, previous = layer_solver.solve(problem, previous)
        expected = solver.solve(solver.factor(MOMENT, moment), anew)
        error = solution.update.dense() - expected.update.dense()
        assert error.norm() < 1e-11 * expected.update.dense().norm()
        actual, conditions = solution.condition_numbers(), expected.condition_numbers()
        assert all(value / 5 <= actual[name] <= 5 * value for name, value in conditions.items())
        previous = previous.extended(problem.keys)
        moment = moment + problem.keys @ problem.keys.T
        torch.testing.assert_close(previous.dense(), moment, rtol=1e-12, atol=1e-12)


@solvers
@pytest.mark.parametrize("others", [2, D_IN])
def test_other_keys_of_the_texts_count_for_one_update(solver, n, others):
    layer_solver, previous = LayerSolver(solver, MOMENT), PreviousKeys()
    for update in range(3):
        text_keys = cases.random(D_IN, others, seed=100 + update)
        before = previous.dense()
        moment = text_keys @ text_keys.T + (torch.zeros_like(MOMENT) if before is None else before)
        problem = replace(make_problem(update, n), text_keys=text_keys)
        solution, kept = layer_solver.solve(problem, previous)
        expected = solver(make_problem(update, n, moment)).dense()
        assert (solution.update.dense() - expected).norm() < 1e-11 * expected.norm()
        assert kept is previous
        given = replace(make_problem(update, n, before), text_keys=text_keys)
        assert (solver(given).dense() - expected).norm() < 1e-11 * expected.norm()
        previous = previous.extended(problem.keys)


@solvers
def test_without_earlier_keys_all_updates_share_one_factor(solver, n):
    layer_solver = LayerSolver(solver, MOMENT)
    for update in range(3):
        problem = make_problem(update, n)
        solution, previous = layer_solver.solve(problem, None)
        assert torch.equal(solution.update.dense(), solver(problem).dense())
        assert previous is None
    assert layer_solver.factored == 1


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_new_factor_is_made_only_when_recent_keys_are_many(n, monkeypatch):
    sizes, of = [], Cholesky.of
    monkeypatch.setattr(Cholesky, "of", lambda matrix, what: sizes.append(len(matrix)) or of(matrix, what))
    _, previous = run(MEMIT(5.0), n, range(30))
    every = int(SHARE * D_IN) // n + 1
    assert sizes.count(D_IN) == 1 + (30 - 1) // every
    assert len(previous.recent) == 30 % every


@pytest.mark.parametrize("stopped", range(1, UPDATES))
@solvers
def test_a_run_that_goes_on_from_a_file_has_the_same_bits(solver, n, stopped, tmp_path):
    if n > 5 and stopped > 2:
        pytest.skip("nothing recent is kept")
    uninterrupted, last = run(solver, n, range(UPDATES))
    _, middle = run(solver, n, range(stopped))
    torch.save(middle.packed(), tmp_path / "keys.pt")
    restored = PreviousKeys.unpacked(torch.load(tmp_path / "keys.pt", weights_only=True))
    resumed, end = run(solver, n, range(stopped, UPDATES), previous=restored)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted[stopped:], resumed, strict=True))
    assert torch.equal(end.dense(), last.dense())


@solvers
def test_an_update_that_is_undone_leaves_nothing_behind(solver, n):
    layer_solver = LayerSolver(solver, MOMENT)
    _, previous = run(solver, n, range(3), layer_solver)
    ranges = (20, 21), (30, 36), (3, 5)
    tried = [run(solver, n, range(first, last), layer_solver, previous)[0] for first, last in ranges]
    assert all(torch.equal(a, b) for a, b in zip(tried[-1], run(solver, n, range(5))[0][3:], strict=True))


@solvers
def test_keys_that_are_released_are_no_longer_preserved(solver, n):
    layer_solver = LayerSolver(solver, MOMENT)
    _, previous = run(solver, n, range(4), layer_solver)
    released = make_problem(1, n).keys[:, :1]
    update = layer_solver.solve(make_problem(9, n), previous.without(released))[0].update.dense()
    expected = solver(make_problem(9, n, previous.dense() - released @ released.T)).dense()
    assert (update - expected).norm() < 1e-11 * expected.norm()


def test_keys_are_never_changed():
    _, previous = run(MEMIT(5.0), 3, range(3))
    before = copy.deepcopy(previous)
    run(MEMIT(5.0), 3, range(3, 8), previous=previous)
    previous.without(make_problem(0, 3).keys)
    assert previous.moment is None
    assert all(torch.equal(a, b) for a, b in zip(previous.recent, before.recent, strict=True))
    assert torch.equal(PreviousKeys().without(before.recent[0]).dense(), -before.recent[0] @ before.recent[0].T)
