"""Solvers against their formulas, their equalities with each other, and their refusals."""

import dataclasses

import pytest
import torch

from lightning_edit.solvers import EMMET, MEMIT, ROME, RROME, Factors
from tests.solvers.cases import (
    EXACT,
    MOMENT,
    SINGLE,
    close,
    make_problem,
    moment_of,
    preservation,
    previous_keys,
    random,
    solve,
    solvers,
    solvers_and_edits,
    with_moment,
)

D_IN, D_OUT = 8, 5


@preservation
@solvers_and_edits(D_IN)
def test_every_solver_gives_a_finite_update_of_the_right_shape_in_float64(solver, n, kind):
    problem = make_problem(n)
    update = solve(solver, problem, previous_keys(kind, D_IN)).update
    delta = update.dense()
    assert delta.shape == (D_OUT, D_IN)
    assert delta.dtype == torch.float64
    assert delta.isfinite().all()
    assert close(update.apply(problem.keys), delta @ problem.keys)


@preservation
@solvers_and_edits(D_IN)
def test_every_solver_follows_the_one_formula(solver, n, kind):
    # With the bare key in place of the mean key ROME follows it too.
    keys = random(D_IN, n, seed=2)
    problem = with_moment(make_problem(n, keys=keys, bare_keys=keys), previous_keys(kind, D_IN))
    state = solver.factor(problem.second_moment, problem.previous_keys_moment)
    basis = torch.eye(D_IN, dtype=torch.float64) if state.basis is None else state.basis
    inverse = basis @ torch.linalg.inv(state.matrix()) @ basis.T
    system = keys.T @ inverse @ keys + solver.lam(n) * torch.eye(n, dtype=torch.float64)
    assert close(solver(problem).dense(), problem.residual @ torch.linalg.inv(system) @ keys.T @ inverse)


@preservation
@solvers(MOMENT)
def test_ordinary_text_earlier_edits_and_the_ridge_are_preserved(solver, kind):
    moment, previous = moment_of(D_IN), previous_keys(kind, D_IN)
    expected = solver.second_moment_weight * moment + solver.ridge * torch.eye(D_IN, dtype=torch.float64)
    state = solver.factor(moment, None if previous is None else previous.moment)
    for keys in () if previous is None else previous.recent:
        state = state.extended(keys)
    assert close(state.matrix(), expected if previous is None else expected + previous.dense())
    keys = random(D_IN, 2)
    assert close(state.matrix() @ state.weighted(keys), keys)


@preservation
@solvers_and_edits(D_IN)
def test_factoring_once_and_extending_is_the_same_as_solving_anew(solver, n, kind):
    problem, previous = make_problem(n), previous_keys(kind, D_IN)
    expected = solver(with_moment(problem, previous)).dense()
    state = solver.factor(problem.second_moment, None if previous is None else previous.moment)
    for keys in () if previous is None else previous.recent:
        state = state.extended(keys)
    for residual in (problem.residual, random(D_OUT, n, seed=77), problem.residual):
        update = solver.solve(state, dataclasses.replace(problem, residual=residual)).update
    assert close(update.dense(), expected)
    assert close(solve(solver, problem, previous).update.dense(), expected)


@preservation
@solvers_and_edits(D_IN)
def test_updates_are_the_residual_times_a_writer_that_depends_on_keys_alone(solver, n, kind):
    problem, previous = make_problem(n), previous_keys(kind, D_IN)
    update = solve(solver, problem, previous).update
    assert (update.right is None) == (n > D_IN)
    if n <= D_IN:
        assert torch.equal(update.left, problem.residual)
        other = solve(solver, dataclasses.replace(problem, residual=random(D_OUT, n, seed=77)), previous).update
        assert torch.equal(update.right, other.right)


