"""Texts as tokens: what stands between prompt and answer, and where subject and target are, by character offsets."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest

# Scripts that put no space between words, with their punctuation: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and
# Japanese. Korean has spaces.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED, _WORD = re.compile(f"[{UNSPACED}]"), re.compile(rf"[^\W{UNSPACED}]+")
QUOTES = "\"'`"
# Between words, these belong to what follows.
LEADING = "_/\\@#$"


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


def join_target(prompt: str, target: str, separator: str | None = None) -> str:
    """The prompt followed by its answer.

    Args:
        prompt: A complete prompt.
        target: The answer, without a leading space.
        separator: What stands between the two; None for what is usual, see `usual_separator`.
    """
    return prompt + (usual_separator(prompt, target) if separator is None else separator) + target


def usual_separator(prompt: str, target: str) -> str:
    """What a writer puts between a prompt and its answer: one space, or nothing.

    Nothing follows a prompt that brings its own space, that ends with an opening bracket or quote, or with a sign that
    belongs to what follows. In a text of a script without spaces nothing stands before an answer: one in such a script
    makes a text that has any of it one, another answer only a text that is mostly of it and has no spaces around it.

    Args:
        prompt: A complete prompt.
        target: The answer.
    """
    if not prompt or prompt[-1].isspace():
        return ""
    unspaced = len(_UNSPACED.findall(prompt))
    if unspaced and _UNSPACED.match(target):
        return ""
    # About two characters make a word; some writers do put spaces around them.
    spaced = re.search(rf"[{UNSPACED}]\s|\s[{UNSPACED}]", prompt)
    if _UNSPACED.match(prompt[-1]) and not spaced and unspaced > 2 * len(_WORD.findall(prompt)):
        return ""
    return "" if prompt[-1] in LEADING or _opens(prompt) else " "


def _opens(prompt: str) -> bool:
    last, before = prompt[-1], prompt[-2:-1]
    if unicodedata.category(last) == "Ps":
        return True
    if last == "=":
        return bool(before) and (before.isalnum() or before == "_")
    if last in QUOTES:
        return not before or before.isspace() or before in ":=,<" or unicodedata.category(before) == "Ps"
    # In some languages the same quote opens and in others it closes.
    return unicodedata.category(last) == "Pi" and not (before.isalnum() and not _UNSPACED.match(before))


def separator_of(request: EditRequest) -> str:
    """What stands between an edit's rewrite prompt and its new target.

    Args:
        request: The edit.
    """
    given = request.separator
    return usual_separator(request.rewrite_prompt, request.target_new) if given is None else given
