"""RECT and PRUNE against references of a few lines, and their limits."""

import math

import pytest
import torch

from lightning_edit.errors import EditError
from lightning_edit.solvers import PRUNE, RECT
from tests.solvers.test_solvers import random

SHAPES = [(5, 8), (8, 5), (6, 6)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
PROCESSORS = [RECT(), RECT(0.1), RECT(1.0), PRUNE(), PRUNE(1.01), PRUNE(100.0)]
processors = pytest.mark.parametrize("process", PROCESSORS, ids=repr)


def with_values(shape, values, seed=0):
    """A random matrix with the given singular values."""
    left, _, right = torch.linalg.svd(random(*shape, seed=seed), full_matrices=False)
    return left * torch.tensor(values, dtype=torch.float64) @ right


def spectrum(matrix):
    return torch.linalg.svdvals(matrix)


@shapes
@processors
def test_nothing_is_enlarged_and_inputs_are_left_alone(process, shape):
    for seed, scale in enumerate((0.01, 0.5, 1.0, 3.0, 1000.0)):
        update, base = scale * random(*shape, seed=seed), random(*shape, seed=seed + 100)
        before = update.clone(), base.clone()
        processed = process(update, base)
        parts = torch.abs if isinstance(process, RECT) else spectrum
        assert (parts(processed) <= parts(update) + 1e-12 * update.norm()).all()
        assert processed.dtype == torch.float64
        assert torch.equal(update, before[0])
        assert torch.equal(base, before[1])


@shapes
@pytest.mark.parametrize("keep", [0.05, 0.4, 0.9])
def test_rect_keeps_the_relatively_largest_entries(keep, shape):
    update, base = random(*shape, seed=1), random(*shape, seed=2)
    entries = sorted(range(update.numel()), key=lambda i: -abs(float(update.flatten()[i] / base.flatten()[i])))
    expected = torch.zeros(update.numel(), dtype=torch.float64)
    kept = entries[: math.ceil(keep * update.numel())]
    expected[kept] = update.flatten()[kept]
    assert torch.equal(RECT(keep)(update, base).flatten(), expected)


def test_rect_that_keeps_all_changes_nothing():
    update, base = random(5, 8), random(5, 8, seed=1)
    update[0, :3], base[:, 2] = 0.0, 0.0
    assert torch.equal(RECT(1.0)(update, base), update)


def test_rect_keeps_changes_of_zero_weights_first_and_unchanged_ones_last():
    update = torch.tensor([[1e-9, 0.0, 2.0, 3.0]], dtype=torch.float64)
    base = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    assert RECT(0.25)(update, base).tolist() == [[1e-9, 0.0, 0.0, 0.0]]
    assert RECT(0.5)(update, base).tolist() == [[1e-9, 0.0, 0.0, 3.0]]
    assert RECT(0.75)(update, base).tolist() == [[1e-9, 0.0, 2.0, 3.0]]


def test_rect_takes_weights_of_any_precision():
    update, base = random(5, 8), random(5, 8, seed=1).bfloat16()
    assert torch.equal(RECT(0.5)(update, base), RECT(0.5)(update, base.double()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", [1.2, 2.0, 10.0])
def test_prune_compresses_as_published(alpha, shape):
    # Published: log_alpha(s) - log_alpha(smax) + smax above smax, which here is 6 and large enough not to enlarge.
    base = with_values(shape, [6.0, 3.0, 2.0, 1.0, 0.5, 0.1][: min(shape)])
    update = with_values(shape, [40.0, 9.0, 6.5, 5.0, 1.0, 0.2][: min(shape)], seed=3)
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    expected = [s if s <= 6 else (math.log(s) - math.log(6)) / math.log(alpha) + 6 for s in values.tolist()]
    processed = PRUNE(alpha)(update, base)
    assert torch.allclose(processed, left * torch.tensor(expected, dtype=torch.float64) @ right, rtol=0, atol=1e-12)
    assert spectrum(processed)[0] <= 6 + math.log(40 / 6) / math.log(alpha) + 1e-12


@pytest.mark.parametrize("alpha", [1.01, 1.2, 2.0])
def test_prune_never_enlarges_where_the_published_function_would(alpha):
    base = with_values((6, 6), [0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    values = [50.0, 0.8, 0.6, 0.51, 0.3, 0.1]
    update = with_values((6, 6), values, seed=3)
    published = [(math.log(s) - math.log(0.5)) / math.log(alpha) + 0.5 for s in values[:4]]
    assert any(new > old for new, old in zip(published, values, strict=False))
    expected = sorted([*map(min, values[:4], published), 0.3, 0.1], reverse=True)
    assert spectrum(PRUNE(alpha)(update, base)).tolist() == pytest.approx(expected, abs=1e-12)


@shapes
def test_prune_leaves_small_updates_alone_bit_for_bit(shape):
    base = with_values(shape, [6.0, 3.0, 2.0, 1.0, 0.5, 0.1][: min(shape)])
    update = with_values(shape, [5.9, 2.0, 1.0, 0.5, 0.1, 0.1][: min(shape)], seed=3)
    assert torch.equal(PRUNE()(update, base), update)


def test_prune_of_low_rank_updates():
    update = 30 * random(5, 1) @ random(1, 8, seed=1)
    base = with_values((5, 8), [6.0, 3.0, 2.0, 1.0, 0.5])
    processed = PRUNE()(update, base)
    assert spectrum(processed)[0] < spectrum(update)[0]
    assert spectrum(processed)[1] < 1e-12


def test_prune_takes_weights_of_any_precision():
    update, base = 50 * random(5, 8), random(5, 8, seed=1).bfloat16()
    assert torch.equal(PRUNE()(update, base), PRUNE()(update, base.double()))


def test_prune_bounds_the_edited_weight():
    # However large the sum of a thousand updates grows, the edited weight grows with its logarithm only.
    base = with_values((6, 6), [6.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    for scale in (10.0, 1e3, 1e6):
        update = scale * random(6, 6, seed=4)
        bound = 12 + math.log(float(spectrum(update)[0]) / 6) / math.log(1.2)
        assert spectrum(base + PRUNE()(update, base))[0] <= bound + 1e-6


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_fractions_are_refused(keep):
    with pytest.raises(EditError, match="`keep` must be a number above 0 and at most 1"):
        RECT(keep)


@pytest.mark.parametrize("alpha", [1.0, 0.5, float("nan")])
def test_impossible_bases_are_refused(alpha):
    with pytest.raises(EditError, match="`alpha` must be a number above 1"):
        PRUNE(alpha)


def test_which_update_each_is_made_for():
    assert not RECT.of_sum
    assert PRUNE.of_sum
