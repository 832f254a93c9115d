"""The questions of a run whose keys are preserved: as the edits ask, and as users ask, about what is not edited."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from lightning_edit import probes
from lightning_edit.asking.chat import World, chat_of, plain_tokenizer
from lightning_edit.asking.tokenization import Encoded, encode_prompt, encode_subject
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.requests import EditRequest
from lightning_edit.storage.user.files import lines_of

NAMED = "`second_moment.subjects`: "
GENERAL = 0.1


def read_subjects(path: str | None) -> list[str]:
    """The subjects that an edit's own wording is asked about.

    Args:
        path: A text file with a subject a line; None for the shipped ones that do not judge.

    Raises:
        EditError: If there is no such file or nothing in it.
    """
    if path is None:
        return [subject for kind in probes.subjects().values() for subject in probes.preserving(kind)]
    subjects = list(dict.fromkeys(line.strip() for line, _ in lines_of(path, NAMED) if line.strip()))
    if not subjects:
        raise EditError(f"{NAMED}{path} names no subject. Give a file with one a line.")
    return subjects


def preserving_questions(
    requests: Sequence[EditRequest],
    tokenizer: Any,
    templates: ContextTemplates,
    settings: SecondMomentSettings,
    seed: int,
) -> list[list[Encoded]]:
    """The questions with which C is mixed, as the settings say: see `run_questions`.

    Args:
        requests: The edits.
        tokenizer: A fast transformers tokenizer, or a `ChatTokenizer` where the model is asked in a chat.
        templates: Their worlds are those in which edits are to hold.
        settings: How many questions, and how much of C they are.
        seed: Of what is drawn.

    Returns:
        Those of each world; nothing where C is of ordinary text alone.

    Raises:
        EditError: See `read_subjects` and `run_questions`.
    """
    if not settings.share_of_questions(chat_of(tokenizer) is not None):
        return []
    subjects = read_subjects(settings.subjects)
    return run_questions(requests, tokenizer, templates.worlds, settings.questions, seed, subjects)


def run_questions(
    requests: Sequence[EditRequest],
    tokenizer: Any,
    worlds: Sequence[World],
    number: int,
    seed: int,
    subjects: Sequence[str],
) -> list[list[Encoded]]:
    """Questions for each world in which edits are to hold.

    Of each world's questions a tenth are general prompts, and half of the others have the wordings of the edits
    themselves; no subject of an edit is asked about, and nothing that judges a model (see `probes.split`).

    Args:
        requests: The edits.
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        worlds: See `ContextTemplates`.
        number: How many questions for each world.
        seed: Of what is drawn.
        subjects: What the edits' own wordings are asked about.

    Raises:
        EditError: If all subjects are edited, or there are not so many questions.
    """
    requests = [request for request in requests if request.subject]
    edited = probes.EditedSubjects(request.subject for request in requests)
    others = [subject for subject in subjects if not edited.named_in(subject)]
    if not others:
        raise EditError(f"{NAMED}all {len(subjects)} subjects are edited. Name others.")
    prompts = (prompt.prompt for prompt in probes.preserving_prompts())
    general = [prompt for prompt in prompts if not edited.named_in(prompt)][: int(GENERAL * number)]
    own = (number - len(general)) // 2
    pairs = probes.asked_about(number - len(general) - own, seed, left_out=edited.folded)
    pairs = [pair for pair in pairs if not edited.named_in(pair[1])]
    own = number - len(general) - len(pairs)
    groups = []
    for world in worlds:
        tokens = tokenizer if world == "chat" else plain_tokenizer(tokenizer)
        drawn, found = random.Random(seed), list(pairs)
        for wording in itertools.islice(itertools.cycle(_wordings(requests, world)), own):
            found.append((wording, probes.as_it_stands(wording, drawn.choice(others))))
        ids = [encode_prompt(tokens, prompt) for prompt in general]
        groups.append(
            [encode_subject(tokens, *pair) for pair in found] + [Encoded(tuple(row), -1, len(row)) for row in ids]
        )
    return groups


def _wordings(requests: Sequence[EditRequest], world: World) -> list[str]:
    """The edits' own prompts, each once, in a world."""
    asked = (r if world == "chat" or r.original is None else r.original for r in requests)
    return list(dict.fromkeys(request.prompt for request in asked))