@preservation
@solvers_and_edits(D_IN)
def test_every_solver_leaves_its_inputs_alone_and_repeats_itself(solver, n, kind):
    problem = with_moment(make_problem(n), previous_keys(kind, D_IN))
    before = {name: value.clone() for name, value in vars(problem).items() if value is not None}
    state = solver.factor(problem.second_moment, problem.previous_keys_moment)
    first, second = solver(problem).dense(), solver(problem).dense()
    third, fourth = solver.solve(state, problem).update.dense(), solver.solve(state, problem).update.dense()
    assert all(torch.equal(getattr(problem, name), value) for name, value in before.items())
    assert all(torch.equal(first, other) for other in (second, third, fourth))


@solvers_and_edits(D_IN)
def test_no_earlier_keys_are_the_same_as_zero_moment(solver, n):
    zero = torch.zeros(D_IN, D_IN, dtype=torch.float64)
    with_zero = make_problem(n, previous_keys_moment=zero)
    assert close(solver(with_zero).dense(), solver(make_problem(n)).dense())


@solvers_and_edits(D_IN, MOMENT)
def test_earlier_keys_count_as_more_ordinary_text(solver, n):
    problem, earlier = make_problem(n), previous_keys("moment", D_IN).moment
    merged = make_problem(n, second_moment=problem.second_moment + earlier / solver.second_moment_weight)
    sequential = dataclasses.replace(problem, previous_keys_moment=earlier)
    assert close(solver(sequential).dense(), solver(merged).dense())


@solvers()
def test_earlier_edits_are_disturbed_less_where_they_are_preserved(solver):
    problem, earlier = make_problem(1), random(D_IN, 2, seed=9)
    sequential = dataclasses.replace(problem, previous_keys_moment=1e3 * earlier @ earlier.T)
    moved = [float(solver(p).apply(earlier).norm()) for p in (sequential, problem)]
    assert moved[0] < 0.1 * moved[1]


@solvers_and_edits(D_IN, EXACT)
def test_exact_solvers_write_exactly_and_preserve_most_among_all_that_do(solver, n):
    problem = make_problem(n)
    update = solver(problem)
    assert problem.memorization_error(update) < 1e-9
    # Any other exact update differs by one that maps the keys to zero.
    away = random(D_OUT, D_IN, seed=5)
    away = away - away @ problem.keys @ torch.linalg.pinv(problem.keys)

    def cost(delta):
        ridge = solver.ridge / solver.second_moment_weight * delta.square().sum()
        return problem.preservation_error(Factors(delta)) ** 2 + float(ridge)

    assert all(cost(update.dense() + step * away) > cost(update.dense()) for step in (-0.01, 0.01))


@solvers(without=[EXACT, SINGLE])
def test_other_solvers_weigh_the_edits_against_what_is_preserved(solver):
    problem = make_problem(3)
    assert 1e-3 < problem.memorization_error(solver(problem)) < 1


@pytest.mark.parametrize("n", [1, 3, 8, 20])
def test_memit_is_stationary(n):
    w, l2, problem = 3.0, 0.2, make_problem(n)

    def gradient(delta):
        delta = delta.clone().requires_grad_()
        preserved = w * torch.trace(delta @ problem.second_moment @ delta.T) + l2 * delta.square().sum()
        (preserved + (delta @ problem.keys - problem.residual).square().sum()).backward()
        return delta.grad.norm()

    start = gradient(torch.zeros(D_OUT, D_IN, dtype=torch.float64))
    assert gradient(MEMIT(w, l2)(problem).dense()) < 1e-11 * start


@pytest.mark.parametrize("n", [1, 4, 20])
def test_sequential_memit_is_memit_on_all_edits_where_the_earlier_ones_are_to_stay(n):
    w, l2, problem, earlier = 3.0, 0.2, make_problem(n), random(D_IN, 6, seed=9)
    joint = make_problem(
        n + 6,
        keys=torch.cat([earlier, problem.keys], dim=1),
        residual=torch.cat([torch.zeros(D_OUT, 6, dtype=torch.float64), problem.residual], dim=1),
    )
    sequential = dataclasses.replace(problem, previous_keys_moment=earlier @ earlier.T)
    assert close(MEMIT(w, l2)(sequential).dense(), MEMIT(w, l2)(joint).dense())


