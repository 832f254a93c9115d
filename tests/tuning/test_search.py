"""The search over settings: what is next to what, how trials compete, and what that costs."""

import math
import random

import pytest
import torch

from lightning_edit.solvers import EMMET, MEMIT, EditProblem
from lightning_edit.tuning.bench import Trial
from lightning_edit.tuning.judge import Score
from lightning_edit.tuning.layers import layer_sets
from lightning_edit.tuning.points import Point, Space
from lightning_edit.tuning.search import best_of, frontier, search, with_neighbors

SPACE = Space(((4,), (7,), (10,), (13,), (16,), (19,), (3, 4, 5, 6, 7)), 1536)
EDITS = 32


def surface(peak):
    """A smooth score with one peak, as real ones are: strong edits damage, weak ones do not take."""

    def run(point, edits):
        strength = math.log10(point.clamp * point.lr / 0.3) - 0.5 * math.log10(point.weight / 100)
        efficacy = 1 / (1 + math.exp(-4 * (strength + 0.4))) * math.exp(-(((point.layers[-1] - peak) / 6) ** 2))
        kept = 1 / (1 + math.exp(3 * (strength - 0.7)))
        return Trial(point, edits, Score(efficacy, 0.9 * efficacy, kept), growth=1 + math.exp(strength))

    return run


@pytest.mark.parametrize("peak", [5, 10, 17])
@pytest.mark.parametrize("favor", ["efficacy", "balance", "locality"])
def test_the_search_comes_near_the_best_of_the_grid_at_a_tenth_of_its_cost(peak, favor):
    run = surface(peak)
    trials = search(SPACE, run, EDITS, favor)
    best = max(run(point, EDITS).score.mean(favor) for point in SPACE)
    assert best_of(trials, favor).score.mean(favor) > best - 0.02
    assert sum(trial.edits for trial in trials) < 0.1 * EDITS * len(SPACE)


def two_peaks(point, edits):
    """A score as a real model has it: small steps in a wide ball and large ones in a narrow one are good."""
    small = math.exp(-((math.log(point.lr / 0.05) / 0.5) ** 2) - (math.log(point.clamp / 6) / 0.8) ** 2)
    large = math.exp(-((math.log(point.lr / 1.0) / 0.5) ** 2) - (math.log(point.clamp / 1.5) / 0.5) ** 2)
    weight = math.exp(-((math.log(point.weight / 100) / 3) ** 2))
    near = math.exp(-(((point.layers[-1] - 4) / 6) ** 2))
    return Trial(point, edits, Score(near * weight * max(0.8 * small, 0.9 * large, 0.5)), growth=1.0)


def test_the_search_finds_the_better_of_two_peaks(monkeypatch):
    best = max(two_peaks(point, EDITS).score.mean("balance") for point in SPACE)
    found = search(SPACE, two_peaks, EDITS, "balance")
    assert best_of(found, "balance").score.mean("balance") > best - 0.02
    assert sum(trial.edits for trial in found) < 0.1 * EDITS * len(SPACE)
    monkeypatch.setattr(Space, "coarse", lambda *_: [])
    alone = best_of(search(SPACE, two_peaks, EDITS, "balance"), "balance")
    assert alone.score.mean("balance") < best - 0.02, "neighbors alone do not cross what lies between"


def test_a_search_makes_no_trial_twice_and_ends_where_no_neighbor_is_better():
    made = []
    run = surface(10)

    def counted(point, edits):
        made.append((point, edits))
        return run(point, edits)

    trials = search(SPACE, counted, EDITS, "balance")
    assert len(made) == len(set(made)) == len(trials)
    assert [(trial.point, trial.edits) for trial in trials] == made
    assert {edits for _, edits in made} == {8, 16, 32}


def test_few_edits_are_all_used():
    trials = search(Space(((0,),), 64), surface(0), 3, "balance")
    assert {trial.edits for trial in trials} == {3}


@pytest.mark.parametrize("edits", [1, 8])
def test_rungs_of_as_many_edits_count_a_trial_once(edits):
    made = []
    run = surface(0)

    def kept(point, count):
        made.append((point, count))
        return run(point, count)

    trials = search(Space(((0,),), 64), kept, edits, "balance")
    assert len({(trial.point, trial.edits) for trial in trials}) == len(trials) == len(made)


def test_a_search_tells_how_far_it_is():
    told = []
    search(SPACE, surface(10), EDITS, "balance", lambda *call, **figures: told.append((*call, figures)))
    assert told[0] == ("trials 1/4 (8 edits)", 0, len(SPACE.start()), {})
    assert [call[1] for call in told[: 1 + len(SPACE.start())]] == list(range(1 + len(SPACE.start())))


