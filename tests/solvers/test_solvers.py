"""Solvers against their formulas, their equalities with each other, and their refusals."""

import dataclasses

import pytest
import torch

from lightning_edit.solvers import EMMET, MEMIT, ROME, RROME, AlphaEdit, EditProblem, Factors, SingularError

D_IN, D_OUT = 8, 5
# One row for each solver: the solver and the number of edits of one update. First those with C' = w C + l2 I (+ C_p).
METRIC_SOLVERS = [
    pytest.param(ROME(), 1, id="rome"),
    pytest.param(ROME(ridge=0.1), 1, id="rome-ridge"),
    pytest.param(RROME(ridge=0.1), 1, id="rrome"),
    pytest.param(EMMET(2.0, 0.1, 0.5), 1, id="emmet-single"),
    pytest.param(EMMET(2.0, 0.1, 0.5), 4, id="emmet"),
    pytest.param(EMMET(2.0, 0.1, 0.5), 20, id="emmet-many"),
    pytest.param(MEMIT(2.0, 0.1), 1, id="memit-single"),
    pytest.param(MEMIT(2.0, 0.1), 4, id="memit"),
    pytest.param(MEMIT(2.0, 0.1), 20, id="memit-many"),
]
SOLVERS = [
    *METRIC_SOLVERS,
    pytest.param(AlphaEdit(1.0, 0.1), 1, id="alphaedit-single"),
    pytest.param(AlphaEdit(1.0, 0.1), 4, id="alphaedit"),
    pytest.param(AlphaEdit(1.0, 0.1), D_IN, id="alphaedit-more-than-free"),
    pytest.param(AlphaEdit(1.0, 0.1), 20, id="alphaedit-many"),
]


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_problem(n, seed=0, **changes):
    ordinary = random(D_IN, 60, seed=seed + 1)
    fields = {
        "keys": random(D_IN, n, seed=seed + 2),
        "residual": random(D_OUT, n, seed=seed + 3),
        "second_moment": ordinary @ ordinary.T / 60,
        "bare_keys": random(D_IN, n, seed=seed + 4),
    }
    return EditProblem(**(fields | changes))


def close(actual, expected):
    return torch.allclose(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("solver", "n"), SOLVERS)
def test_every_solver_gives_a_finite_update_of_the_right_shape_in_float64(solver, n):
    problem = make_problem(n)
    update = solver(problem)
    delta = update.dense()
    assert delta.shape == (D_OUT, D_IN)
    assert delta.dtype == torch.float64
    assert delta.isfinite().all()
    assert close(update.apply(problem.keys), delta @ problem.keys)


@pytest.mark.parametrize("previous", [None, torch.eye(D_IN, dtype=torch.float64)], ids=["alone", "sequential"])
@pytest.mark.parametrize(("solver", "n"), SOLVERS)
def test_updates_are_the_residual_times_a_writer_that_depends_on_keys_alone(solver, n, previous):
    problem = make_problem(n, previous_keys_moment=previous)
    update = solver(problem)
    assert (update.right is None) == (n > D_IN)
    if n <= D_IN:
        assert torch.equal(update.left, problem.residual)
        other = solver(dataclasses.replace(problem, residual=random(D_OUT, n, seed=77)))
        assert torch.equal(update.right, other.right)


@pytest.mark.parametrize(("solver", "n"), SOLVERS)
def test_every_solver_leaves_its_inputs_alone_and_repeats_itself(solver, n):
    problem = make_problem(n, previous_keys_moment=torch.eye(D_IN, dtype=torch.float64))
    before = {name: value.clone() for name, value in vars(problem).items() if value is not None}
    first, second = solver(problem).dense(), solver(problem).dense()
    assert all(torch.equal(getattr(problem, name), value) for name, value in before.items())
    assert torch.equal(first, second)


@pytest.mark.parametrize(("solver", "n"), METRIC_SOLVERS)
def test_no_earlier_keys_are_the_same_as_zero_moment(solver, n):
    zero = torch.zeros(D_IN, D_IN, dtype=torch.float64)
    assert torch.equal(
        solver(make_problem(n, previous_keys_moment=zero)).dense(),
        solver(make_problem(n)).dense(),
    )


