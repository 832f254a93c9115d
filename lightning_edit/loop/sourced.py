"""Runs whose keys and residuals come from a source when an update is written, and not from a search before."""

import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.asking.questions import as_question
from lightning_edit.collateral import Sources
from lightning_edit.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Source
from lightning_edit.messages import counted, listed
from lightning_edit.probes import PublicFact, folded, other_answer
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest
from lightning_edit.settings import compared_fields
from lightning_edit.solvers import EMMET, Solver
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.stored_requests import filled_in_all
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values

logger = logging.getLogger(__name__)


def usual_solver(source: Source | None) -> Solver:
    """The solver where none is given.

    Args:
        source: Where keys and residuals come from; None for a search.
    """
    return EMMET() if source is None else source.usual_solver()


def is_searched(source: Source | None) -> bool:
    """Whether values are searched for at the highest edited layer, which must then be one where they are read.

    Args:
        source: Where keys and residuals come from; None for a search.
    """
    return source is None or source.searches


def check_source(source: Source, solver: Solver, distribution: LayerDistribution, values: ValueSettings) -> None:
    """Refuses settings that mean nothing together with a source.

    Args:
        source: Where keys and residuals come from.
        solver: Which member of the family writes.
        distribution: How layers share a residual.
        values: How a search would be made.

    Raises:
        EditError: Says what would work.
    """
    if values.norm_anchor is not None:
        raise EditError(
            "`values.norm_anchor` gives a norm to values that are searched for at subjects, and with `source` there "
            "are none: set it to null, or leave `source` out."
        )
    kind, name = type(source).__name__, type(solver).__name__
    if solver.edits_per_update is not None:
        raise EditError(
            f"{name} writes one key in an update, and {kind} gives {source.keys_of}. Set `solver` to Ridge, MEMIT, "
            "EMMET or AlphaEdit."
        )
    if source.searches:
        if distribution == "replay":
            raise EditError(
                f"`layer_distribution: replay` finds values at the lowest edited layer, and {kind} at the highest. Use "
                "uniform, sqrt, last or first_last, or leave out `source`."
            )
        return
    if distribution != "uniform":
        raise EditError(
            f"`layer_distribution: {distribution}` shares one residual between layers, and {kind} gives each map one "
            "of its own. Leave it out, or leave out `source`."
        )


def check_sum(solver: Solver, source: Source | None, preserving: str | None = None) -> None:
    """Refuses what means nothing to a solver that adds up steps.

    Args:
        solver: Which member of the family writes.
        source: Where keys and residuals come from; None for a search.
        preserving: A setting by which earlier edits would be preserved; None without any.

    Raises:
        EditError: Says what would work.
    """
    if solver.solves:
        return
    name = type(solver).__name__
    if source is None or source.searches:
        found = "a search finds" if source is None else f"{type(source).__name__} finds"
        raise EditError(
            f"{name} adds up steps, and {found} what a weight must gain, which has to be solved for. Take values from "
            "gradients (`source: Gradient`), or another solver, such as MEMIT."
        )
    if preserving is not None:
        raise EditError(
            f"`{preserving}`: {name} solves nothing and so cannot preserve earlier edits. Leave it out, or set "
            "`solver` to Ridge."
        )


def without_moments(solver: Solver) -> tuple[str, str]:
    """Why nothing is counted for a solver that looks at no second moment, and what would change that, for messages.

    Args:
        solver: Which member of the family writes.
    """
    return f"`solver: {type(solver).__name__}`, which looks at no second moment", "Take one that does, such as MEMIT"


