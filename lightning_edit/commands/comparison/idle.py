"""Settings without effect beside others, of runs that did not note them yet: what `run.idle` declares, in texts.

A comparison that asked the classes themselves would take the seconds that torch needs; a test holds the two together.
"""

from collections.abc import Collection, Mapping

# Of one of the two nothing depends, so a run that searches for values and notes neither did not note such settings.
ALWAYS_ONE = {"model.values.lr", "model.values.radius"}
# Solvers that look at no second moment, sources that search for values, and solvers where none is given.
WITHOUT_MOMENTS = {"Ridge", "Sum"}
SEARCHING = {"Windows"}
USUAL_SOLVERS = {"null": "EMMET", "Windows": "MEMIT"}
OF_TEXT = ("length", "join_texts", "question_share", "questions", "subject_share", "subjects")


def usual_solver(source: str) -> str:
    """The solver of a run that was given none.

    Args:
        source: The class of its `model.source`, ``null`` for a search.
    """
    return USUAL_SOLVERS.get(source, "Ridge")


def not_noted(flat: Mapping[str, str], without_effect: Collection[str]) -> set[str]:
    """The dotted names of settings without effect that an older run did not note; none of a run that notes them.

    Args:
        flat: Its flat settings, see `flat_settings`.
        without_effect: What it noted.
    """
    solver, source = flat.get("model.solver"), flat.get("model.source")
    if solver is None or ALWAYS_ONE & set(without_effect):
        return set()
    idle = _of_values(flat) | _of_moments(flat)
    if source is not None:
        idle |= {"model.key_average", *_of_source(flat)}
    elif solver == "EMMET" and flat.get("model.edits_per_update") == "1":
        idle.add("model.solver.emmet_lambda")
    return idle


def _of_values(flat: Mapping[str, str]) -> set[str]:
    source = flat.get("model.source")
    if source is not None and source not in SEARCHING:
        return {name for name in flat if name.startswith("model.values.")}
    names = {"lr"} if flat.get("model.values.optimizer") == "descent" else {"radius", "growth"}
    if flat.get("model.values.kl_factor") == "0":
        names.add("kl_prompt")
    if flat.get("model.values.norm_anchor") != "auto":
        names.add("norm_anchor_edits")
    if source is not None:
        names |= {"kl_factor", "kl_prompt"}
    return {f"model.values.{name}" for name in names}


def _of_moments(flat: Mapping[str, str]) -> set[str]:
    names: set[str] = set()
    if flat.get("model.second_moment.source", "text") != "text":
        names |= {"tokens", *OF_TEXT}
    if flat["model.solver"] in WITHOUT_MOMENTS:
        names |= {"source", "tokens", *OF_TEXT, "preserve", "preserve_weight"}
    return {f"model.second_moment.{name}" for name in names}


def _of_source(flat: Mapping[str, str]) -> set[str]:
    if flat["model.source"] != "Gradient":
        return set()
    normalize = flat.get("model.source.normalize")
    names = {"floor"} if normalize != "whitened" else set()
    return {f"model.source.{name}" for name in (names | {"warmup"} if normalize == "none" else names)}
