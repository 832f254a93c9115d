"""Asking a model before and after an update, whether the update is in the model or not."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning_edit.asking.answers import Answers
from lightning_edit.asking.conversation import Conversation, Show
from lightning_edit.export.adapter import Adapter, make_adapter
from lightning_edit.export.folder import hub_revision, lora_facts, write_lora
from lightning_edit.export.ranks import RankSettings, RelativeError
from lightning_edit.models.decoder import Decoder
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Count, check
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.update_form import EDIT_FIELDS


class BeforeAfter:
    """Two conversations about the same: with a model before an update, and with it after that.

    The model is always left as it was found.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`.
        update: The update, in the model or not.
        tokens: Most tokens of an answer.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, update: ModelUpdate, tokens: int = 128) -> None:
        self.model, self.update = decoder.model, update
        self._before, self._after = (Conversation(decoder, tokenizer, tokens) for _ in range(2))

    def before(self, question: str, show: Show = lambda text: None) -> str:
        """The answer without the update; see `Conversation.ask`."""
        with self._update_in_model(False):
            return self._before.ask(question, show)

    def after(self, question: str, show: Show = lambda text: None) -> str:
        """The answer with the update; see `Conversation.ask`."""
        with self._update_in_model(True):
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
    def _update_in_model(self, wanted: bool) -> Iterator[None]:
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


class EditResult(ModelUpdate):
    """An update with the model that it was made for, which can be asked before and after it.

    Args:
        update: The update, which is in the model.
        decoder: The model; it is kept in memory as long as this is.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`, which asks in a chat.
        requests: The edits in it, as far as they are known.
    """

    def __init__(
        self, update: ModelUpdate, decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest] = ()
    ) -> None:
        super().__init__(update.layers, update.info, update._originals)
        self.decoder, self.tokenizer, self.requests = decoder, tokenizer, requests

    def ask(self, question: str, tokens: Count = 128) -> Answers:
        """What the model says before and after the edits, the likeliest answers; each question stands for itself.

        Args:
            question: In a chat the text of the user's turn, else a prompt that the model continues.
            tokens: Most tokens of an answer.

        Returns:
            An object with the texts ``before`` and ``after``, printed as a table of both side by side.

        Raises:
            EditError: If the question is empty or too long for the model, or the model was edited again since.
        """
        check(EditResult.ask, {"tokens": tokens})
        return BeforeAfter(self.decoder, self.tokenizer, self, tokens).ask(question)

    def to_lora(
        self,
        folder: str | Path,
        rank: Count | None = None,
        max_error: RelativeError | None = None,
        pad_rank: Count | Literal["auto", "none"] = "auto",
    ) -> Adapter:
        """Writes the update as a LoRA adapter for PEFT, vLLM and others, with a model card.

        It is put on the model as it was before this update: ``PeftModel.from_pretrained(base, folder)``.

        Args:
            folder: A new folder.
            rank: See `RankSettings`.
            max_error: The same.
            pad_rank: The same.

        Returns:
            What was written; its ``ranks`` hold for each matrix the rank and the relative error.

        Raises:
            EditError: If the folder holds something, the update is not of matrices, or a rank is too small.
        """
        settings = RankSettings(rank, max_error, pad_rank)
        model = self.decoder.model
        if not self.is_inserted:
            self.check(model)
        adapter = make_adapter(model, {one.module: one.factors for one in self.layers.values()}, settings)
        edits = [{name: getattr(request, name) for name in EDIT_FIELDS} for request in self.requests]
        base = str(self.info.get("model") or "")
        facts = lora_facts(adapter, base, hub_revision(model), self.info, edits)
        write_lora(Path(folder).expanduser(), adapter, facts)
        return adapter