def check_subjects(requests: Sequence[EditRequest], source: Source | None) -> None:
    """Refuses edits without a subject where it must be known.

    Args:
        requests: The edits.
        source: Where keys and residuals come from; None for a search.

    Raises:
        EditError: Names them, and says what would work.
    """
    if (source is not None and not source.needs_subject) or filled_in_all(requests, "subject"):
        return
    without = [request.name for request in requests if not request.subject]
    if without:
        verb = "has" if len(without) == 1 else "have"
        raise EditError(
            f"{counted(len(without), 'edit')} ({listed(without, 3)}) {verb} no subject, at whose last token a search "
            "finds values. Give `subject`, and {} in its place in the prompt, or take values from gradients or at "
            "windows of a long answer, which need none: `model.source: Gradient` or `Windows` (`source=Gradient()` in "
            "Python)."
        )


def waiting(edits: int) -> Values:
    """What waits for an update whose pairs are found when it is written: values without numbers.

    Args:
        edits: n.
    """
    empty = {field.name: torch.zeros(edits) for field in fields(Values)}
    matrices = {"z": torch.zeros(edits, 0), "z0": torch.zeros(edits, 0)}
    kinds: dict[str, Any] = {"steps": torch.zeros(edits, dtype=torch.long)}
    return Values(**{**empty, **matrices, **kinds, "finite": torch.ones(edits, dtype=torch.bool)})


def facts_to_see(source: Source, requests: Sequence[EditRequest], sources: Sources) -> list[PublicFact]:
    """The facts that a source sees before the first update.

    Args:
        source: Where keys and residuals come from.
        requests: The edits, whose subjects are left out.
        sources: Where facts are taken from.

    Raises:
        EditError: If there are not so many.
    """
    known = {folded(fact.subject) for fact in sources.facts}
    edited = known.intersection(folded(request.subject) for request in requests)
    facts = [fact for fact in sources.facts if folded(fact.subject) not in edited]
    if len(facts) < source.warmup:
        raise EditError(f"`source.warmup` asks for {source.warmup} facts, and there are {len(facts)} to take.")
    return facts[: source.warmup]


def warm_up(
    editor: Editor, requests: Sequence[EditRequest], sources: Sources, seed: int, report: Report, asking: ChatSettings
) -> None:
    """Lets a source see facts that are not edited before the first update; no weight changes.

    Args:
        editor: The editor of the run; its statistics are changed.
        requests: The edits, whose subjects are left out.
        sources: Where facts are taken from.
        seed: Of the other answers.
        report: Told how far it is.
        asking: How the run asks a chat model.

    Raises:
        EditError: If there are not so many facts.
    """
    source = editor.source
    if source is None or not source.warmup or editor.statistics:
        return
    chat = requests[0].original is not None
    made = []
    for fact in facts_to_see(source, requests, sources):
        answer = other_answer(fact, seed, sources.facts)
        request = EditRequest(fact.subject, fact.prompt, answer, fact.answer, question=fact.question)
        made.append(as_question(request, asking.complete, asking.in_sentences) if chat else request)

    def show(stage: str, done: float, total: float, **figures: float) -> None:
        report("warm-up (facts)", done, total, **figures)

    editor.statistics = editor.find_pairs(source, made, show).statistics


def idle_in_search(source: Source | None) -> frozenset[str]:
    """The fields of `ValueSettings` that have no effect beside a source.

    Args:
        source: Where keys and residuals come from; None for a search.
    """
    if source is None:
        return frozenset()
    return frozenset({"kl_factor", "kl_prompt"} if source.searches else compared_fields(ValueSettings()))


def warn_of_search(values: ValueSettings, source: Source) -> None:
    """Says which settings have no effect; presets of models bring some, so they are not refused.

    Args:
        values: The settings of a search.
        source: Where keys and residuals come from in its place.
    """
    usual, idle = compared_fields(ValueSettings()), idle_in_search(source)
    given = {name: value for name, value in compared_fields(values).items() if name in idle}
    other = [f"values.{name}" for name, value in given.items() if value != usual[name]]
    what = "Nothing is searched for with `source`"
    if source.searches:
        what = f"{type(source).__name__} knows no subject that a KL prompt could name"
        other = other if values.kl_factor else []
    if other:
        logger.warning("%s; these settings have no effect: %s.", what, ", ".join(other))
