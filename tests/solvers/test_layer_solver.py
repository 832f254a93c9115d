"""Many updates of one layer with what is kept from one to the next, against each of them solved anew."""

import copy

import pytest
import torch

from lightning_edit.solvers import EMMET, MEMIT, ROME, RROME, AlphaEdit, EditProblem, LayerSolver, PreviousKeys
from lightning_edit.solvers.cholesky import Cholesky
from lightning_edit.solvers.previous_keys import SHARE

D_IN, D_OUT, UPDATES = 48, 7, 12


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


ORDINARY = random(D_IN, 4 * D_IN, seed=1) * torch.logspace(-1, 0, D_IN, dtype=torch.float64)[:, None]
MOMENT = ORDINARY @ ORDINARY.T / (4 * D_IN)
SOLVERS = [
    pytest.param(ROME(0.1), 1, id="rome"),
    pytest.param(RROME(), 1, id="rrome"),
    pytest.param(EMMET(5.0, emmet_lambda=0.0), 3, id="emmet-exact"),
    pytest.param(EMMET(5.0, 0.1), 3, id="emmet"),
    pytest.param(MEMIT(5.0), 3, id="memit"),
    pytest.param(MEMIT(5.0), D_IN // 2, id="memit-larger-than-recent"),
    pytest.param(MEMIT(5.0), D_IN + 1, id="memit-primal"),
    pytest.param(AlphaEdit(0.1, 0.5), 3, id="alphaedit"),
    pytest.param(AlphaEdit(0.1, 0.5), D_IN - 1, id="alphaedit-primal"),
]
solvers = pytest.mark.parametrize(("solver", "n"), SOLVERS)


def make_problem(update, n, previous=None):
    keys, residual, bare = (random(rows, n, seed=10 * update + i) for i, rows in enumerate((D_IN, D_OUT, D_IN)))
    return EditProblem(keys, residual, MOMENT, previous, keys + 0.1 * bare)


def run(solver, n, updates, kept=None, earlier=None):
    """Writes update after update; the deltas, and what is preserved then."""
    kept, earlier, deltas = kept or LayerSolver(solver, MOMENT), earlier or PreviousKeys(), []
    for update in updates:
        problem = make_problem(update, n)
        solution, earlier = kept.solve(problem, earlier)
        deltas.append(solution.update.dense())
        earlier = earlier.extended(problem.keys)
    return deltas, earlier


@solvers
def test_every_update_is_what_a_new_factor_gives(solver, n):
    kept, earlier, previous = LayerSolver(solver, MOMENT), PreviousKeys(), torch.zeros_like(MOMENT)
    for update in range(UPDATES):
        problem, anew = make_problem(update, n), make_problem(update, n, previous)
        solution, earlier = kept.solve(problem, earlier)
        expected = solver(anew).dense()
        assert (solution.update.dense() - expected).norm() < 1e-11 * expected.norm()
        found, known = solver.condition_numbers(solution.problem, solution), solver.condition_numbers(anew)
        assert all(known[name] / 5 <= found[name] <= 5 * known[name] for name in known)
        earlier = earlier.extended(problem.keys)
        previous = previous + problem.keys @ problem.keys.T
        torch.testing.assert_close(earlier.dense(), previous, rtol=1e-12, atol=1e-12)


@solvers
def test_without_earlier_keys_all_updates_share_one_factor(solver, n):
    kept = LayerSolver(solver, MOMENT)
    for update in range(3):
        problem = make_problem(update, n)
        solution, earlier = kept.solve(problem, None)
        assert torch.equal(solution.update.dense(), solver(problem).dense())
        assert earlier is None
    assert kept.factored <= 1


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_new_factor_is_made_only_when_recent_keys_are_many(n, monkeypatch):
    sizes, of = [], Cholesky.of
    monkeypatch.setattr(Cholesky, "of", lambda matrix, what: sizes.append(len(matrix)) or of(matrix, what))
    _, earlier = run(MEMIT(5.0), n, range(30))
    every = int(SHARE * D_IN) // n + 1
    assert sizes.count(D_IN) == 1 + (30 - 1) // every
    assert len(earlier.recent) == 30 % every


@pytest.mark.parametrize("stopped", range(1, UPDATES))
@solvers
def test_a_run_that_goes_on_from_a_file_has_the_same_bits(solver, n, stopped, tmp_path):
    if n > 5 and stopped > 2:
        pytest.skip("nothing recent is kept")
    whole, last = run(solver, n, range(UPDATES))
    _, middle = run(solver, n, range(stopped))
    torch.save(middle.packed(), tmp_path / "keys.pt")
    read = PreviousKeys.unpacked(torch.load(tmp_path / "keys.pt", weights_only=True))
    rest, end = run(solver, n, range(stopped, UPDATES), earlier=read)
    assert all(torch.equal(a, b) for a, b in zip(whole[stopped:], rest, strict=True))
    assert torch.equal(end.dense(), last.dense())


@solvers
def test_an_update_that_is_undone_leaves_nothing_behind(solver, n):
    kept = LayerSolver(solver, MOMENT)
    _, earlier = run(solver, n, range(3), kept)
    tried = [run(solver, n, range(first, last), kept, earlier)[0] for first, last in ((20, 21), (30, 36), (3, 5))]
    assert all(torch.equal(a, b) for a, b in zip(tried[-1], run(solver, n, range(5))[0][3:], strict=True))


@solvers
def test_keys_that_are_released_are_no_longer_preserved(solver, n):
    kept = LayerSolver(solver, MOMENT)
    _, earlier = run(solver, n, range(4), kept)
    gone, problem = make_problem(1, n).keys[:, :1], make_problem(9, n)
    fewer = earlier.without(gone)
    found = kept.solve(problem, fewer)[0].update.dense()
    expected = solver(make_problem(9, n, earlier.dense() - gone @ gone.T)).dense()
    assert (found - expected).norm() < 1e-11 * expected.norm()


def test_keys_are_never_changed():
    _, earlier = run(MEMIT(5.0), 3, range(3))
    before = copy.deepcopy(earlier)
    run(MEMIT(5.0), 3, range(3, 8), earlier=earlier)
    earlier.without(make_problem(0, 3).keys)
    assert earlier.moment is None
    assert all(torch.equal(a, b) for a, b in zip(earlier.recent, before.recent, strict=True))
    assert torch.equal(PreviousKeys().without(before.recent[0]).dense(), -before.recent[0] @ before.recent[0].T)
