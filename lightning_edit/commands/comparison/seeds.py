"""Runs that differ in their seeds alone, as one run: the mean of their figures, and how far apart these are."""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from lightning_edit.commands.comparison.runs import Figures, Run

# encore-1, encore_seed2, encore.3: what is before it names all of them.
NUMBER = re.compile(r"[-_ .]*(seed|run)?[-_ .=]*\d+$", re.IGNORECASE)


def is_seed(name: str) -> bool:
    """Whether a setting is a seed.

    Args:
        name: Its dotted name.
    """
    return name.rpartition(".")[2] == "seed"


def stem(name: str | None) -> str | None:
    """A name without the number at its end.

    Args:
        name: The name of a run, None for none.
    """
    return name and (NUMBER.sub("", name) or name)


def without_seeds(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that are no seeds.

    Args:
        settings: See `flat_settings`.
    """
    return {name: value for name, value in settings.items() if not is_seed(name)}


def joined_seeds(runs: Sequence[Run]) -> list[Run]:
    """One run for all that differ in their seeds alone, in the place of the first of them; the others as they are.

    A figure is the mean over the runs, and its standard error is replaced by their standard deviation. Of those with
    the same seeds the last counts. Names may differ in a number at their end. Runs that all have the same seeds are not
    joined.

    Args:
        runs: Finished runs.
    """
    groups: dict[tuple[object, ...], dict[tuple[str, ...], Run]] = {}
    for run in runs:
        key = _joined_by(run)
        seeds = tuple(value for name, value in sorted(run.settings.items()) if is_seed(name))
        groups.setdefault(key, {})[seeds] = run
    found: list[Run] = []
    placed: set[tuple[object, ...]] = set()
    for run in runs:
        key = _joined_by(run)
        members = list(groups[key].values())
        if len(members) == 1:
            found.append(run)
        elif key not in placed:
            placed.add(key)
            found.append(_joined(members))
    return found


def _joined_by(run: Run) -> tuple[object, ...]:
    """What runs that are joined have in common: all settings but seeds, and how free answers were asked and marked."""
    settings = sorted(without_seeds(run.settings).items())
    return (*settings, *sorted(run.wild.items()), run.edits, run.batch_size, stem(run.name))


def _joined(runs: Sequence[Run]) -> Run:
    first, names = runs[0], {run.name for run in runs}
    settings = {
        name: ", ".join(dict.fromkeys(run.settings.get(name, "null") for run in runs)) if is_seed(name) else value
        for name, value in first.settings.items()
    }
    places = [place for place in first.measured if all(place in run.measured for run in runs)]
    return Run(
        folder=first.folder,
        edits=first.edits,
        batch_size=first.batch_size,
        measured={place: _means([run.measured[place] for run in runs]) for place in places},
        seconds={name: fmean(run.seconds.get(name, 0.0) for run in runs) for name in first.seconds},
        left_out=sum(run.left_out for run in runs),
        settings=settings,
        name=first.name if len(names) == 1 else stem(first.name),
        seeds=len(runs),
        wild=first.wild,
        folders=tuple(folder for run in runs for folder in run.folders),
    )


def _means(figures: Sequence[Figures]) -> Figures:
    """Means of what all of them have, with standard deviations in place of standard errors."""
    means: Figures = {}
    for name in figures[0]:
        if name.endswith("_stderr") or not all(name in one for one in figures):
            continue
        values = [one[name] for one in figures]
        means[name] = fmean(values)
        if not name.endswith("_n"):
            means[f"{name}_stderr"] = stdev(values)
    return means
