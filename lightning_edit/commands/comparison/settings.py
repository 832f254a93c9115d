"""The settings of a run, flat and as texts: what two runs must share to be one method, and what tells methods apart."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Any

from lightning_edit.commands.comparison.idle import not_noted, usual_solver
from lightning_edit.commands.comparison.methods import method_of, short_name
from lightning_edit.old_names import current

ONCE = "model.edits_per_update"
METHOD = "method"
LAYERS = "model.layers"
MODEL = "model.model"
# Runs note by themselves which of their settings have no effect; these stand in for those of runs that did not yet.
BEFORE_NOTED = (
    *("data.edits", "data.limit", "data.eval_batch_size", "model.second_moment.cache_dir", "model.values.cache_dir"),
    *("model.evaluation", "model.device_map", "model.offload_folder"),
)
# Solvers that write one edit at a time, whatever was set; to ask them would take the seconds that torch needs.
ONE_EDIT = {"ROME", "RROME"}
IN_MEMORY = "MemoryEditing"
# Solvers and anchors to which the keys of earlier edits belong.
KEEPS_KEYS = {"AlphaEdit", "LyapLock"}
LONGEST = 24


def flat_settings(
    config: Mapping[str, Any], without_effect: Collection[str] = BEFORE_NOTED, given: str | None = None
) -> dict[str, str]:
    """The settings that tell one method and data set from another.

    Args:
        config: ``config`` of a ``metrics.json``. A class may be given as ``class_path`` and ``init_args``.
        without_effect: Dotted names of settings that do not, and of sections of such settings, as the run noted them.
        given: The name of the method's file that the run was given, see `method_of`.

    Returns:
        Texts under dotted names; the name of a class stands under the name of what it is the class of, e.g.
        ``{"method": "EMMET", "model.solver": "EMMET", "model.solver.emmet_lambda": "0.1", "model.layers": "[17]"}``.
    """
    flat: dict[str, str] = {}
    for part in ("model", "data"):
        _flatten(part, current(config.get(part) or {}, warn=False), flat)
    if "model.solver" in flat:
        # Values are found for so many edits at once; a method that trains on batches is another matter.
        flat.pop("data.batch_size", None)
        if flat["model.solver"] == "null":
            flat["model.solver"] = usual_solver(flat.get("model.source", "null"))
    if flat.get("model.source") == "null":
        # Runs did not always say that they search for values.
        flat.pop("model.source")
    if flat.get("model") == IN_MEMORY and flat.get(ONCE) == "null":
        # Runs did not always say that an update is a micro-batch there.
        flat[ONCE] = flat.get("data.batch_size", "null")
    if flat.get("model.previous_keys") == "null":
        flat["model.previous_keys"] = _previous_keys(flat)
    flat[ONCE] = _once(flat)
    flat[METHOD] = method_of(flat, _flatten, given)
    # What of it an older run did not note is told by its settings.
    idle = {*without_effect, *not_noted(flat, without_effect)}
    return {name: value for name, value in flat.items() if not any(_is_of(name, part) for part in idle)}


def flat_protocol(section: Any) -> dict[str, str]:
    """How free answers were asked and marked.

    Args:
        section: ``wild`` of a ``metrics.json``, None if it has none.
    """
    flat: dict[str, str] = {}
    protocol = section.get("protocol") if isinstance(section, Mapping) else None
    _flatten("wild", protocol if isinstance(protocol, Mapping) else {}, flat)
    return flat


def edits_of_update(settings: Mapping[str, str]) -> int | None:
    """How many edits one update holds, None for all of them.

    Args:
        settings: As from `flat_settings`.
    """
    return None if settings[ONCE] == "null" else int(settings[ONCE])


def _is_of(name: str, section: str) -> bool:
    return name == section or name.startswith(f"{section}.")


def _flatten(name: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, Sequence) and value and all(isinstance(entry, Mapping) for entry in value):
        for position, entry in enumerate(value):
            _flatten(f"{name}.{position}" if len(value) > 1 else name, entry, flat)
        return
    if not isinstance(value, Mapping):
        flat[name] = _text(value)
        return
    path = value.get("class_path", value.get("_class_path"))
    if path is not None:
        flat[name] = str(path).rpartition(".")[2]
    inner = value.get("init_args") if "class_path" in value else value
    for key, entry in (inner if isinstance(inner, Mapping) else {}).items():
        if not key.startswith("_"):
            _flatten(f"{name}.{key}", entry, flat)


def _once(flat: Mapping[str, str]) -> str:
    """The smaller of what was set and what the solver can do."""
    return "1" if flat.get("model.solver") in ONE_EDIT else flat.get(ONCE, "null")


def _previous_keys(flat: Mapping[str, str]) -> str:
    """Whether the keys of earlier edits are preserved where this was left to the method."""
    anchor, solver = flat.get("model.anchor", "null"), flat.get("model.solver")
    independent = flat.get("model.independent_updates") == "true"
    return str(anchor in KEEPS_KEYS if anchor != "null" else solver in KEEPS_KEYS and not independent).lower()


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return f"{value:g}"
    # An object without a text of its own is shown with its address, which differs from run to run.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def shortest_labels(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """A label for each: the method, model and layers where they differ, and as few other settings as will do.

    Args:
        settings: Flat settings; those that are the same get the same label.
    """
    pieces = [[short_name(one[METHOD])] for one in settings]
    for path in (MODEL, LAYERS):
        if len({one.get(path) for one in settings}) > 1:
            for one, label in zip(settings, pieces, strict=True):
                label += [_piece(path, one[path], settings)] if path in one else []
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, label in enumerate(pieces):
        alike.setdefault(tuple(label), []).append(index)
    for cluster in alike.values():
        _tell_apart(cluster, settings, pieces)
    return [", ".join(label) for label in pieces]


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The names of settings that are not the same in all.

    Args:
        settings: Flat settings.
    """
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one.get(name) for one in settings}) > 1]