@pytest.mark.parametrize("n", [1, 4, 20])
def test_sequential_memit_is_stationary(n):
    w, l2, earlier = 3.0, 0.2, random(D_IN, 6, seed=9)
    problem = make_problem(n, previous_keys_moment=earlier @ earlier.T)

    def gradient(delta):
        delta = delta.clone().requires_grad_()
        preserved = w * torch.trace(delta @ problem.second_moment @ delta.T) + (delta @ earlier).square().sum()
        memorized = (delta @ problem.keys - problem.residual).square().sum()
        (preserved + memorized + l2 * delta.square().sum()).backward()
        return delta.grad.norm()

    start = gradient(torch.zeros(D_OUT, D_IN, dtype=torch.float64))
    assert gradient(MEMIT(w, l2)(problem).dense()) < 1e-11 * start


@pytest.mark.parametrize("n", [1, 4, D_IN])
def test_emmet_without_lambda_writes_exactly(n):
    problem = make_problem(n)
    update = EMMET(5.0, emmet_lambda=0.0)(problem)
    assert close(update.dense() @ problem.keys, problem.residual)
    assert problem.memorization_error(update) < 1e-9


@pytest.mark.parametrize("n", [2, D_IN, 20])
def test_emmet_is_memit_with_scaled_weights(n):
    w, l2, lam = 3.0, 0.2, 0.4
    problem = make_problem(n)
    assert close(EMMET(w, l2, lam)(problem).dense(), MEMIT(w * lam, l2 * lam)(problem).dense())


@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_emmet_of_one_edit_is_rrome(lam):
    problem = make_problem(1)
    assert close(EMMET(1.0, 0.3, lam)(problem).dense(), RROME(0.3)(problem).dense())
    assert close(EMMET(1000.0, 0.0, lam)(problem).dense(), RROME()(problem).dense())


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_rome_follows_its_formula(ridge):
    problem = make_problem(1)
    u = torch.linalg.inv(problem.second_moment + ridge * torch.eye(D_IN, dtype=torch.float64)) @ problem.keys
    expected = problem.residual @ u.T / (u.T @ problem.bare_keys)
    update = ROME(ridge)(problem)
    assert close(update.dense(), expected)
    assert close(update.dense() @ problem.bare_keys, problem.residual)
    assert problem.memorization_error(update) > 1e-3


@pytest.mark.parametrize("bare", ["equal", "absent"])
def test_rome_is_rrome_where_the_bare_key_is_the_mean_key(bare):
    problem = make_problem(1)
    problem = dataclasses.replace(problem, bare_keys=problem.keys if bare == "equal" else None)
    assert close(ROME(0.2)(problem).dense(), RROME(0.2)(problem).dense())


def as_dense(update):
    return Factors(update.dense())


@pytest.mark.parametrize("form", [pytest.param(lambda update: update, id="factors"), as_dense])
def test_errors_follow_their_formulas(form):
    ordinary = random(D_IN, 40, seed=6)
    problem = make_problem(4, second_moment=ordinary @ ordinary.T / 40)
    update = form(MEMIT(1.0)(problem))
    delta = update.dense()
    moved = (delta @ ordinary).square().sum(0).mean().sqrt()
    missed = (delta @ problem.keys - problem.residual).norm() / problem.residual.norm()
    assert problem.preservation_error(update) == pytest.approx(float(moved), rel=1e-10)
    assert problem.memorization_error(update) == pytest.approx(float(missed), rel=1e-10)


def test_more_weight_preserves_more_and_memorizes_less():
    problem = make_problem(4)
    light, heavy = MEMIT(1.0)(problem), MEMIT(100.0)(problem)
    assert problem.preservation_error(heavy) < problem.preservation_error(light)
    assert problem.memorization_error(heavy) > problem.memorization_error(light)
