"""A conversation with a model as it is: one answer after the other, shown while it is written."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import TextStreamer

from lightning_edit.asking.chat import chat_of
from lightning_edit.asking.generation_settings import end_tokens, plain_settings
from lightning_edit.asking.tokenization import check_lengths, encode
from lightning_edit.characters import fault_of
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen

Show = Callable[[str], None]


class _Shown(TextStreamer):
    """Hands on the text that is complete so far."""

    def __init__(self, tokenizer: Any, show: Show) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.show = show

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """See `TextStreamer`."""
        self.show(text)


class Conversation:
    """What was asked and answered so far. In plain text there is no conversation: each prompt stands for itself.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`.
        tokens: Most tokens of an answer; fewer where the context ends or the model says that it is done.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, tokens: int = 128) -> None:
        self.decoder, self.tokenizer, self.tokens = decoder, tokenizer, tokens
        self.history: list[tuple[str, str]] = []

    @torch.no_grad()
    def ask(self, question: str, show: Show = lambda text: None) -> str:
        """The model's likeliest answer, which becomes a part of the conversation.

        Args:
            question: The text of the user's turn, or a prompt in plain text.
            show: Called with each piece of the answer as it is written.

        Raises:
            EditError: If the question is empty or holds what is no character, or the conversation leaves no room in the
                model's context.
        """
        if not isinstance(question, str) or not question.strip():
            raise EditError(f"A question must be a text that is not empty, got {quoted(question)}.")
        if fault := fault_of(question):
            raise EditError(f"The question {fault}.")
        chat, model = chat_of(self.tokenizer), self.decoder.model
        text = question if chat is None else chat(question, self.history)
        ids, _ = encode(self.tokenizer, text, special=chat is None)
        check_lengths([len(ids) + 1], [f"The conversation up to {quoted(question)}"], self.decoder.context)
        room = self.tokens if self.decoder.context is None else min(self.tokens, self.decoder.context - len(ids))
        pieces: list[str] = []

        def note(piece: str) -> None:
            pieces.append(piece)
            show(piece)

        inputs, ends = torch.tensor([ids], device=self.decoder.device), end_tokens(model, self.tokenizer)
        with frozen(model), plain_settings(model, ends):
            model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=room,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id or 0,
                streamer=_Shown(self.tokenizer, note),
            )
        answer = "".join(pieces).strip()
        if chat is not None:
            self.history.append((question, answer))
        return answer