def _tell_apart(cluster: Sequence[int], settings: Sequence[Mapping[str, str]], pieces: Sequence[list[str]]) -> None:
    """Adds the setting with the most values in the cluster to its labels, and goes on with those still alike."""
    inside = [settings[i] for i in cluster]
    paths = differing(inside)
    if not paths:
        return
    best = max(paths, key=lambda path: (len({one.get(path) for one in inside}), -len(path)))
    parts: dict[str | None, list[int]] = {}
    for index in cluster:
        parts.setdefault(settings[index].get(best), []).append(index)
    for value, part in parts.items():
        for index in part:
            pieces[index] += [] if value is None else [_piece(best, value, settings)]
        _tell_apart(part, settings, pieces)


def _piece(path: str, value: str, settings: Sequence[Mapping[str, str]]) -> str:
    others = {one[path] for one in settings if path in one}
    shown = value if [_short(other) for other in others].count(_short(value)) > 1 else _short(value)
    if path == MODEL:
        return shown
    if path == LAYERS:
        return _layers(value)
    if path == ONCE:
        return "all at once" if value == "null" else f"{value} at once"
    parts = path.split(".")
    ambiguous = any(name != path and name.endswith(f".{parts[-1]}") for name in differing(settings))
    return f"{'.'.join(parts[-2:]) if ambiguous else parts[-1]} {shown}"


def _short(value: str) -> str:
    name = PurePath(value).name if "/" in value and " " not in value else value
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _layers(value: str) -> str:
    """``[3, 4, 5, 9]`` as ``layers 3-5+9``."""
    numbers = [int(part) for part in value.strip("[]").split(",") if part.strip().isdecimal()]
    stretches = [
        [number for _, number in stretch] for _, stretch in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    shown = "+".join(str(s[0]) if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in stretches)
    return f"layer{'s' if len(numbers) > 1 else ''} {shown or value}"
