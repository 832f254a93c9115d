"""The probes of a run with what the model said before it: made once, and kept for all measurements."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lightning_edit.asking.tokenization import without_special
from lightning_edit.collateral.asking import Asking
from lightning_edit.collateral.budget import Budget
from lightning_edit.collateral.from_edits import TRIED, FromEdits, object_in
from lightning_edit.collateral.judging import says
from lightning_edit.collateral.probe import GENERAL, KINDS, OLD_OBJECT, Probe
from lightning_edit.collateral.sources import Sources
from lightning_edit.requests import EditRequest, fact_of
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.stored_requests import StoredRequests


@dataclass(frozen=True)
class Reference:
    """What is asked in a run, and how it was answered before.

    Args:
        probes: With the answers before the run.
        possible: For each kind how many could have been asked.
        made_for: A hash of all that the choice depends on.
    """

    probes: tuple[Probe, ...]
    possible: dict[str, int]
    made_for: str

    def packed(self) -> dict[str, Any]:
        """Texts, numbers, lists and dictionaries only."""
        probes = [probe.packed() for probe in self.probes]
        return {"probes": probes, "possible": dict(self.possible), "made_for": self.made_for}

    @staticmethod
    def unpacked(content: dict[str, Any]) -> "Reference":
        """The reference that `packed` wrote.

        Args:
            content: As read from a checkpoint.
        """
        probes = tuple(Probe.unpacked(probe) for probe in content["probes"])
        return Reference(probes, dict(content["possible"]), content["made_for"])


def mark_of(requests: Sequence[EditRequest], budget: Budget, tokens: int, seed: int) -> str:
    """A hash by which a reference that was kept is known to be the one of a run.

    Args:
        requests: The edits of the run.
        budget: How many prompts are asked.
        tokens: How long the answers are.
        seed: Of what is drawn.
    """
    if isinstance(requests, StoredRequests):
        return fingerprint(str(budget.prompts), str(tokens), str(seed), requests.fingerprint)
    edits = [part for r in requests for part in (r.subject, r.prompt, r.target_new)]
    return fingerprint(str(budget.prompts), str(tokens), str(seed), *edits)


def make_reference(
    requests: Sequence[EditRequest],
    sources: Sources,
    budget: Budget,
    asking: Asking,
    seed: int,
    left_out: Collection[str] = (),
) -> Reference:
    """Chooses the probes of a run and asks the model as it was before it.

    Args:
        requests: The edits.
        sources: What else there is to ask about.
        budget: How many prompts are asked.
        asking: Asks the model.
        seed: Of what is drawn.
        left_out: Prompts that must not judge, as the model was preserved with them.
    """
    shown = partial(without_special, asking.tokenizer)
    makes, most = FromEdits(requests, sources, seed, left_out, shown), budget.of_a_kind
    old = _old_objects(makes.requests[:most], sources, asking)
    made = [*makes.same_subject(), *makes.reworded(), *makes.other_subjects(most)]
    made += makes.old_object(old, TRIED * most)
    general = [Probe(GENERAL, asked.prompt, asked.answers) for asked in sources.general]
    distinct = [probe for probe in _distinct([*made, *general]) if probe.prompt not in left_out]
    probes = [probe for probe in distinct if asking.fits(probe.prompt)]
    possible = {kind: sum(probe.kind == kind for probe in probes) for kind in KINDS}
    own = [probe for kind in KINDS[1:] for probe in _first(probes, kind, 2 * most if kind == OLD_OBJECT else most)]
    answered = [
        probe for probe in _answered(own, asking) if probe.kind != OLD_OBJECT or says(probe.before, probe.answers)
    ]
    own = [probe for kind in KINDS[1:] for probe in _first(answered, kind, most)]
    asked = _answered(_first(probes, GENERAL, budget.prompts - len(own)), asking)
    return Reference((*asked, *own), possible, mark_of(requests, budget, asking.tokens, seed))


def _old_objects(requests: Sequence[EditRequest], sources: Sources, asking: Asking) -> dict[tuple[str, str], str]:
    """What each edit replaces: as the record says, or else as the model does."""
    found = {fact_of(request): request.target_true for request in requests if request.target_true is not None}
    unknown = [request for request in requests if request.target_true is None]
    known = list(dict.fromkeys(fact.answer for fact in sources.facts))
    answers = asking.as_before([request.rewrite_prompt for request in unknown]) if unknown else []
    for request, answer in zip(unknown, answers, strict=True):
        said = object_in(answer, request.rewrite_prompt, known)
        if said is not None and said.casefold() != request.target_new.casefold():
            found[fact_of(request)] = said
    return found


def _distinct(probes: Sequence[Probe]) -> list[Probe]:
    """One probe for each prompt; what an edit itself asks for comes before what may happen to be the same."""
    return list({probe.prompt: probe for probe in reversed(probes)}.values())[::-1]


def _first(probes: Sequence[Probe], kind: str, number: int) -> list[Probe]:
    return [probe for probe in probes if probe.kind == kind][: max(0, number)]


def _answered(probes: Sequence[Probe], asking: Asking) -> list[Probe]:
    if not probes:
        return []
    answers = asking.as_before([probe.prompt for probe in probes], [asking.room(probe) for probe in probes])
    return [replace(probe, before=answer) for probe, answer in zip(probes, answers, strict=True)]
