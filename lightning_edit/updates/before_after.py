"""Asking a model before and after an update, whether the update is in the model or not."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from lightning_edit.asking.answers import Answers
from lightning_edit.asking.conversation import Conversation, Show
from lightning_edit.models.decoder import Decoder
from lightning_edit.updates.model_update import ModelUpdate, inserted


class BeforeAfter:
    """Two conversations about the same: with a model before an update, and with it after that.

    The model is always left as it was found.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`.
        update: The update, in the model or not.
        tokens: Most tokens of an answer.
        earlier: What was in the weights before, where the update holds more than was added then; None for nothing.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        update: ModelUpdate,
        tokens: int = 128,
        earlier: ModelUpdate | None = None,
    ) -> None:
        self.model, self.update, self.earlier = decoder.model, update, earlier
        self._before, self._after = (Conversation(decoder, tokenizer, tokens) for _ in range(2))

    def before(self, question: str, show: Show = lambda text: None) -> str:
        """The answer without the update; see `Conversation.ask`."""
        found = nullcontext() if self.earlier is None else inserted(self.model, self.earlier)
        with self.update_in_model(False), found:
            return self._before.ask(question, show)

    def after(self, question: str, show: Show = lambda text: None) -> str:
        """The answer with the update; see `Conversation.ask`."""
        with self.update_in_model(True):
            return self._after.ask(question, show)

    def ask(self, question: str) -> Answers:
        """Both answers.

        Args:
            question: The text of a user's turn, or a prompt in plain text.

        Raises:
            EditError: See `Conversation.ask`, `ModelUpdate.insert` and `ModelUpdate.remove`.
        """
        return Answers(question, self.before(question), self.after(question))

    def forget(self) -> None:
        """Begins new conversations."""
        self._before.history.clear()
        self._after.history.clear()

    @contextmanager
    def update_in_model(self, wanted: bool) -> Iterator[None]:
        """The model with the update, or without it, inside a ``with`` block.

        Args:
            wanted: Whether with it.
        """
        there = self.update.is_inserted
        self._switch(there, wanted)
        try:
            yield
        finally:
            self._switch(wanted, there)

    def _switch(self, there: bool, wanted: bool) -> None:
        if wanted and not there:
            self.update.insert(self.model)
        if there and not wanted:
            self.update.remove(self.model)
