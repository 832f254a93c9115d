"""Probes made from the edits themselves, so that nobody has to write any."""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from lightning_edit.collateral.judging import says
from lightning_edit.collateral.probe import OLD_OBJECT, OTHER_SUBJECTS, REWORDED, SAME_SUBJECT, Probe
from lightning_edit.collateral.sources import Sources, in_turn
from lightning_edit.probes import EditedSubjects, PublicFact, filled, folded, judging
from lightning_edit.requests import EditRequest, fact_of
from lightning_edit.stored_requests import IN_MEMORY

# For a subject of any kind.
ABOUT = ("Tell me about {}.", "What is {} known for?", "Write one sentence about {}.")
# For an edit that brings no other wordings: the prompt, with something before it.
FREELY = ("Please complete this: {}", "I would like to know: {}", "Quick question: {}")
WORDINGS = 3
# Where the old object of an edit is asked for, so many prompts are tried, as not all are answered with it.
TRIED = 4
# Of very many edits so many, drawn at random, are asked about.
ENOUGH = 2_000


class FromEdits:
    """Makes probes, those of all edits in turn, so that a few probes already come from many edits.

    Args:
        requests: The edits; of very many only some are asked about.
        sources: What else there is to ask about.
        seed: Of the order of the edits and the choice of other subjects.
        left_out: Prompts that must not judge, as the model was preserved with them.
        shown: What a target looks like in what a model writes, which has no special tokens.
    """

    def __init__(
        self,
        requests: Sequence[EditRequest],
        sources: Sources,
        seed: int,
        left_out: Collection[str] = (),
        shown: Callable[[str], str] = str,
    ) -> None:
        order = list(range(len(requests)))
        random.Random(seed).shuffle(order)
        # What is made of more is never asked.
        most = len(order) if len(order) <= IN_MEMORY else ENOUGH
        self.requests, self.sources, self.seed = [requests[place] for place in order[:most]], sources, seed
        self._left_out, self._shown = frozenset(left_out), shown
        self._edited = EditedSubjects(request.subject for request in requests)
        self._by_answer: dict[str, list[PublicFact]] = {}
        self._by_wording: dict[str, PublicFact] = {}
        for fact in sources.facts:
            self._by_answer.setdefault(folded(fact.answer), []).append(fact)
            for wording in (fact.prompt, fact.question):
                self._by_wording.setdefault(folded(wording), fact)

    def same_subject(self) -> list[Probe]:
        """What else the model says of the edited subjects."""
        subjects = dict.fromkeys(request.subject for request in self.requests if request.subject)
        return [
            Probe(SAME_SUBJECT, filled(wording, subject), edit=subject) for wording in ABOUT for subject in subjects
        ]

    def reworded(self) -> list[Probe]:
        """Each edit asked freely in three wordings: those of the record, of a public fact like it, and general ones."""
        return in_turn([list(self._reworded(request)) for request in self.requests])

    def _reworded(self, request: EditRequest) -> Iterator[Probe]:
        asked = folded(request.prompt)
        like = self._by_wording.get(asked)
        wordings = () if like is None else (like.question, *like.rewordings)
        others = [filled(wording, request.subject) for wording in wordings if folded(wording) != asked]
        general = [wording.replace("{}", request.rewrite_prompt) for wording in FREELY]
        for prompt in list(dict.fromkeys([*request.paraphrase_prompts, *others, *general]))[:WORDINGS]:
            lead_in = request.lead_ins.get(prompt, request.lead_ins.get(request.rewrite_prompt, ""))
            yield Probe(REWORDED, prompt, (self._shown(request.target_new),), edit=request.name, lead_in=lead_in)

    def other_subjects(self, number: int) -> list[Probe]:
        """The wordings of the edits with subjects that are not edited, of the same kind where it is known.

        Args:
            number: How many.
        """
        chosen, found = random.Random(self.seed), dict[str, Probe]()
        pools = {kind: self._unedited(those) for kind, those in self.sources.subjects.items()}
        pools = {kind: those for kind, those in pools.items() if those}
        # Other subjects may be drawn twice, and in the end there are no more.
        for _ in range(4 * (1 + number // max(1, len(self.requests)))):
            for request in (one for one in self.requests if one.subject):
                if len(found) >= number or not pools:
                    return list(found.values())
                kind = self._kind(request)
                pool = pools.get(kind or "") or pools[chosen.choice(sorted(pools))]
                prompt = filled(request.prompt, chosen.choice(pool))
                unwanted = self._shown(request.target_new)
                probe = Probe(OTHER_SUBJECTS, prompt, unwanted=unwanted, edit=request.name)
                found.setdefault(prompt, probe)
        return list(found.values())

    def _kind(self, request: EditRequest) -> str | None:
        """The kind of an edit's subject: as listed, or that of the subjects of which such facts are known."""
        like = self._by_wording.get(folded(request.prompt))
        known = self.sources.kind_of(request.subject)
        return self.sources.kind_of(like.subject) if known is None and like is not None else known

    def _unedited(self, subjects: Sequence[str]) -> list[str]:
        return [subject for subject in subjects if folded(subject) not in self._edited.folded]

    def old_object(self, old_objects: Mapping[tuple[str, str], str], number: int) -> list[Probe]:
        """Prompts that the model may answer with the old object of an edit; those that it does are to be kept.

        Neighbors of the record come first, then public facts with that answer, in the wording of the edit and in
        wordings of their own.

        Args:
            old_objects: For each edit (see `fact_of`) what the model answered before, where that is known.
            number: How many.
        """
        groups = []
        for request in self.requests:
            old = old_objects.get(fact_of(request))
            if old is not None:
                prompts = [prompt for prompt in self._about(request, old) if self._may_judge(prompt)]
                probes = [Probe(OLD_OBJECT, prompt, (old,), edit=request.name) for prompt in prompts[:TRIED]]
                groups.append(probes)
        return list({probe.prompt: probe for probe in in_turn(groups)}.values())[:number]

    def _about(self, request: EditRequest, old: str) -> list[str]:
        facts = [f for f in self._by_answer.get(folded(old), ()) if folded(f.subject) not in self._edited.folded]
        own = [filled(w, f.subject) for f in facts for w in judging((f.question, f.prompt, *f.rewordings))]
        alike = [filled(request.prompt, fact.subject) for fact in facts if self._alike(request, fact)]
        return list(dict.fromkeys(in_turn([list(request.neighborhood_prompts), [*alike, *own]])))

    def _alike(self, request: EditRequest, fact: PublicFact) -> bool:
        """Whether the prompt of an edit may well ask for a fact: both are of subjects of one kind."""
        kind = self.sources.kind_of(fact.subject)
        if not request.subject:
            return False
        return kind is None or self._kind(request) in (None, kind)

    def _may_judge(self, prompt: str) -> bool:
        return prompt not in self._left_out and not self._edited.named_in(prompt)


def object_in(answer: str, prompt: str, known: Sequence[str]) -> str | None:
    """The object that an answer gives: the first known one in it, or else its first words, if these are few.

    Args:
        answer: What the model wrote.
        prompt: After which prompt; what stands in it is no answer.
        known: Objects of public facts.
    """
    said = answer.casefold()
    places = [(said.find(k.casefold()), -len(k), k) for k in known if k.casefold() in said]
    found = [k for _, _, k in sorted(places) if k.casefold() not in prompt.casefold() and says(answer, [k])]
    if found:
        return found[0]
    head = answer.strip().splitlines()[0] if answer.strip() else ""
    for mark in ".,;:!?(":
        head = head.partition(mark)[0].strip()
    return head if 0 < len(head.split()) <= 4 and head.casefold() not in prompt.casefold() else None
