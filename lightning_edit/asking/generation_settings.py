"""What ends a text, and generation settings that know that alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

from lightning_edit.asking.chat import chat_of


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens by which a model says that a text, or its turn, is done.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer, with or without a chat.
    """
    ends, chat = model.generation_config.eos_token_id, chat_of(tokenizer)
    named = list(ends) if isinstance(ends, list | tuple) else [ends] if ends is not None else []
    return list(dict.fromkeys([*named, *(() if chat is None else chat.end_ids)]))


@contextmanager
def plain_settings(model: Any, ends: Sequence[int]) -> Iterator[None]:
    """Generation settings that know where texts end, and nothing else that would change what the logits say.

    Args:
        model: A transformers model.
        ends: The tokens that end a text.
    """
    old = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=list(ends) or None)
    try:
        yield
    finally:
        model.generation_config = old
