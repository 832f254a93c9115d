"""Texts put before a prompt, so that keys and values hold in any context and not only at the start of a text."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from lightning_edit.asking.chat import ChatSettings, World, plain_tokenizer
from lightning_edit.asking.generation_settings import end_tokens, plain_settings
from lightning_edit.asking.tokenization import Encoded, encode, encode_subject, encode_target, separator_of
from lightning_edit.characters import fault_of
from lightning_edit.errors import EditError
from lightning_edit.models.batches import without_mask_warning
from lightning_edit.models.hooks import frozen
from lightning_edit.models.seeded import seeded
from lightning_edit.requests import EditRequest
from lightning_edit.stored_requests import longer_than

OPENINGS = ("The", "Therefore", "Because", "I", "You")
GENERATED_TOKENS = 10
# Tokens that a tokenizer may add to those of a text.
MARGIN = 4


@dataclass(frozen=True)
class ContextTemplates:
    """The bare prompt and its prefixed forms.

    Args:
        texts: Each with exactly one ``{}`` where the prompt goes; the first is the bare ``"{}"``.
        average: How keys are averaged over the texts: ``nested`` gives the bare prompt one half and the others together
            the other (MEMIT and EMMET's code), ``flat`` gives all the same (ROME's).
        worlds: Where an edit is to hold, each with all of the texts: ``chat`` puts the prompt into a user turn, where
            the tokenizer goes with a chat; ``plain`` takes the prompt in plain text that the question was made from.
        train_end: Whether the end of the assistant's turn is part of the answer in a chat.

    Raises:
        EditError: If a text has not exactly one ``{}`` or the first is not bare.
    """

    texts: tuple[str, ...] = ("{}",)
    average: Literal["nested", "flat"] = "nested"
    worlds: tuple[World, ...] = ("chat",)
    train_end: bool = False

    def __post_init__(self) -> None:
        for text in self.texts:
            if text.count("{}") != 1:
                raise EditError(f"A context template must hold exactly one {{}} for the prompt, got {text!r}.")
            if fault := fault_of(text):
                raise EditError(f"The context template {fault}.")
        if not self.texts or self.texts[0] != "{}":
            raise EditError(f"The first context template must be the bare '{{}}', got {list(self.texts)}.")
        if not self.worlds or len(set(self.worlds)) < len(self.worlds):
            raise EditError(f"`contexts` must name chat, plain or both, each once, got {list(self.worlds)}.")

    def __len__(self) -> int:
        return len(self.texts) * len(self.worlds)

    def apply(self, prompt: str) -> list[str]:
        """The prompt, its own ``{}`` kept, in each of the texts."""
        return [text.replace("{}", prompt) for text in self.texts]

    def in_worlds(self, settings: ChatSettings) -> "ContextTemplates":
        """The same texts in the worlds where edits of a chat model are to hold.

        Args:
            settings: How it is asked.
        """
        return replace(self, worlds=tuple(settings.contexts), train_end=settings.train_end)

    def encode(self, tokenizer: Any, request: EditRequest, target: bool = False) -> list[Encoded]:
        """An edit's prompt in all of its contexts, those of one world after those of the other.

        Args:
            tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
            request: The edit.
            target: Whether its new target follows.
        """
        return [text for world in self.worlds for text in self._encode(world, tokenizer, request, target)]

    def bare(self, tokenizer: Any, request: EditRequest) -> Encoded:
        """An edit's bare prompt in the first world, see `encode`."""
        return replace(self, texts=("{}",))._encode(self.worlds[0], tokenizer, request, target=False)[0]

    def answered(self, tokenizer: Any, request: EditRequest) -> list[tuple[list[int], int]]:
        """An edit's prompt in all of its contexts with the new target, wherever the subject stands.

        Args:
            tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
            request: The edit.

        Returns:
            The ids of each text, and the index of the first token of the answer.
        """
        texts = []
        for world in self.worlds:
            asked = asked_in(world, request)
            tokens = tokenizer if world == "chat" else plain_tokenizer(tokenizer)
            answer = (asked.learned, separator_of(asked), self.train_end)
            texts += [encode_target(tokens, text, *answer) for text in self.apply(asked.rewrite_prompt)]
        return texts

    def worth_counting(
        self, tokenizer: Any, requests: Sequence[EditRequest], context: int | None, beside: str = ""
    ) -> Iterator[EditRequest]:
        """The edits whose texts may not fit the context, which are to be tokenized to see it; of few edits all.

        Args:
            tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
            requests: The edits.
            context: The model's context in tokens, None where it has no fixed one.
            beside: A further text in which the subject stands.
        """
        around = max(len(beside.encode()), *(len(text.encode()) for text in self.texts))
        asked = EditRequest(subject="", prompt="?", target_new="?", separator=requests[0].separator)
        for world in self.worlds:
            # What a chat puts around a prompt.
            tokens = tokenizer if world == "chat" else plain_tokenizer(tokenizer)
            frame = len(encode_target(tokens, "?", "?", separator_of(asked), self.train_end)[0])
            around = max(around, frame + max(len(text.encode()) for text in self.texts))
        size = sys.maxsize if context is None else context - around - MARGIN
        return iter(longer_than(requests, size, answered=True))

    def _encode(self, world: World, tokenizer: Any, request: EditRequest, target: bool) -> list[Encoded]:
        asked = asked_in(world, request)
        tokens = tokenizer if world == "chat" else plain_tokenizer(tokenizer)
        # That of the bare prompt, whatever the contexts are written in.
        answer = (asked.learned, separator_of(asked), self.train_end) if target else ()
        return [encode_subject(tokens, text, asked.subject, *answer) for text in self.apply(asked.prompt)]

    def key_weights(self) -> torch.Tensor:
        """Weight of each text in the mean key, ``(len(self),)``, adding up to 1; worlds weigh the same."""
        count, worlds = len(self.texts), len(self.worlds)
        if self.average == "flat" or count == 1:
            return torch.full((count * worlds,), 1 / count / worlds, dtype=torch.float64)
        return torch.tensor(([0.5] + [0.5 / (count - 1)] * (count - 1)) * worlds, dtype=torch.float64) / worlds

    @property
    def deciding(self) -> list[bool]:
        """Whether most-probable early stopping looks at each text: at the prefixed ones, where there are any."""
        return [len(self.texts) == 1 or index > 0 for _ in self.worlds for index in range(len(self.texts))]