@pytest.mark.parametrize(("solver", "n"), METRIC_SOLVERS)
def test_earlier_keys_count_as_more_ordinary_text(solver, n):
    earlier = random(D_IN, 3, seed=9)
    earlier = earlier @ earlier.T
    problem = make_problem(n)
    merged = make_problem(n, second_moment=problem.second_moment + earlier / solver.second_moment_weight)
    assert close(
        solver(dataclasses.replace(problem, previous_keys_moment=earlier)).dense(),
        solver(merged).dense(),
    )


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


def test_earlier_edits_are_disturbed_less_where_they_are_preserved():
    problem, earlier = make_problem(3), random(D_IN, 2, seed=9)
    sequential = dataclasses.replace(problem, previous_keys_moment=1e3 * earlier @ earlier.T)
    for solver in (MEMIT(2.0), EMMET(2.0)):
        moved = [float(solver(p).apply(earlier).norm()) for p in (sequential, problem)]
        assert moved[0] < 0.1 * moved[1]


@pytest.mark.parametrize("n", [1, 4, D_IN])
def test_emmet_without_lambda_writes_exactly(n):
    problem = make_problem(n)
    update = EMMET(5.0, emmet_lambda=0.0)(problem)
    assert close(update.dense() @ problem.keys, problem.residual)
    assert problem.memorization_error(update) < 1e-9


def test_emmet_preserves_most_among_all_exact_updates():
    problem = make_problem(3)
    delta = EMMET(5.0, emmet_lambda=0.0)(problem).dense()
    # Any other exact update differs by one that maps the keys to zero.
    away = random(D_OUT, D_IN, seed=5)
    away = away - away @ problem.keys @ torch.linalg.pinv(problem.keys)
    best = problem.preservation_error(Factors(delta))
    assert all(problem.preservation_error(Factors(delta + step * away)) > best for step in (-0.01, 0.01))


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


@pytest.mark.parametrize("n", [2, D_IN - 1, D_IN, D_IN + 1, 30])
def test_primal_and_dual_follow_the_formula_with_explicit_inverses(n):
    w, l2, lam = 2.0, 0.1, 0.3
    problem = make_problem(n)
    metric = torch.linalg.inv(w * problem.second_moment + l2 * torch.eye(D_IN, dtype=torch.float64))
    keys = problem.keys
    expected = (
        problem.residual
        @ torch.linalg.inv(keys.T @ metric @ keys + lam * torch.eye(n, dtype=torch.float64))
        @ keys.T
        @ metric
    )
    update = EMMET(w, l2, lam)(problem)
    assert close(update.dense(), expected)
    assert (update.right is None) == (n > D_IN)


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


def refusals(solver, problems):
    """What each of the problems is refused for, None where it is solved."""
    found = []
    for problem in problems:
        try:
            solver(problem)
            found.append(None)
        except SingularError as error:
            found.append(error.what)
    return found


def singular_moment(rank, seed):
    """A moment of the given rank whose other directions are as well conditioned as random keys can be."""
    basis = torch.linalg.qr(torch.cat([torch.ones(D_IN, 1), random(D_IN, D_IN - 1, seed=7)], dim=1)).Q
    ordinary = basis[:, D_IN - rank :] @ random(rank, 40, seed=seed)
    return ordinary @ ordinary.T / 40


@pytest.mark.parametrize("rank", [1, D_IN // 2, D_IN - 1])
@pytest.mark.parametrize("solver", [ROME(), RROME(), EMMET(1000.0), MEMIT(20000.0)], ids=lambda s: type(s).__name__)
def test_a_singular_second_moment_is_refused(solver, rank):
    # Whether rounding leaves a tiny positive or negative pivot is chance: many draws.
    problems = [make_problem(1, second_moment=singular_moment(rank, seed)) for seed in range(20)]
    assert refusals(solver, problems) == ["preservation"] * 20


@pytest.mark.parametrize("solver", [ROME(0.1), RROME(0.1), EMMET(2.0, 0.1), MEMIT(2.0, 0.1)], ids=repr)
def test_a_ridge_mends_a_singular_second_moment(solver):
    ordinary = random(D_IN, 2)
    assert solver(make_problem(1, second_moment=ordinary @ ordinary.T)).dense().isfinite().all()


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
    problems = [make_problem(k.shape[1], seed, keys=k) for seed, k in enumerate(keys)]
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
