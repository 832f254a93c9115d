"""The facts that are traced, as tokens, and which of them a model knows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import torch

from lightning_edit import probes
from lightning_edit.asking.tokenization import Encoded, check_lengths, encode_subject
from lightning_edit.characters import fault_of
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.metrics.token_scores import score_targets
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen, logits_at
from lightning_edit.progress import Report, silent


@dataclass(frozen=True)
class Fact:
    """A fact to trace.

    Args:
        subject: What takes the place of ``{}``.
        prompt: A text with exactly one ``{}`` that the answer follows.
        answer: The answer, without a leading space; None for the model's own next token.

    Raises:
        EditError: If a text is empty, or the prompt has not exactly one ``{}``.
    """

    subject: str
    prompt: str
    answer: str | None = None

    def __post_init__(self) -> None:
        for name in ("subject", "prompt", "answer"):
            value = getattr(self, name)
            if value is None and name == "answer":
                continue
            if not isinstance(value, str) or not value.strip():
                raise EditError(f"A fact to trace: `{name}` must be a text that is not empty, got {quoted(value)}.")
            if fault := fault_of(value):
                raise EditError(f"A fact to trace: `{name}` {fault}.")
        if self.prompt.count("{}") != 1:
            raise EditError(
                f"A fact to trace: the prompt must hold exactly one {{}} where the subject goes, got "
                f"{quoted(self.prompt)}."
            )

    @property
    def text(self) -> str:
        """The prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)


def public_facts(chat: bool = False) -> list[Fact]:
    """The shipped facts, of all relations in turns.

    Args:
        chat: Whether they are asked as questions.
    """
    relations: dict[str, list[Fact]] = {}
    for fact in probes.facts():
        relations.setdefault(fact.relation, []).append(
            Fact(fact.subject, fact.question if chat else fact.prompt, fact.answer)
        )
    in_turns = chain.from_iterable(zip_longest(*relations.values()))
    return [fact for fact in in_turns if fact is not None]


def encode_fact(decoder: Decoder, tokenizer: Any, fact: Fact) -> Encoded:
    """The tokens of a fact with its answer, which is the model's likeliest next token where none is given.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        fact: The fact.

    Raises:
        EditError: If the text does not fit the model's context.
    """
    text = encode_subject(tokenizer, fact.prompt, fact.subject, fact.answer)
    read = len(text.ids) - 1 if text.target_start < len(text.ids) else len(text.ids)
    check_lengths([read], [f"The prompt {quoted(fact.text)}"], decoder.context)
    if text.target_start < len(text.ids):
        return text
    return replace(text, ids=(*text.ids, _next_token(decoder, text.ids)))


@torch.no_grad()
def _next_token(decoder: Decoder, ids: Sequence[int]) -> int:
    last = torch.tensor([len(ids) - 1])
    with frozen(decoder.model), logits_at(decoder.head, torch.zeros_like(last), last):
        return int(decoder.model(**pad([ids], decoder.device).inputs()).logits[0, 0].argmax())


def known_facts(
    decoder: Decoder, tokenizer: Any, facts: Sequence[Fact], report: Report = silent
) -> tuple[list[Fact], int]:
    """The facts whose answer the model gives by itself, each of its tokens being the likeliest.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        facts: Facts with answers.
        report: Called with the number of tokens that the model has read.

    Returns:
        Those facts, and how many others there are.

    Raises:
        EditError: If a text does not fit the model's context.
    """
    pairs = [(fact.text, fact.answer or "") for fact in facts]
    correct = score_targets(decoder, tokenizer, pairs, report, "which facts are known (tokens)").correct.tolist()
    known = [fact for fact, right in zip(facts, correct, strict=True) if right]
    return known, len(facts) - len(known)