def asked_in(world: World, request: EditRequest) -> EditRequest:
    """An edit as it is asked somewhere: in plain text as its record has it, with the target alone as its answer.

    Args:
        world: Where.
        request: The edit.
    """
    return request if world == "chat" or request.original is None else request.original


@torch.no_grad()
def generate_templates(
    model: Any,
    tokenizer: Any,
    seed: int,
    average: Literal["nested", "flat"] = "nested",
    openings: Sequence[str] = OPENINGS,
) -> ContextTemplates:
    """Lets the model itself write the prefixes, as MEMIT's published code does, but from a seed.

    Each opening is continued to `GENERATED_TOKENS` tokens (sampled among the five likeliest), then comes ``". {}"``.
    Nothing counts but the model's logits: a temperature or the like that its own generation settings name does not.
    Braces in generated text are removed. The caller's random state is left as it was.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        seed: Decides the texts; the same seed gives the same texts.
        average: Passed on to `ContextTemplates`.
        openings: The words to continue from.
    """
    device = model.get_input_embeddings().weight.device
    texts = ["{}"]
    ends = end_tokens(model, plain_tokenizer(tokenizer))
    with frozen(model), without_mask_warning(), seeded(seed), plain_settings(model, ends):
        for opening in openings:
            ids, _ = encode(tokenizer, opening)
            prompt = torch.tensor([ids], device=device)
            count = max(1, GENERATED_TOKENS - len(ids))
            generated = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                top_k=5,
                temperature=1.0,
                max_new_tokens=count,
                min_new_tokens=count,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
            text = tokenizer.decode(generated[0], skip_special_tokens=True)
            texts.append(" ".join(text.replace("{", " ").replace("}", " ").split()) + ". {}")
    return ContextTemplates(tuple(texts), average)
