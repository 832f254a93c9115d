"""Which settings do less harm, or write more of the edits: of each method those that it has."""

from collections.abc import Mapping
from typing import Literal

Kind = Literal["searched", "differentiated", "trained", "constrained", "told", "remembered"]
Levers = Mapping[str, float]
# It works on the sum of all updates, when the last is written.
PRUNE = "PRUNE.alpha"
PRESERVE = {
    "previous_keys": "set `previous_keys: true`",
    "anchor.ridge": "raise `anchor.ridge`",
    "anchor.bound": "lower `anchor.bound`",
    "solver.second_moment_weight": "raise the solver's `second_moment_weight` (w)",
    "solver.threshold": "lower the solver's `threshold`",
    "solver.ridge": "raise the solver's `ridge`",
    "norm_constraint": "lower `model.norm_constraint`",
    "RECT.keep": "lower RECT's `keep`",
    "REVIVE.energy": "raise REVIVE's `energy`",
    "SPHERE.eta": "raise SPHERE's `eta`",
    "SPHERE.alpha": "raise SPHERE's `alpha`",
    PRUNE: "raise PRUNE's `alpha`",
}
WRITE = {
    "anchor.ridge": "lower `anchor.ridge`",
    "anchor.bound": "raise `anchor.bound`",
    "solver.second_moment_weight": "lower the solver's `second_moment_weight` (w)",
    "solver.threshold": "raise the solver's `threshold`",
    "solver.ridge": "lower the solver's `ridge`",
    "values.norm_anchor": "raise `values.norm_anchor` or set it to null",
    "norm_constraint": "raise `model.norm_constraint`",
    "RECT.keep": "raise RECT's `keep`",
    "REVIVE.energy": "lower REVIVE's `energy`",
    "SPHERE.eta": "lower SPHERE's `eta`",
    "SPHERE.alpha": "lower SPHERE's `alpha`",
    PRUNE: "lower PRUNE's `alpha`",
}
# Shares, which cannot be raised any further.
LARGEST = dict.fromkeys(("RECT.keep", "REVIVE.energy", "SPHERE.eta", "SPHERE.alpha"), 1.0)
LESS_HARM: Mapping[Kind, str] = {
    "constrained": "train for fewer `model.epochs`, lower `model.lr`, or raise `model.energy`",
    "told": "with `model.facts: tfidf` or `states`, raise `model.threshold`: prompts about something else get no fact",
    "remembered": "lower `model.radius` (GRACE) or raise `model.threshold` (MEMOIR): fewer tokens belong to an edit",
}
FT_L = "use FT-L (`configs/solvers/ft_l.yaml`)"


def any_of(*ways: str) -> str:
    """Ways as one phrase: ``a, b, or c``.

    Args:
        *ways: What may be done.
    """
    *first, last = ways
    return f"{', '.join(first)}, or {last}" if first else last


def preserve_more(levers: Levers) -> list[str]:
    """What makes an update leave more as it is.

    Args:
        levers: See `RunFigures`.
    """
    return [way for name, way in PRESERVE.items() if name in levers and _can(way, name, levers)]


def write_more(levers: Levers) -> list[str]:
    """What makes an update write more of its edits; a ridge of 0 cannot be lowered.

    Args:
        levers: See `RunFigures`.
    """
    return [way for name, way in WRITE.items() if levers.get(name) and _can(way, name, levers)]


def _can(way: str, name: str, levers: Levers) -> bool:
    return not (way.startswith("raise") and levers[name] == LARGEST.get(name))


def less_harm(kind: Kind, levers: Levers) -> str:
    """What to do where edits have changed what they should not.

    Args:
        kind: How the edits were made, see `RunFigures`.
        levers: The same.
    """
    # With earlier keys preserved an update does not harm less of what was never edited.
    preserve = preserve_more({name: value for name, value in levers.items() if name != "previous_keys"})
    counted = "second_moment" in levers
    if kind == "searched":
        return any_of(*preserve, *["use more `second_moment.tokens`"] * counted, "edit more layers")
    if kind == "differentiated":
        return any_of("lower `source.eta`", *preserve, *["write with AlphaEdit or MEMIT"] * (not counted))
    if kind == "trained":
        return any_of("train for fewer epochs", "lower `model.lr`", *(preserve or [FT_L]))
    return LESS_HARM[kind]


def smaller(kind: Kind, levers: Levers) -> str:
    """What to do where a weight has grown.

    Args:
        kind: See `less_harm`.
        levers: The same.
    """
    if kind == "searched":
        return any_of(*preserve_more(levers), "edit more layers", "lower `values.clamp_norm_factor`")
    if kind == "trained":
        return any_of("lower `model.lr`", *(preserve_more(levers) or [FT_L]))
    return "lower `model.lr`, or raise `model.energy`" if kind == "constrained" else less_harm(kind, levers)


def less_far(kind: Kind, levers: Levers) -> str:
    """What to do where a model degrades while it is edited, as a sentence.

    Args:
        kind: See `less_harm`.
        levers: The same.
    """
    if kind != "searched":
        remedy = less_harm(kind, levers)
        return f"{remedy[0].upper()}{remedy[1:]}."
    during = {name: value for name, value in levers.items() if name != PRUNE}
    ways = any_of(*preserve_more(during), *["write with AlphaEdit"] * ("solver.threshold" not in levers))
    return (
        f"{ways[0].upper()}{ways[1:]}; or optimize the values less far (`values.mpes`, a smaller "
        "`values.clamp_norm_factor`)."
    )
