"""Texts as tokens: where the subject and the target are, by character offsets and never by guessing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.models.separators import join_target


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text with the two places that editing needs.

    Args:
        ids: All token ids, a leading BOS included where the tokenizer adds one.
        subject_last: Index of the subject's last token.
        target_start: Index of the first target token; ``len(ids)`` when there is no target.
    """

    ids: tuple[int, ...]
    subject_last: int
    target_start: int


def require_offsets(tokenizer: Any) -> None:
    """Refuses a tokenizer that cannot tell which characters a token covers.

    Args:
        tokenizer: A transformers tokenizer.

    Raises:
        EditError: If it is not a fast tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise EditError(
            f"{type(tokenizer).__name__} gives no character offsets, so the subject's tokens cannot be located. "
            "Load the fast tokenizer (AutoTokenizer with a tokenizer.json)."
        )


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and character spans of a text.

    A leading special token (BOS) is kept, trailing ones (EOS) are dropped: the model is to continue the text.

    Args:
        tokenizer: A fast transformers tokenizer.
        text: The text.

    Returns:
        The ids, and for each the half-open span of characters that it covers.
    """
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    ids, offsets, special = encoding["input_ids"], encoding["offset_mapping"], encoding["special_tokens_mask"]
    end = len(ids)
    while end > 1 and special[end - 1] and offsets[end - 1][0] == offsets[end - 1][1]:
        end -= 1
    return ids[:end], offsets[:end]


def encode_target(tokenizer: Any, prompt: str, target: str, separator: str | None = None) -> tuple[list[int], int]:
    """Tokens of a prompt and its answer, and where the answer starts.

    The text is tokenized as a whole, so that no assumption is made about how the tokenizer marks spaces.

    Args:
        tokenizer: A fast transformers tokenizer.
        prompt: A complete prompt.
        target: The answer, without a leading space.
        separator: What stands between them, see `join_target`.

    Returns:
        All ids and the index of the first target token.

    Raises:
        EditError: If the answer has no token of its own, or its first token would be the first of the text.
    """
    text = join_target(prompt, target, separator)
    ids, offsets = encode(tokenizer, text)
    start = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
    if start in (0, len(ids)):
        raise EditError(f"The tokenizer leaves no tokens to predict in {text!r}.")
    return ids, start


def encode_subject(
    tokenizer: Any, template: str, subject: str, target: str | None = None, separator: str | None = None
) -> Encoded:
    """Tokens of a template with its subject in place, and the index of the subject's last token.

    The subject is located where the template's ``{}`` was, so it may occur elsewhere in the text as well.

    Args:
        tokenizer: A fast transformers tokenizer.
        template: A text with exactly one ``{}``.
        subject: What takes its place.
        target: The answer that follows, if any.
        separator: What stands before the answer, see `join_target`.

    Raises:
        EditError: If no token covers the subject's last character.
    """
    before, after = template.split("{}")
    prompt = before + subject + after
    if target is None:
        ids, offsets = encode(tokenizer, prompt)
        target_start = len(ids)
    else:
        ids, target_start = encode_target(tokenizer, prompt, target, separator)
        _, offsets = encode(tokenizer, join_target(prompt, target, separator))
    last = len(before) + len(subject) - 1
    # Several byte-level tokens may share one character: the last of them completes the subject.
    covering = [i for i, (start, end) in enumerate(offsets[:target_start]) if start <= last < end]
    if not covering:
        raise EditError(f"No token covers the end of the subject {subject!r} in {prompt!r}.")
    return Encoded(tuple(ids), covering[-1], target_start)


def check_lengths(lengths: Sequence[int], names: Sequence[str], context: int | None) -> None:
    """Refuses texts that are longer than the model's context.

    Args:
        lengths: Number of tokens of each text.
        names: How a message calls each text.
        context: The model's context in tokens, None where it has no fixed one.

    Raises:
        EditError: For the first text that does not fit.
    """
    for length, name in zip(lengths, names, strict=True):
        if context is not None and length > context:
            raise EditError(
                f"{name} has {length} tokens but the model's context holds {context}. Shorten it, or use shorter "
                "context templates."
            )


def without_special(tokenizer: Any, text: str) -> str:
    """A text as it reads where special tokens are not shown, e.g. without the token that ends a turn.

    Args:
        tokenizer: A fast transformers tokenizer.
        text: A text in which special tokens may be written out.
    """
    written = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    # The longest first: one may be the beginning of another.
    for token in sorted(written, key=len, reverse=True):
        text = text.replace(token, "")
    return text.strip()
