"""The name of a run's method: as in ``configs/solvers/``, where it has the settings of a file there."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from lightning_edit.configs import CONFIGS
from lightning_edit.storage.user.yaml import read_yaml

# The names that methods are published under, of those whose file is named otherwise.
PUBLISHED = {
    "anyedit": "AnyEdit",
    "crispedit": "CrispEdit",
    "encore": "ENCORE",
    "evoedit": "EvoEdit",
    "ft": "FT (fine-tuning)",
    "ft_l": "FT-L (fine-tuning within limits)",
    "grace": "GRACE",
    "in_context": "facts in the context",
    "locft_bf": "LocFT-BF (fine-tuning, breadth first)",
    "lora": "LoRA",
    "lyaplock": "LyapLock",
    "memit_fe": "MEMIT-FE",
    "memit_output": "OutputMEMIT",
    "memit_sequential": "sequential MEMIT",
    "memoir": "MEMOIR",
    "malmen": "MALMEN",
    "memoir_closed": "MEMOIR in closed form",
    "mend": "MEND",
    "nas": "NAS",
    "prune": "PRUNE",
    "rect": "RECT",
    "retrieval": "facts found by a search",
    "revive": "REVIVE",
    "rledit": "RLEdit",
    "rlsedit": "RLSEdit",
    "rrome": "r-ROME",
    "simie": "SimIE",
    "sphere": "SPHERE",
    "stableedit": "StableEdit",
    "ultraedit": "UltraEdit",
    "RROME": "r-ROME",
}
NET = "model.source.net"
NO_NET = ", no net"
# What a user sets anew for each model, or for each number of edits.
OF_THE_MODEL = ("model.model", "model.layers", "model.source.maps", NET, "model.edits_per_update")
# What makes another method of one that it is added to.
PARTS = re.compile(r"model\.(source|anchor|post_processing(\.\d+)?)")
NONE = {"null", "[]"}
AND = " + "


def method_of(
    settings: Mapping[str, str], flatten: Callable[[str, Any, dict[str, str]], None], given: str | None = None
) -> str:
    """The method of a run.

    A run is of a method when all settings of the method's file are in it: classes and words as they are there,
    numbers of any size, as they are chosen for each model; but what is a number there may not be off (0). The file with
    the most settings counts, so that MEMIT with earlier keys and MPES is ``encore``; of files with the same settings,
    such as ``memit_sequential`` and ``rlsedit``, the one that the run was given, or else the first. A file that is
    named after its class goes by the class.

    Args:
        settings: The flat settings of the run.
        flatten: Adds nested settings under a name to flat ones.
        given: The name of the file that the run was given, None if none or unknown.

    Returns:
        The name of a file, or else of the solver's or the module's class; with `NO_NET` where the file's method has a
        net and the run had none, and with the classes of what was added to the method, as in ``memit + SPHERE``.
    """
    name, most = settings.get("model.solver", settings.get("model", "")), (0, False)
    parts = {key: value for key, value in settings.items() if PARTS.fullmatch(key) and value not in NONE}
    added = parts
    for path in sorted((CONFIGS / "solvers").glob("*.yaml")):
        wanted: dict[str, str] = {}
        flatten("model", read_yaml(path)["model"], wanted)
        lacks_net = NET in wanted and settings.get(NET) == "null"
        wanted = {key: value for key, value in wanted.items() if key not in OF_THE_MODEL}
        rank = (len(wanted), path.stem == given)
        if rank > most and all(_agree(settings.get(key), value) for key, value in wanted.items()):
            cls = wanted.get("model.solver", "")
            name, most = (cls if path.stem == cls.lower() else path.stem) + NO_NET * lacks_net, rank
            added = {key: value for key, value in parts.items() if value not in wanted.values()}
    return AND.join([name, *added.values()])


def _agree(value: str | None, wanted: str) -> bool:
    """Whether a run has what a file wants; a part that the file has on, a number that is not 0, may not be off."""
    if value is None or value == wanted:
        return value is not None
    number, of_file = _number(value), _number(wanted)
    return number is not None and of_file is not None and (number != 0 or of_file == 0)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def published(method: str) -> str:
    """The name of a method as people know it.

    Args:
        method: Its name in a comparison.
    """
    name = method.partition(AND)[0].removesuffix(NO_NET)
    return PUBLISHED.get(name, name) + method[len(name) :]


def short_name(method: str) -> str:
    """The name of a method for tables and figures, without what explains it.

    Args:
        method: Its name in a comparison.
    """
    name, *added = published(method).split(AND)
    return AND.join([name.partition(" (")[0], *added])
