"""SPHERE and REVIVE against plain singular value decompositions."""

import pytest
import torch

from lightning_edit.solvers import REVIVE, SPHERE
from lightning_edit.solvers.post_processing.spectral import dominant
from tests.solvers.cases import close, random

shapes = pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)], ids=str)


def directions(matrix, share):
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    energy, count = (values**2).tolist(), 1
    while sum(energy[:count]) < share * sum(energy) and count < len(energy):
        count += 1
    return left[:, :count], right[:count].T


@shapes
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_dominant_directions_are_those_of_the_svd(shape, share):
    matrix = random(*shape, seed=4)
    found, expected = dominant(matrix, share), directions(matrix, share)
    for ours, theirs in zip(found, expected, strict=True):
        assert close(ours @ ours.T, theirs @ theirs.T)


def test_all_of_the_energy_of_a_singular_matrix_is_its_rank():
    left, right = dominant(random(6, 2) @ random(2, 9, seed=1), 1 - 1e-12)
    assert left.shape == (6, 2)
    assert right.shape == (9, 2)


@shapes
@pytest.mark.parametrize(("eta", "alpha"), [(0.5, 0.5), (0.3, 1.0)])
def test_sphere_leaves_the_main_directions_of_the_rows(shape, eta, alpha):
    update, weight = random(*shape, seed=1), random(*shape, seed=2).float()
    rows = weight.double() / weight.double().norm(dim=1, keepdim=True)
    _, right = directions(rows, eta)
    expected = update @ (torch.eye(shape[1]).double() - alpha * right @ right.T)
    assert close(SPHERE(eta, alpha)(update, weight), expected)


@shapes
@pytest.mark.parametrize("energy", [0.1, 0.6])
def test_revive_removes_what_touches_the_dominant_subspace(shape, energy):
    update, base = random(*shape, seed=1), random(*shape, seed=2)
    left, values, right = torch.linalg.svd(base)
    parts = left.T @ update @ right.T
    count = directions(base, energy)[0].shape[1]
    parts[:count], parts[:, :count] = 0.0, 0.0
    assert close(REVIVE(energy)(update, base), left @ parts @ right)
    assert len(values) == min(shape)
