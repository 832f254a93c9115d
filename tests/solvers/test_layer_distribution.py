"""How layers share a residual, told by what would be written if each wrote its share exactly."""

import math
from typing import get_args

import pytest

from lightning_edit.solvers.layer_distribution import LayerDistribution, residual_share

DISTRIBUTIONS = get_args(LayerDistribution)


def written(layers, distribution):
    """The parts of the whole residual that the layers write, each exactly its share of what is left."""
    left, parts = 1.0, []
    for index in range(layers):
        parts.append(left * residual_share(index, layers, distribution))
        left -= parts[-1]
    return parts


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_whole_residual_is_written_once(distribution, layers):
    parts = written(layers, distribution)
    assert sum(parts) == pytest.approx(1, abs=1e-15)
    assert all(part >= 0 for part in parts)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_highest_layer_writes_all_that_is_left(distribution):
    assert [residual_share(layers - 1, layers, distribution) for layers in (1, 2, 5)] == [1, 1, 1]


def test_uniform_layers_write_the_same():
    assert written(5, "uniform") == pytest.approx([0.2] * 5)


def test_square_roots_give_more_to_the_lower_layers():
    assert [residual_share(i, 4, "sqrt") for i in range(4)] == pytest.approx([1 / math.sqrt(4 - i) for i in range(4)])
    assert written(4, "sqrt")[:3] == sorted(written(4, "sqrt")[:3], reverse=True)


def test_last_edits_one_layer():
    assert written(5, "last") == [0, 0, 0, 0, 1]


def test_first_last_edits_two_layers_as_uniform_does_with_two():
    assert written(5, "first_last") == [0.5, 0, 0, 0, 0.5]
    assert written(2, "first_last") == written(2, "uniform")
