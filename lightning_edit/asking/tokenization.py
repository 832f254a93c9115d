"""Texts as tokens: what stands between prompt and answer, and where subject and target are, by character offsets."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.asking.chat import chat_of, informed_prompt, plain_tokenizer
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.whole_words import UNSPACED, is_letter, unspaced, words_in

_UNSPACED = re.compile(f"[{UNSPACED}]")
QUOTES = "\"'`"
# Between words, these belong to what follows.
LEADING = "_/\\@#$"


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text with the places that editing and tracing need.

    Args:
        ids: All token ids, a leading BOS included where the tokenizer adds one.
        subject_last: Index of the subject's last token.
        target_start: Index of the first target token; ``len(ids)`` when there is no target.
        subject_first: Index of the subject's first token; -1 where the text has none.
    """

    ids: tuple[int, ...]
    subject_last: int
    target_start: int
    subject_first: int = -1


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


def encode(tokenizer: Any, text: str, special: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and character spans of a text as it stands.

    A leading special token (BOS) is kept, trailing ones (EOS) are dropped: the model is to continue the text.

    Args:
        tokenizer: A fast transformers tokenizer.
        text: The text.
        special: Whether special tokens are added; a chat template has written them into its texts already.

    Returns:
        The ids, and for each the half-open span of characters that it covers.
    """
    how = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "verbose": False}
    encoding = plain_tokenizer(tokenizer)(text, add_special_tokens=special, **how)
    ids, offsets, masked = encoding["input_ids"], encoding["offset_mapping"], encoding["special_tokens_mask"]
    end = len(ids)
    while end > 1 and masked[end - 1] and offsets[end - 1][0] == offsets[end - 1][1]:
        end -= 1
    return ids[:end], offsets[:end]


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt that the model is to answer: in a user turn where the tokenizer goes with a chat.

    Args:
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        prompt: A complete prompt.
    """
    chat, prompt = chat_of(tokenizer), informed_prompt(tokenizer, prompt)
    return encode(tokenizer, prompt)[0] if chat is None else encode(tokenizer, chat(prompt), special=chat.special)[0]


def encode_target(
    tokenizer: Any, prompt: str, target: str, separator: str | None = None, end: bool = False
) -> tuple[list[int], int]:
    """Tokens of a prompt and its answer, and where the answer starts.

    The text is tokenized as a whole, so that no assumption is made about how the tokenizer marks spaces.

    Args:
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        prompt: A complete prompt.
        target: The answer, without a leading space.
        separator: What stands between them, see `join_target`; in a chat what the answer begins with before the target,
            if anything.
        end: Whether the answer ends with the end of its turn, where there is a chat.

    Returns:
        All ids and the index of the first target token.

    Raises:
        EditError: If the answer has no token of its own, or its first token would be the first of the text.
    """
    ids, _, start = _encode_answered(tokenizer, prompt, target, separator, end)
    return ids, start


def _encode_answered(
    tokenizer: Any, prompt: str, target: str, separator: str | None, end: bool
) -> tuple[list[int], list[tuple[int, int]], int]:
    chat, prompt = chat_of(tokenizer), informed_prompt(tokenizer, prompt)
    asked = prompt if chat is None else chat(prompt)
    before = asked
    if chat is None:
        text = join_target(prompt, target, separator)
    else:
        if separator:
            before = (asked + chat.separator + separator).rstrip()
        text = asked + chat.separator + (separator or "") + target + (chat.end if end else "")
    ids, offsets = encode(tokenizer, text, special=chat is None or chat.special)
    start = next((i for i, (_, stop) in enumerate(offsets) if stop > len(before)), len(ids))
    if start in (0, len(ids)):
        raise EditError(f"The tokenizer leaves no tokens to predict in {text!r}.")
    return ids, offsets, start


def encode_subject(
    tokenizer: Any,
    template: str,
    subject: str,
    target: str | None = None,
    separator: str | None = None,
    end: bool = False,
) -> Encoded:
    """Tokens of a template with its subject in place, and where the subject's tokens are.

    The subject is located where the template's ``{}`` was, so it may occur elsewhere in the text as well.

    Args:
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        template: A text with exactly one ``{}``.
        subject: What takes its place.
        target: The answer that follows, if any.
        separator: What stands before the answer, see `encode_target`.
        end: Whether the answer ends with the end of its turn, see `encode_target`.

    Raises:
        EditError: If no token covers the subject's last character.
    """
    chat = chat_of(tokenizer)
    before, after = template.split("{}") if chat is None else template.strip().split("{}")
    prompt = before + subject + after
    if target is None:
        asked = prompt if chat is None else chat(prompt)
        ids, offsets = encode(tokenizer, asked, special=chat is None or chat.special)
        target_start = len(ids)
    else:
        ids, offsets, target_start = _encode_answered(tokenizer, prompt, target, separator, end)
    spans, begin = offsets[:target_start], len("" if chat is None else chat.before) + len(before)
    last = begin + len(subject) - 1
    # Several byte-level tokens may share one character: the last of them completes the subject.
    covering = [i for i, (start, stop) in enumerate(spans) if start <= last < stop]
    if not covering:
        raise EditError(f"No token covers the end of the subject {subject!r} in {prompt!r}.")
    first = next(i for i, (_, stop) in enumerate(spans) if stop > begin)
    return Encoded(tuple(ids), covering[-1], target_start, first)


WITH_TEMPLATES = "Shorten it, or use shorter `context_templates`."


def check_lengths(
    lengths: Sequence[int], names: Sequence[str], context: int | None, remedy: str = "Shorten it."
) -> None:
    """Refuses texts that are longer than the model's context.

    Args:
        lengths: Number of tokens of each text.
        names: How a message calls each text.
        context: The model's context in tokens, None where it has no fixed one.
        remedy: What can be done about it, as sentences.

    Raises:
        EditError: For the first text that does not fit.
    """
    for length, name in zip(lengths, names, strict=True):
        if context is not None and length > context:
            raise EditError(f"{name} has {length} tokens but the model's context holds {context}. {remedy}")


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
    characters = len(_UNSPACED.findall(prompt))
    if characters and unspaced(target):
        return ""
    # About two characters make a word; some writers do put spaces around them.
    spaced = re.search(rf"[{UNSPACED}]\s|\s[{UNSPACED}]", prompt)
    if unspaced(prompt[-1]) and not spaced:
        words = sum(not unspaced(word) for word in words_in(prompt))
        if characters > 2 * words:
            return ""
    return "" if prompt[-1] in LEADING or _opens(prompt) else " "


def _opens(prompt: str) -> bool:
    last, before = prompt[-1], prompt[-2:-1]
    if unicodedata.category(last) == "Ps":
        return True
    if last == "=":
        return is_letter(before)
    if last in QUOTES:
        return not before or before.isspace() or before in ":=,<" or unicodedata.category(before) == "Ps"
    # In some languages the same quote opens and in others it closes.
    return unicodedata.category(last) == "Pi" and not (is_letter(before) and before != "_" and not unspaced(before))


def separator_of(request: EditRequest) -> str:
    """What stands between an edit's rewrite prompt and what the model is to answer, `EditRequest.learned`.

    Args:
        request: The edit.
    """
    if request.original is not None:
        return ""
    given = request.separator
    return usual_separator(request.rewrite_prompt, request.target_new) if given is None else given


def separator_before(request: EditRequest, prompt: str, answer: str) -> str | None:
    """What stands between one of an edit's prompts and an answer to it: in a chat what the answer begins with.

    Args:
        request: The edit.
        prompt: The prompt.
        answer: A target, the new one or the true one.

    Returns:
        None for what is usual.
    """
    lead_in = request.lead_ins.get(prompt)
    if lead_in is None:
        return request.separator
    given = None if request.original is None else request.original.separator
    return lead_in + (usual_separator(lead_in, answer) if given is None else given)
