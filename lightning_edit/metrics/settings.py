"""What is measured beyond teacher-forced answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_edit.asking.chat import World
from lightning_edit.asking.tokenization import check_lengths, encode_prompt
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.metrics.judging.settings import JudgeSettings
from lightning_edit.metrics.wild.settings import WildSettings
from lightning_edit.requests import EditRequest
from lightning_edit.settings import NO_EFFECT, Compared, Count, CountOrZero, Seed, Settings
from lightning_edit.stored_requests import filled, longer_than


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """What is measured beyond teacher-forced answers, which cost least and are always measured.

    Raises:
        EditError: If a value is out of its range, or `worlds` leaves out the chat.
    """

    section: ClassVar[str] = "evaluation"
    compared: ClassVar[Compared] = NO_EFFECT

    generate: bool = False
    """Whether to generate texts from the generation prompts and measure their entropy, reference and essence scores."""

    max_length: Count = 100
    """Tokens of a generated text with its prompt, and of the essence texts that are read (100 in ROME's code).

    Fewer where the context ends.
    """

    texts_per_prompt: Count = 1
    """Texts written after each generation prompt."""

    top_k: Count = 5
    """Each token is sampled from this many most likely ones (5 in ROME's code)."""

    generated_match: bool = True
    """Whether to search for the new target in greedy continuations of the rewrite prompt and of paraphrases."""

    match_tokens: Count = 20
    """Tokens of these continuations; fewer where the context ends."""

    match_paraphrases: CountOrZero = 2
    """So many of a record's paraphrases are continued, the first ones (CounterFact has two)."""

    ripples: bool = True
    """Whether to ask what follows from edits, where records bring tests of it."""

    ripple_tokens: Count = 30
    """Tokens of a reply in these tests (30 in RippleEdits' code); as many as a long answer has, fewer where the context
    ends.
    """

    seed: Seed = 0
    """Seed of the generated texts, which do not depend on the batches."""

    worlds: list[World] | None = None
    """Where the edits of a chat model are measured, ``chat`` being one of them; null for [chat, plain].

    By their prompts in ``plain`` text they are measured as well, by teacher forcing alone. A plain run has one world.
    """

    systems: list[str] | None = None
    """System prompts of a chat under which efficacy is measured as well; null for none."""

    wild: bool = False
    """Whether edits are also judged as people judge: free answers that end by themselves, right or wrong.

    It takes about as long as all that is measured otherwise.
    """

    wild_settings: WildSettings = WildSettings()  # noqa: RUF009  (frozen)
    """How these answers are asked for."""

    judge: JudgeSettings = JudgeSettings()  # noqa: RUF009  (frozen)
    """A model that marks them, beside exact match."""

    def __post_init__(self) -> None:
        super().__post_init__()
        worlds = self.worlds
        if worlds is not None and ("chat" not in worlds or len(set(worlds)) < len(worlds)):
            raise EditError(
                f"`evaluation.worlds` must name chat, or chat and plain, got {list(worlds)}. `model.chat: false` "
                "asks in plain text alone."
            )
        if self.judge.model is not None and not self.wild:
            raise EditError("`evaluation.judge` marks the answers of `evaluation.wild`: set that to true too.")


# A tokenizer makes no more tokens than there are bytes, but for one or two at the start.
FEW = 3
# What costs least, for measurements in the middle of a run.
TEACHER_FORCED = EvaluationSettings(generated_match=False)


def check_evaluation(
    settings: EvaluationSettings, requests: Sequence[EditRequest], tokenizer: Any, context: int | None
) -> None:
    """Refuses an evaluation that could not be made, before anything is edited.

    Args:
        settings: What is to be measured.
        requests: The records.
        tokenizer: The model's fast tokenizer.
        context: The model's context in tokens, None where it has no fixed one.

    Raises:
        EditError: See `check_records`; and if one of the prompts of a record leaves no room for what is to follow.
    """
    check_records(settings, requests)
    if settings.generate:
        limit = settings.max_length if context is None else min(settings.max_length, context)
        unit = "context" if limit == context else "text (`evaluation.max_length`)"
        for request in longer_than(requests, limit - FEW):
            for prompt in request.generation_prompts:
                _check(tokenizer, prompt, request, "generation prompt", limit, unit)
    if settings.generated_match and context is not None:
        for request in longer_than(requests, context - FEW):
            _check(tokenizer, request.rewrite_prompt, request, "rewrite prompt", context, "context")
            for prompt in matched_paraphrases(request, settings):
                _check(tokenizer, prompt, request, "paraphrase", context, "context")


def check_records(settings: EvaluationSettings, requests: Sequence[EditRequest]) -> None:
    """Refuses records that lack what is to be measured, which needs no model.

    Args:
        settings: What is to be measured.
        requests: The records.

    Raises:
        EditError: If texts are to be generated and no record has a prompt for them.
    """
    if settings.generate and requests and not filled(requests, "generation_prompts"):
        raise EditError(
            "`evaluation.generate` is set, but no record has generation prompts, the first "
            f"({requests[0].name}) neither. Set it to false, or give records with `generation_prompts`."
        )


def matched_paraphrases(request: EditRequest, settings: EvaluationSettings) -> tuple[str, ...]:
    """The paraphrases of a record whose greedy continuations are searched for the new target.

    Args:
        request: The record.
        settings: What is measured.
    """
    return request.paraphrase_prompts[: settings.match_paraphrases] if settings.generated_match else ()


def _check(tokenizer: Any, prompt: str, request: EditRequest, kind: str, limit: int, unit: str) -> None:
    if len(prompt.encode()) + FEW - 1 < limit:
        return
    length = len(encode_prompt(tokenizer, prompt))
    if unit == "context" and length > limit and not kind.startswith("generation"):
        # Not even the likelihood of an answer could be asked for.
        check_lengths([length], [f"{request.name}: the {kind} {quoted(prompt)}"], limit)
    if length >= limit:
        raise EditError(
            f"{request.name}: the {kind} {quoted(prompt)} has {counted(length, 'token')}, which leaves nothing to "
            f"generate of a {unit} of {limit}. Shorten it{'' if unit == 'context' else ' or raise the setting'}, or "
            f"switch `evaluation.{'generate' if kind.startswith('generation') else 'generated_match'}` off."
        )
