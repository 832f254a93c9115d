"""Muon for stacks: what torch's own does with single matrices, to its precision, and each matrix by itself."""

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Muon

from lightning_edit.tiny.muon import StackedMuon, orthogonalized


def test_all_singular_values_become_about_one() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrices)
    assert found.shape == matrices.shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.25
    torch.testing.assert_close(orthogonalized(matrices.mT), found.mT)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (Parameter(torch.zeros(shape)) for _ in range(2))
    optimizers = StackedMuon([ours], 0.01), Muon([theirs], 0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    # torch computes in bfloat16
    assert (ours - theirs).norm() <= 0.02 * theirs.norm()


def test_each_matrix_of_a_stack_is_moved_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    stack, first = Parameter(torch.zeros(3, 8, 12)), Parameter(torch.zeros(8, 12))
    optimizer = StackedMuon([stack, first], 0.01)
    for _ in range(2):
        stack.grad = torch.randn(3, 8, 12, generator=generator)
        first.grad = stack.grad[0].clone()
        optimizer.step()
    torch.testing.assert_close(stack[0], first)
    assert len({float(matrix.norm()) for matrix in stack}) == 3


def test_a_closure_is_run_and_what_has_no_gradient_stays() -> None:
    moved, still = Parameter(torch.eye(4)), Parameter(torch.eye(4))
    optimizer = StackedMuon([moved, still], 0.01)

    def closure() -> float:
        loss = moved.square().sum()
        loss.backward()
        return float(loss)

    assert optimizer.step(closure) == 4.0
    assert torch.equal(still, torch.eye(4)) and not torch.equal(moved, still)
