"""What a tuning works with: edits to make, and questions whose answers should stay what they are."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_edit.asking.generation import generate
from lightning_edit.collateral.judging import says
from lightning_edit.collateral.probe import OLD_OBJECT, OTHER_SUBJECTS, Probe
from lightning_edit.errors import EditError
from lightning_edit.messages import counted
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest

PARAPHRASES = 2
# For each edit so many of each kind of question, as far as there are any.
OF_EACH_KIND, MOST_GENERAL = 2, 48
FEWEST = 4


@dataclass(frozen=True)
class Material:
    """Edits, and what should survive them.

    Args:
        requests: The edits, of different subjects.
        kept: Probes that the unedited model answers rightly, with what it says; of each kind the first ones belong to
            the first edits.
    """

    requests: tuple[EditRequest, ...]
    kept: tuple[Probe, ...] = ()

    def first(self, edits: int) -> "Material":
        """The first edits, with their share of each kind of question.

        Args:
            edits: How many.
        """
        kinds = dict.fromkeys(question.kind for question in self.kept)
        chosen: list[Probe] = []
        for kind in kinds:
            of_kind = [question for question in self.kept if question.kind == kind]
            chosen += of_kind[: max(1, round(len(of_kind) * edits / len(self.requests)))]
        return Material(self.requests[:edits], tuple(chosen))


def from_requests(requests: Sequence[EditRequest], edits: int, seed: int) -> Material:
    """The material in a user's records: some are edited, the others and their neighbors should stay as they are.

    Args:
        requests: The records.
        edits: At most so many are edited; at least a fifth of the records is left for what should stay.
        seed: Which.

    Returns:
        The material; whether the model gives the answers that should stay is still to be asked.

    Raises:
        EditError: If there are too few records.
    """
    order = list({request.subject: request for request in requests}.values())
    random.Random(seed).shuffle(order)
    if len(order) < FEWEST:
        raise EditError(
            f"Tuning needs edits of at least {FEWEST} different subjects, got {counted(len(order), 'subject')}. Leave "
            "out `--data` to tune with public facts."
        )
    count = min(edits, len(order) * 4 // 5)
    others = order[count:]
    edited = [
        replace(request, paraphrase_prompts=request.paraphrase_prompts[:PARAPHRASES]) for request in order[:count]
    ]
    wordings = {request.prompt for request in edited}
    # Those in the wording of an edit first.
    others.sort(key=lambda request: request.prompt not in wordings)
    new = {request.prompt: request.target_new for request in edited}
    same = [
        Probe(OTHER_SUBJECTS, r.rewrite_prompt, (r.target_true,), new.get(r.prompt, ""))
        for r in others
        if r.target_true is not None
    ]
    near = [
        Probe(OLD_OBJECT, prompt, (request.target_true,), edit=request.name)
        for request in edited
        for prompt in request.neighborhood_prompts[:OF_EACH_KIND]
        if request.target_true is not None
    ]
    return Material(tuple(edited), (*same[: OF_EACH_KIND * len(edited)], *near))


def answered(
    decoder: Decoder,
    tokenizer: Any,
    questions: Sequence[Probe],
    tokens: int,
    report: Report = silent,
) -> list[Probe]:
    """The questions that the model answers rightly, with what it says.

    Args:
        decoder: The unedited model.
        tokenizer: Its fast tokenizer.
        questions: With their answers.
        tokens: How many it may write.
        report: Called with the number of questions.
    """

    def show(stage: str, done: float, total: float, **figures: float) -> None:
        report("ask the unedited model (prompts)", done, total, **figures)

    replies = generate(decoder, tokenizer, [question.prompt for question in questions], tokens, report=show)
    return [
        replace(question, before=reply)
        for question, reply in zip(questions, replies, strict=True)
        if says(reply, question.answers)
    ]
