"""Successive halving: many points with few edits, then the best of them and their neighbors with more."""

from collections.abc import Callable, Iterable, Sequence

from lightning_edit.messages import counted
from lightning_edit.progress import Report, silent
from lightning_edit.tuning.bench import Trial
from lightning_edit.tuning.judge import Favor
from lightning_edit.tuning.points import Point, Space

# The share of edits that choose layers, and then pairs of learning rate and clamp for so many sets of them.
FIRST, LAYER_SETS = 1 / 4, 2
# For each rung after that: the share of edits, how many points of the rung before stay, and of how many the neighbors
# are tried.
RUNGS = ((1 / 2, 6, 2), (1.0, 4, 2))
FEWEST_EDITS, CLIMBS = 4, 3


def search(
    space: Space, run: Callable[[Point, int], Trial], edits: int, favor: Favor, report: Report = silent
) -> list[Trial]:
    """Tries points of a space until the best with all edits has no better neighbor.

    Args:
        space: The points.
        run: Tries one with so many edits.
        edits: All edits.
        favor: What a good point is.
        report: Called with the number of trials of a rung.

    Returns:
        All trials in their order, each once; those with all edits compare with each other.
    """
    made: dict[tuple[Point, int], Trial] = {}

    def once(point: Point, count: int) -> Trial:
        # Of few edits several rungs have as many.
        if (point, count) not in made:
            made[point, count] = run(point, count)
        return made[point, count]

    _climb(space, once, edits, favor, report)
    return list(made.values())


def _climb(space: Space, run: Callable[[Point, int], Trial], edits: int, favor: Favor, report: Report) -> None:
    """The rungs, and then steps from the best until no neighbor is better."""
    last = _first(space, run, edits, favor, report)
    for number, (share, stay, widened) in enumerate(RUNGS, start=3):
        count = _count(edits, share)
        best = [trial.point for trial in _ranked(last, favor)[:stay]]
        points = with_neighbors(space, best, widened)
        last = _rung(points, count, run, f"trials {number}/{len(RUNGS) + 2} ({counted(count, 'edit')})", report, favor)
    tried = {trial.point for trial in last}
    for _ in range(CLIMBS):
        best_trial = max(last, key=lambda trial: trial.rank(favor))
        points = [point for point in space.neighbors(best_trial.point) if point not in tried]
        if not points:
            break
        last = [*last, *_rung(points, edits, run, f"neighbors of the best ({counted(edits, 'edit')})", report, favor)]
        tried |= set(points)
        if max(last, key=lambda trial: trial.rank(favor)) is best_trial:
            break


def _first(space: Space, run: Callable[[Point, int], Trial], edits: int, favor: Favor, report: Report) -> list[Trial]:
    """A few settings for all layers, then many for the best of these."""
    count, rungs = _count(edits, FIRST), len(RUNGS) + 2
    start = _rung(space.start(), count, run, f"trials 1/{rungs} ({counted(count, 'edit')})", report, favor)
    layer_sets = list(dict.fromkeys(trial.point.layers for trial in _ranked(start, favor)))[:LAYER_SETS]
    tried = {trial.point for trial in start}
    points = [point for point in space.coarse(layer_sets) if point not in tried]
    return [*start, *_rung(points, count, run, f"trials 2/{rungs} ({counted(count, 'edit')})", report, favor)]


def _count(edits: int, share: float) -> int:
    return min(edits, max(FEWEST_EDITS, round(edits * share)))


def _ranked(trials: Iterable[Trial], favor: Favor) -> list[Trial]:
    """The best first."""
    return sorted(trials, key=lambda trial: trial.rank(favor), reverse=True)


def best_of(trials: Iterable[Trial], favor: Favor) -> Trial:
    """The best of the trials with most edits.

    Args:
        trials: One or more.
        favor: What is good.
    """
    everything = list(trials)
    most = max(trial.edits for trial in everything)
    return max((trial for trial in everything if trial.edits == most), key=lambda trial: trial.rank(favor))


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with most edits that no other beats in efficacy or collateral without losing in the other.

    Args:
        trials: One or more.

    Returns:
        Those, by falling collateral.
    """
    most = max(trial.edits for trial in trials)
    full = [trial for trial in trials if trial.edits == most and trial.score.efficacy]
    chosen: list[Trial] = []
    for trial in sorted(full, key=lambda t: (-(t.score.collateral or 0.0), -t.score.efficacy)):
        if not chosen or trial.score.efficacy > chosen[-1].score.efficacy:
            chosen.append(trial)
    return chosen


def with_neighbors(space: Space, points: Sequence[Point], widened: int) -> list[Point]:
    """Points with the neighbors of the first of them, those that share value vectors in a row.

    Args:
        space: The points there are.
        points: The best ones first.
        widened: Of how many to take the neighbors.
    """
    everything = [*points, *(beside for point in points[:widened] for beside in space.neighbors(point))]
    return list(dict.fromkeys(sorted(everything, key=lambda point: (point.values_key, point))))


def _rung(
    points: Sequence[Point], edits: int, run: Callable[[Point, int], Trial], stage: str, report: Report, favor: Favor
) -> list[Trial]:
    trials: list[Trial] = []
    report(stage, 0, len(points))
    for number, point in enumerate(points, start=1):
        trials.append(run(point, edits))
        report(stage, number, len(points), best=max(trial.score.mean(favor) for trial in trials))
    return trials