def test_neighbors_differ_in_one_setting_by_one_step():
    point = Point((4,), 0.1, 6.0, 100.0)
    neighbors = SPACE.neighbors(point)
    assert Point((4,), 0.1, 6.0, 30.0) in neighbors
    assert Point((4,), 0.05, 6.0, 100.0) in neighbors
    assert len(neighbors) == 5, "6 is the largest clamp"
    assert all(neighbor in set(SPACE) for neighbor in [*neighbors, *SPACE.start()])
    assert len(list(SPACE)) == len(SPACE)
    assert {point.weight for point in SPACE.start()} == {100.0, 10.0}
    assert {point.weight for point in Space(((0,),), 3).start()} == {1.0}


def test_points_that_share_values_are_tried_in_a_row():
    points = with_neighbors(SPACE, SPACE.start()[:8], 8)
    keys = [point.values_key for point in points]
    assert len(points) == len(set(points))
    assert len([1 for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key]) == len(set(keys))


def test_one_layer_and_several_write_the_same_with_the_same_weight():
    draw = torch.Generator().manual_seed(0)
    keys, residual = (torch.randn(rows, 3, dtype=torch.float64, generator=draw) for rows in (8, 5))
    square = torch.randn(8, 20, dtype=torch.float64, generator=draw)
    problem = EditProblem(keys, residual, square @ square.T / 20, bare_keys=keys)
    one, several = Point((4,), 0.1, 1.5, 30.0).solver, Point((3, 4), 0.1, 1.5, 30.0).solver
    assert isinstance(one, EMMET)
    assert isinstance(several, MEMIT)
    torch.testing.assert_close(one(problem).dense(), several(problem).dense(), rtol=1e-10, atol=0)


def test_of_equal_scores_the_smaller_change_is_best():
    points = [Point((0,), 0.1, 1.5, weight) for weight in (1.0, 3.0, 10.0)]
    trials = [Trial(point, 4, Score(1.0), growth=g) for point, g in zip(points, (2.0, 1.5, 3.0), strict=True)]
    assert best_of([Trial(points[0], 2, Score(1.0), growth=0.1), *trials], "balance") is trials[1]


def test_the_frontier_holds_what_nothing_beats():
    draw = random.Random(0)
    trials = [Trial(Point((0,), 0.1, 1.5, float(i)), 8, Score(draw.random(), None, draw.random())) for i in range(40)]
    trials.append(Trial(Point((0,), 0.1, 1.5, 99.0), 4, Score(2.0, None, 2.0)))

    def beaten(one):
        return any(
            other.score.efficacy >= one.score.efficacy
            and other.score.collateral >= one.score.collateral
            and other is not one
            for other in trials[:-1]
        )

    assert {id(trial) for trial in frontier(trials)} == {id(trial) for trial in trials[:-1] if not beaten(trial)}


def test_favors_weigh_the_harmonic_mean():
    score = Score(0.9, 0.6, 0.8)
    assert score.mean() == pytest.approx(3 / (1 / 0.9 + 1 / 0.6 + 1 / 0.8))
    assert score.mean("locality") == pytest.approx(6 / (1 / 0.9 + 1 / 0.6 + 4 / 0.8))
    assert score.mean("efficacy") == pytest.approx(2.5 / (1 / 0.9 + 1 / 0.6 + 0.5 / 0.8))
    assert Score(0.9, None, 0.6).mean() == pytest.approx(2 / (1 / 0.9 + 1 / 0.6))
    assert Score(0.9, 0.0, 1.0).mean() == 0


def test_layers_to_try_are_spread_up_to_where_the_subject_is_read():
    effect = torch.tensor([0.3] * 5 + [0.4] * 6 + [0.25, 0.21, 0.19] + [0.1] * 18, dtype=torch.float64)
    singles = ((0,), (2,), (5,), (7,), (8,), (10,), (12,))
    assert layer_sets(effect, range(31), several=False) == singles
    rows = layer_sets(effect, range(31), several=True)[len(singles) :]
    assert rows == (tuple(range(3, 9)), tuple(range(7, 13)))
    assert layer_sets(torch.zeros(6), range(5), several=True)[5:] == ((0, 1), (2, 3))
    few = layer_sets(effect, [4, 5, 6, 7, 20], several=True)
    assert few[:5] == ((4,), (5,), (6,), (7,), (20,))
    assert set(few[5:]) == set()


def test_without_a_trace_layers_are_spread_over_all():
    assert layer_sets(torch.zeros(32), range(31), several=False) == ((0,), (6,), (8,), (12,), (18,), (24,), (30,))
    assert layer_sets(torch.zeros(3), [0, 1], several=True) == ((0,), (1,), (0, 1))
    assert layer_sets(torch.zeros(3), [1], several=True) == ((1,),)
