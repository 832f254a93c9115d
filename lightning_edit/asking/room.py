"""How many tokens a reply needs to say an answer."""

from typing import Any

from lightning_edit.asking.tokenization import encode, encode_prompt, encode_target, join_target, separator_before
from lightning_edit.requests import EditRequest


def room_for(tokenizer: Any, usual: int, prompt: str, answer: str, lead_in: str = "") -> int:
    """Most tokens of a reply: the usual number beside what leads in to the answer, or as many as all that takes.

    Args:
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`.
        usual: Tokens that a short answer gets.
        prompt: A complete prompt.
        answer: What the reply may say.
        lead_in: What a model in a chat says before it, if anything.
    """
    separator = join_target(lead_in, answer).removesuffix(answer) if lead_in else None
    return _room(tokenizer, usual, prompt, answer, separator, lead_in)


def room_of(tokenizer: Any, usual: int, request: EditRequest, prompt: str, answer: str) -> int:
    """The same for a prompt of an edit, with what leads in to its answers there.

    Args:
        tokenizer: See `room_for`.
        usual: The same.
        request: The edit, as it is asked.
        prompt: One of its prompts.
        answer: What the reply may say.
    """
    separator, lead_in = separator_before(request, prompt, answer), request.lead_ins.get(prompt, "")
    return _room(tokenizer, usual, prompt, answer, separator, lead_in)


def _room(tokenizer: Any, usual: int, prompt: str, answer: str, separator: str | None, lead_in: str) -> int:
    short = usual + (len(encode(tokenizer, lead_in, special=False)[0]) if lead_in else 0)
    # A tokenizer makes no more tokens than there are bytes, so most answers need not be looked at.
    if len((separator or " ").encode()) + len(answer.encode()) <= usual:
        return short
    ids, _ = encode_target(tokenizer, prompt, answer, separator)
    return max(short, len(ids) - len(encode_prompt(tokenizer, prompt)))
