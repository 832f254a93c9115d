"""AlphaEdit: nothing moves outside the null space, and the published formula inside it."""

import dataclasses

import pytest
import torch

from lightning_edit.errors import EditError
from lightning_edit.solvers import MEMIT, AlphaEdit
from lightning_edit.solvers.checks import check_second_moments
from tests.solvers.cases import close, make_problem, random

D_IN, D_OUT = 8, 5
FREE, THRESHOLD = 5, 0.02
# Of d_in = 8 dimensions five are free; updates of fewer, as many and more edits than that, and than d_in.
SIZES = [1, 3, FREE, FREE + 1, D_IN, 20]
EIGENVECTORS = torch.linalg.qr(random(D_IN, D_IN, seed=40)).Q
EIGENVALUES = torch.tensor([1e-4, 1e-3, 3e-3, 0.01, 0.019, 0.021, 0.5, 7.0], dtype=torch.float64)
MOMENT = EIGENVECTORS * EIGENVALUES @ EIGENVECTORS.T
KEPT = EIGENVECTORS[:, FREE:]
PROJECTOR = EIGENVECTORS[:, :FREE] @ EIGENVECTORS[:, :FREE].T
EARLIER = random(D_IN, 4, seed=41)


def moments(previous):
    return {"alone": None, "sequential": EARLIER @ EARLIER.T}[previous]


def problem_of(n, previous="alone", **changes):
    return make_problem(n, **({"second_moment": MOMENT, "previous_keys_moment": moments(previous)} | changes))


def published(problem, ridge):
    """Delta^T = (P (K K^T + C_p) + L2 I)^-1 P K R^T, the unsymmetric system of the published code."""
    keys, identity = problem.keys, torch.eye(D_IN, dtype=torch.float64)
    earlier = problem.previous_keys_moment if problem.previous_keys_moment is not None else 0 * identity
    system = PROJECTOR @ (keys @ keys.T + earlier) + ridge * identity
    return torch.linalg.solve(system, PROJECTOR @ keys @ problem.residual.T).T


sequences = pytest.mark.parametrize("previous", ["alone", "sequential"])
sizes = pytest.mark.parametrize("n", SIZES)


@sequences
@sizes
@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_it_is_the_published_formula(n, previous, ridge):
    problem = problem_of(n, previous)
    assert close(AlphaEdit(THRESHOLD, ridge)(problem).dense(), published(problem, ridge))


@sequences
@sizes
def test_nothing_changes_on_the_preserved_subspace(n, previous):
    update = AlphaEdit(THRESHOLD, 0.1)(problem_of(n, previous))
    ordinary = KEPT @ random(D_IN - FREE, 50, seed=42)
    assert update.apply(ordinary).abs().max() < 1e-10
    assert update.apply(EIGENVECTORS[:, :FREE]).norm() > 0.1


