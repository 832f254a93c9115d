"""How many tokens a reply needs to say an answer."""

from typing import Any

from lightning_edit.asking.tokenization import encode, without_special


def room_for(tokenizer: Any, usual: int, answer: str, lead_in: str = "") -> int:
    """Most tokens of a reply: the usual number, or as many as the answer has, beside what leads in to it.

    Args:
        tokenizer: A fast transformers tokenizer.
        usual: Tokens that a short answer gets.
        answer: What the reply may say.
        lead_in: What a model in a chat says before it, if anything.
    """
    return max(usual, _tokens(tokenizer, without_special(tokenizer, answer))) + _tokens(tokenizer, lead_in)


def _tokens(tokenizer: Any, text: str) -> int:
    return len(encode(tokenizer, text, special=False)[0]) if text else 0
