"""Prompts that a run names to be preserved: neighbors, questions about the old objects, a list of the user's own."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_edit import probes
from lightning_edit.asking.chat import World, chat_of, plain_tokenizer
from lightning_edit.asking.tokenization import Encoded, check_lengths, encode_prompt
from lightning_edit.errors import EditError
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.messages import quoted
from lightning_edit.probes.split import folded
from lightning_edit.requests import EditRequest
from lightning_edit.storage.user.files import check_file, lines_of

NAMED = "`second_moment.preserve`: "
NEIGHBORS, OLD_OBJECTS = "neighbors", "old_objects"
# For each entry of the setting its prompts.
Prompts = Mapping[str, Sequence[str]]


def read_prompts(names: Sequence[str]) -> dict[str, list[str]]:
    """The user's own questions, file by file.

    Args:
        names: See `SecondMomentSettings.preserve`.

    Returns:
        For each name that is a file its lines.

    Raises:
        EditError: If something is named twice, there is no such file, or nothing in it.
    """
    if len(set(names)) < len(names):
        raise EditError(f"{NAMED}each entry must be given once, got {list(names)}.")
    return {name: _lines(name) for name in names if name not in (NEIGHBORS, OLD_OBJECTS)}


def _lines(path: str) -> list[str]:
    try:
        check_file(path, NAMED)
    except EditError as error:
        raise EditError(
            f"{str(error).rstrip('.')}. Each entry is {NEIGHBORS}, {OLD_OBJECTS} or a text file with a question a line."
        ) from error
    lines = list(dict.fromkeys(line.strip() for line, _ in lines_of(path, NAMED)))
    if not lines:
        raise EditError(f"{NAMED}{path} holds no question. Give a file with one a line.")
    return lines


def named_prompts(requests: Sequence[EditRequest], names: Sequence[str], chat: bool) -> dict[str, list[str]]:
    """What is to be preserved beside the rest of C, each prompt once.

    Nothing is asked about an edited subject but what the user lists, and nothing shipped that judges a model (see
    `probes.split`).

    Args:
        requests: The edits.
        names: See `SecondMomentSettings.preserve`.
        chat: Whether the prompts are asked in a chat, where no sentence is left to be completed.

    Returns:
        For each name its prompts.

    Raises:
        EditError: See `read_prompts`; if a name stands for no prompt, or the user's list asks what an edit changes.
    """
    own, edited = read_prompts(names), probes.EditedSubjects(request.subject for request in requests)
    for path, lines in own.items():
        _check_own(requests, path, lines)
    judging = {folded(prompt.prompt) for prompt in probes.judging_prompts()} if OLD_OBJECTS in names else set()
    found, seen = dict[str, list[str]](), set[str]()
    for name in names:
        if name in own:
            prompts = own[name]
        else:
            every = _neighbors(requests) if name == NEIGHBORS else _about_old_objects(requests, chat)
            skipped = judging if name == OLD_OBJECTS else set()
            prompts = [p for p in dict.fromkeys(every) if not edited.named_in(p) and folded(p) not in skipped]
        if not prompts:
            raise EditError(NAMED + WITHOUT[name])
        found[name] = [prompt for prompt in prompts if prompt not in seen]
        seen |= set(prompts)
    return found


WITHOUT = {
    NEIGHBORS: "no edit has `neighborhood_prompts` about subjects that are not edited. Leave `neighbors` out.",
    OLD_OBJECTS: "nothing shipped asks for or about an old object (`target_true`) of the edits. Leave `old_objects` "
    "out, or give your own questions in a file.",
}


def _check_own(requests: Sequence[EditRequest], path: str, lines: Sequence[str]) -> None:
    """Refuses to preserve the very prompts that are edited."""
    asked = {folded(prompt): r for r in requests for prompt in (r.rewrite_prompt, *r.paraphrase_prompts)}
    for line in lines:
        if (request := asked.get(folded(line))) is not None:
            raise EditError(f"{NAMED}{path} lists {quoted(line)}, which {request.name} edits. Remove this line.")


def _neighbors(requests: Sequence[EditRequest]) -> Iterator[str]:
    return (prompt for request in requests for prompt in request.neighborhood_prompts)


def _about_old_objects(requests: Sequence[EditRequest], chat: bool) -> Iterator[str]:
    """Public facts with an old object as their answer, and what is asked about it as a subject."""
    old = {folded(request.target_true) for request in requests if request.target_true is not None}
    for fact in probes.facts():
        if folded(fact.answer) in old and not probes.judges(fact.subject):
            wordings = (*([] if chat else [fact.prompt]), fact.question, *fact.rewordings)
            yield from (probes.filled(wording, fact.subject) for wording in probes.preserving(wordings))
    wordings_of = probes.wordings()
    for kind, subjects in probes.subjects().items():
        for subject in probes.preserving(subjects):
            if folded(subject) in old:
                yield from (probes.filled(wording, subject) for wording in probes.preserving(wordings_of[kind]))


def prompts_of_worlds(
    requests: Sequence[EditRequest], names: Sequence[str], tokenizer: Any, worlds: Sequence[World]
) -> dict[World, Prompts]:
    """The named prompts of a run, as they are asked in each world in which edits are to hold.

    Args:
        requests: The edits.
        names: See `SecondMomentSettings.preserve`.
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        worlds: See `ContextTemplates`.

    Raises:
        EditError: See `named_prompts`.
    """
    found: dict[World, Prompts] = {}
    for world in worlds if names else ():
        chat = world == "chat" and chat_of(tokenizer) is not None
        own = [request if world == "chat" else request.original or request for request in requests]
        found[world] = named_prompts(own, names, chat)
    return found


def encode_named(prompts: Mapping[World, Prompts], tokenizer: Any, context: int | None) -> list[list[Encoded]]:
    """Groups of prompts for `with_questions`, one for each world.

    Args:
        prompts: See `prompts_of_worlds`.
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        context: The model's context in tokens, None where it has no fixed one.

    Raises:
        EditError: If a prompt does not fit the context.
    """
    groups = []
    for world, named in prompts.items():
        texts = [prompt for of_name in named.values() for prompt in of_name]
        tokens = tokenizer if world == "chat" else plain_tokenizer(tokenizer)
        rows = [encode_prompt(tokens, text) for text in texts]
        check_lengths([len(row) for row in rows], [f"{NAMED}the prompt {quoted(text)}" for text in texts], context)
        groups.append([Encoded(tuple(row), -1, len(row)) for row in rows])
    return groups


def named_groups(
    requests: Sequence[EditRequest],
    settings: SecondMomentSettings,
    tokenizer: Any,
    worlds: Sequence[World],
    context: int | None,
) -> list[list[Encoded]]:
    """The named prompts of settings, encoded; none where they count nothing.

    Args:
        requests: The edits.
        settings: What is preserved.
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        worlds: See `ContextTemplates`.
        context: See `encode_named`.

    Raises:
        EditError: See `prompts_of_worlds` and `encode_named`.
    """
    names = settings.preserve if settings.preserve_weight else []
    return encode_named(prompts_of_worlds(requests, names, tokenizer, worlds), tokenizer, context)


def said_of(prompts: Mapping[World, Prompts], weight: float) -> str:
    """One line about what is preserved.

    Args:
        prompts: See `prompts_of_worlds`.
        weight: How much it counts, see `SecondMomentSettings.preserve_weight`.
    """
    counts = {name: len(of_name) for named in prompts.values() for name, of_name in named.items()}
    line = f"preserved beside C, with weight {weight:g}: " + ", ".join(f"{n} {name}" for name, n in counts.items())
    held = "; the neighborhood figures are of prompts that were preserved, not of held-out ones" * (NEIGHBORS in counts)
    return f"{line} (prompts){held}."