@pytest.mark.parametrize("n", [1, 3, FREE])
def test_without_ridge_independent_keys_are_written_exactly(n):
    errors = [problem_of(n).memorization_error(AlphaEdit(THRESHOLD, 10.0**-k)(problem_of(n))) for k in (4, 6, 8, 10)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_without_free_dimensions_enough_keys_are_not_written():
    problem = problem_of(FREE + 2)
    assert problem.memorization_error(AlphaEdit(THRESHOLD, 1e-8)(problem)) > 0.05


@sequences
@sizes
def test_a_threshold_above_all_eigenvalues_is_ridge_regression(n, previous):
    problem = problem_of(n, previous)
    nothing = dataclasses.replace(problem, second_moment=0 * MOMENT)
    assert close(AlphaEdit(100.0, 0.3)(problem).dense(), MEMIT(1.0, 0.3)(nothing).dense())


@sequences
@sizes
def test_it_is_stationary_within_the_null_space(n, previous):
    ridge, problem = 0.3, problem_of(n, previous)
    delta = AlphaEdit(THRESHOLD, ridge)(problem).dense().requires_grad_()
    loss = (delta @ problem.keys - problem.residual).square().sum() + ridge * delta.square().sum()
    if previous == "sequential":
        loss = loss + (delta @ EARLIER).square().sum()
    loss.backward()
    assert (delta.grad @ PROJECTOR).norm() < 1e-11 * (problem.residual @ problem.keys.T).norm()


@sequences
def test_a_basis_from_before_serves_another_moment_of_previous_keys(previous):
    problem, solver = problem_of(3, previous), AlphaEdit(THRESHOLD)
    basis = solver.factor(MOMENT).basis
    # Another second moment beside it has no influence.
    state = solver.factor(torch.eye(D_IN, dtype=torch.float64), problem.previous_keys_moment, basis)
    assert torch.equal(solver.solve(state, problem).update.dense(), solver(problem).dense())


def test_the_basis_spans_the_eigenvectors_below_the_threshold():
    basis = AlphaEdit(THRESHOLD).null_space(MOMENT)
    assert basis.shape == (D_IN, FREE)
    assert close(basis @ basis.T, PROJECTOR)


@sequences
@sizes
def test_condition_numbers_are_those_of_the_matrices_that_are_solved(n, previous):
    ridge, problem = 0.1, problem_of(n, previous)
    basis, identity = EIGENVECTORS[:, :FREE], torch.eye(FREE, dtype=torch.float64)
    keys, earlier = basis.T @ problem.keys, moments(previous)
    metric = ridge * identity if earlier is None else basis.T @ earlier @ basis + ridge * identity
    dual = keys.T @ torch.linalg.inv(metric) @ keys + torch.eye(n, dtype=torch.float64)
    system = dual if n <= FREE else metric + keys @ keys.T
    # In other coordinates of the null space the 1-norm differs a little; the 2-norm does not.
    solver = AlphaEdit(THRESHOLD, ridge)
    estimated = solver.solve(solver.factor(MOMENT, earlier), problem).condition_numbers()
    for name, matrix in (("preservation", metric), ("keys", system)):
        exact = float(torch.linalg.cond(matrix, 2))
        assert exact / 10 <= estimated[name] <= exact * len(matrix) * (1 + 1e-9), name


def test_an_empty_null_space_is_refused_with_the_threshold_to_set():
    solver = AlphaEdit(threshold=5e-5)
    expected = r"0 of the 8 eigenvalues .* below the threshold 5e-05\. .* 0\.0001 to 7, half of them below 0\.019: set"
    for refuse in (solver.check, solver.factor, lambda moment: solver(problem_of(2, second_moment=moment))):
        with pytest.raises(EditError, match=expected):
            refuse(MOMENT)
    with pytest.raises(EditError, match=f"^Layer 5: .*{expected}"):
        check_second_moments({5: MOMENT}, solver)
    # What the message advises leaves half of the dimensions free.
    assert AlphaEdit(threshold=0.019 + 1e-9).null_space(MOMENT).shape[1] == D_IN // 2 + 1


@pytest.mark.parametrize("threshold", [0.02, 1.01e-4, 0.6, 100.0])
def test_a_null_space_of_any_size_is_taken(threshold):
    solver = AlphaEdit(threshold)
    check_second_moments({5: MOMENT}, solver)
    assert solver(problem_of(3)).dense().shape == (D_OUT, D_IN)


def test_a_singular_second_moment_is_welcome():
    ordinary = random(D_IN, 2, seed=44)
    problem = problem_of(2, second_moment=ordinary @ ordinary.T)
    AlphaEdit(1e-9).check(problem.second_moment)
    assert AlphaEdit(1e-9, 0.1)(problem).apply(ordinary).abs().max() < 1e-10


def test_equal_eigenvalues_are_refused_without_advice_on_the_threshold():
    with pytest.raises(EditError, match="all the same, so no threshold divides them"):
        AlphaEdit().check(torch.eye(D_IN, dtype=torch.float64))


def test_a_second_moment_that_is_not_finite_is_refused_as_such():
    broken = MOMENT.clone()
    broken[0, 0] = float("inf")
    with pytest.raises(EditError, match="layer 2 holds numbers that are not finite"):
        check_second_moments({2: broken}, AlphaEdit())


@pytest.mark.parametrize("settings", [{"threshold": 0.0}, {"threshold": -1.0}, {"ridge": 0.0}, {"ridge": float("nan")}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(EditError, match=f"AlphaEdit: `{next(iter(settings))}` must be a number above 0"):
        AlphaEdit(**settings)


def test_it_preserves_earlier_edits_as_published():
    assert AlphaEdit.preserves_edits
