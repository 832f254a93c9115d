"""The memory that solving takes beside its data, at a size that stands for d_in = 14,336 and 10,000 edits."""

import pytest
import torch

from lightning_edit.solvers import EMMET, MEMIT, EditProblem, LayerSolver, PreviousKeys
from tests.benchmarks.measure import MemoryGrowth, apart

D_IN, D_OUT = 1024, 292


def growth(solver, n, in_a_run):
    """Peak of a call, or of an update in a run with its condition numbers, in float64 matrices of d_in x d_in."""
    generator = torch.Generator().manual_seed(0)
    keys, residual, text = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((D_IN, n), (D_OUT, n), (D_IN, 2 * D_IN))
    )
    problem = EditProblem(keys, residual, text @ text.T / (2 * D_IN))
    small = EditProblem(keys[:64, :32].clone(), residual[:, :32], problem.second_moment[:64, :64].clone())
    solver.solve(solver.factor(small.second_moment), small).condition_numbers()
    growth = MemoryGrowth()
    if in_a_run:
        solution, _ = LayerSolver(solver, problem.second_moment).solve(problem, PreviousKeys())
        solution.condition_numbers()
    else:
        solver(problem)
    return growth() / (8 * D_IN**2)


@pytest.mark.parametrize(
    ("solver", "n", "in_a_run"), [(EMMET(emmet_lambda=0.0), 714, False), (MEMIT(), D_IN, True), (MEMIT(), 1500, True)]
)
@pytest.mark.slow
def test_an_update_takes_at_most_three_matrices(solver, n, in_a_run):
    share = n / D_IN
    expected = 1 + share + share**2 if n <= D_IN else 1 + 2 * D_OUT / D_IN + in_a_run
    assert expected - 0.1 < apart(growth, solver, n, in_a_run, threads=1) < min(expected, 3) + 0.05
