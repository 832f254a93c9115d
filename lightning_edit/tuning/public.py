"""Public facts as the material of a tuning, where the user brings none: those that the model knows."""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Any

from lightning_edit.asking.chat import chat_of
from lightning_edit.asking.questions import as_question
from lightning_edit.collateral.probe import GENERAL, OLD_OBJECT, OTHER_SUBJECTS, REWORDED, Probe
from lightning_edit.errors import EditError
from lightning_edit.messages import counted
from lightning_edit.models.decoder import Decoder
from lightning_edit.probes import (
    PublicFact,
    facts,
    filled,
    folded,
    judges,
    judging_prompts,
    other_answer,
)
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.tuning.material import FEWEST, MOST_GENERAL, OF_EACH_KIND, PARAPHRASES, Material, answered

ASKED_AT_ONCE = 128


def general_questions(decoder: Decoder, tokenizer: Any, tokens: int, seed: int, report: Report = silent) -> list[Probe]:
    """General prompts of the judging half that the model answers rightly, at most `MOST_GENERAL`.

    Args:
        decoder: The unedited model.
        tokenizer: Its fast tokenizer.
        tokens: How many it may write.
        seed: Which.
        report: Called with the number of prompts.
    """
    questions = [Probe(GENERAL, prompt.prompt, prompt.answers) for prompt in judging_prompts() if prompt.answers]
    random.Random(seed).shuffle(questions)
    known: list[Probe] = []
    for start in range(0, len(questions), ASKED_AT_ONCE):
        if len(known) < MOST_GENERAL:
            known += answered(decoder, tokenizer, questions[start : start + ASKED_AT_ONCE], tokens, report)
    return known[:MOST_GENERAL]


def from_public_facts(
    decoder: Decoder,
    tokenizer: Any,
    edits: int,
    seed: int,
    tokens: int,
    general: Sequence[Probe] = (),
    report: Report = silent,
) -> Material:
    """Edits of public facts that the model knows, the new answer being that to another subject.

    Args:
        decoder: The unedited model.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`: in a chat it is asked questions, not given sentences.
        edits: How many.
        seed: Which, and to what.
        tokens: How many tokens the model may write.
        general: General questions, which are asked as well.
        report: Called with the number of questions.

    Raises:
        EditError: If the model knows too few.
    """
    chat = chat_of(tokenizer) is not None
    known = _known(decoder, tokenizer, edits, seed, tokens, chat, report)
    if len(known) < FEWEST:
        raise EditError(
            f"The model answers only {counted(len(known), 'public fact')}, too few to tune with. Give `--data` with "
            "facts that it knows."
        )
    count = min(edits, len(known) * 4 // 5)
    # Those of the half that judges are kept for that as far as possible.
    in_order = sorted(known, key=lambda entry: judges(entry[0].subject))
    edited = [fact for fact, _ in in_order[:count]]
    new, old = {fact.relation: other_answer(fact, seed) for fact in edited}, {folded(fact.answer) for fact in edited}
    others = sorted(in_order[count:], key=lambda entry: entry[0].relation not in new)
    kept = [_kept(fact, probe, new, old) for fact, probe in others[: OF_EACH_KIND * count]]
    requests = _requests(decoder, tokenizer, edited, seed, tokens, chat, report)
    return Material(tuple(requests), (*kept, *general))


def _kept(fact: PublicFact, probe: Probe, new: Mapping[str, str], old: Collection[str]) -> Probe:
    """A known fact as a probe: of an old object of the edits, or of another subject in the wording of an edit.

    Args:
        fact: The fact.
        probe: What asks for it.
        new: For each edited relation a new answer.
        old: The old answers, folded.
    """
    if folded(fact.answer) in old:
        return replace(probe, kind=OLD_OBJECT)
    return replace(probe, unwanted=new.get(fact.relation, ""))


def _known(
    decoder: Decoder, tokenizer: Any, edits: int, seed: int, tokens: int, chat: bool, report: Report
) -> list[tuple[PublicFact, Probe]]:
    """As many as are wanted, of all relations in turns, each subject once, with what the model says."""
    wanted, known, subjects = edits * (1 + OF_EACH_KIND), list[tuple[PublicFact, Probe]](), set[str]()
    in_turns = list(_in_turns(facts(), seed))
    for start in range(0, len(in_turns), ASKED_AT_ONCE):
        part = in_turns[start : start + ASKED_AT_ONCE]
        questions = [
            Probe(OTHER_SUBJECTS, _asked(fact, chat), (fact.answer,), edit=str(i)) for i, fact in enumerate(part)
        ]
        for question in answered(decoder, tokenizer, questions, tokens, report):
            fact = part[int(question.edit)]
            if folded(fact.subject) not in subjects:
                subjects.add(folded(fact.subject))
                known.append((fact, replace(question, edit="")))
        if len(known) >= wanted:
            break
    return known


def _in_turns(everything: Sequence[PublicFact], seed: int) -> Iterator[PublicFact]:
    """One of each relation after the other, as far as a wrong answer can be given for it."""
    order, relations = list(everything), dict[str, list[PublicFact]]()
    random.Random(seed).shuffle(order)
    for fact in order:
        relations.setdefault(fact.relation, []).append(fact)
    several = [those for _, those in sorted(relations.items()) if len({folded(fact.answer) for fact in those}) > 1]
    return (fact for fact in chain.from_iterable(zip_longest(*several)) if fact is not None)


def _requests(
    decoder: Decoder, tokenizer: Any, edited: Sequence[PublicFact], seed: int, tokens: int, chat: bool, report: Report
) -> list[EditRequest]:
    """The edits, with those other wordings in which the unedited model gives the old answer."""
    # What asks in a form that the model does not take says nothing of the edit.
    wordings = [
        Probe(REWORDED, filled(wording, fact.subject), (fact.answer,), edit=str(i))
        for i, fact in enumerate(edited)
        for wording in sorted(fact.rewordings, key=lambda wording: not judges(wording))
    ]
    paraphrases: dict[int, list[str]] = {}
    for wording in answered(decoder, tokenizer, wordings, tokens, report):
        paraphrases.setdefault(int(wording.edit), []).append(wording.prompt)
    requests = []
    for i, fact in enumerate(edited):
        others = tuple(paraphrases.get(i, ())[:PARAPHRASES])
        asked = {"question": fact.question, "paraphrase_questions": others} if chat else {"paraphrase_prompts": others}
        request = EditRequest(fact.subject, fact.prompt, other_answer(fact, seed), fact.answer, **asked)
        requests.append(as_question(request) if chat else request)
    return requests


def _asked(fact: PublicFact, chat: bool) -> str:
    return filled(fact.question if chat else fact.prompt, fact.subject)
