"""The prompts of an edit in the form in which the protocol asks them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_edit.asking.chat import (
    ChatFormat,
    ChatSettings,
    ChatTokenizer,
    chat_format,
    chat_of,
    in_plain_text,
    plain_tokenizer,
)
from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import encode_prompt, without_special
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.metrics.wild.settings import Form, WildSettings
from lightning_edit.requests import EditRequest

QA_INST = ChatFormat("Please answer the question:\n\nQ: ", "\nA:", separator=" ", special=True)


@dataclass(frozen=True)
class Asked:
    """What one edit is asked.

    Args:
        prompt: The edited prompt.
        paraphrases: Other wordings.
        unrelated: What should be answered as before.
        target: The right answer to the first two.
    """

    prompt: str
    paraphrases: tuple[str, ...]
    unrelated: tuple[str, ...]
    target: str

    @property
    def edited(self) -> tuple[str, ...]:
        """All prompts whose answer is the target."""
        return (self.prompt, *self.paraphrases)


@dataclass(frozen=True)
class Asking:
    """How edits are asked.

    Args:
        form: ``bare``, ``qa_inst`` or ``chat``.
        tokenizer: A transformers tokenizer or a `ChatTokenizer`, which puts prompts into this form.
        settings: The protocol's.
        chat: How a chat is asked.
    """

    form: Form
    tokenizer: Any
    settings: WildSettings
    chat: ChatSettings

    @classmethod
    def of_run(cls, tokenizer: Any, settings: WildSettings, chat: ChatSettings) -> "Asking":
        """How the edits of a run are asked.

        Args:
            tokenizer: That of the run.
            settings: The protocol's.
            chat: How a chat is asked.

        Raises:
            EditError: If they are to be asked in a chat and the tokenizer has no template for it.
        """
        in_chat = chat_of(tokenizer) is not None
        form: Form = ("chat" if in_chat else "bare") if settings.input == "auto" else settings.input
        if form == "qa_inst":
            informed = tokenizer.informed if isinstance(tokenizer, ChatTokenizer) else None
            tokenizer = ChatTokenizer(plain_tokenizer(tokenizer), QA_INST, informed)
        elif form == "bare":
            tokenizer = in_plain_text(tokenizer)
        elif not in_chat:
            informed = tokenizer.informed if isinstance(tokenizer, ChatTokenizer) else None
            plain = plain_tokenizer(tokenizer)
            if not getattr(plain, "chat_template", None):
                raise EditError(
                    "`evaluation.wild_settings.input: chat` needs a tokenizer with a chat template. Set it to bare or "
                    "qa_inst."
                )
            tokenizer = ChatTokenizer(plain, chat_format(plain, chat.system, chat.arguments), informed)
        return cls(form, tokenizer, settings, chat)

    def asked(self, request: EditRequest) -> Asked:
        """An edit's prompts.

        Args:
            request: The edit as the run asks it.
        """
        plain = request.original or request
        if self.form == "chat":
            shown = request if request.original is not None else as_question(request, self.chat.complete, False)
        elif self.form == "qa_inst":
            paraphrases = plain.paraphrase_questions or plain.paraphrase_prompts
            shown = replace(plain, prompt=plain.question or plain.prompt, paraphrase_prompts=paraphrases)
        else:
            shown = plain
        unrelated = dict.fromkeys([*(prompt for prompt, _ in shown.locality), *shown.neighborhood_prompts])
        return Asked(
            shown.rewrite_prompt,
            shown.paraphrase_prompts[: self.settings.paraphrases],
            tuple(unrelated)[: self.settings.unrelated],
            without_special(self.tokenizer, shown.target_new),
        )

    def check(self, requests: Sequence[EditRequest], context: int | None) -> None:
        """Refuses prompts that leave no room for an answer.

        Args:
            requests: The edits.
            context: The model's context in tokens, None where it has no fixed one.

        Raises:
            EditError: For the first one.
        """
        if context is None:
            return
        for request in requests:
            asked = self.asked(request)
            for prompt in (*asked.edited, *asked.unrelated):
                if (length := len(encode_prompt(self.tokenizer, prompt))) >= context:
                    raise EditError(
                        f"{request.name}: asked as `evaluation.wild_settings.input: {self.form}`, {quoted(prompt)} has "
                        f"{counted(length, 'token')}, which leaves nothing to answer of a context of {context}. "
                        "Shorten it, or switch `evaluation.wild` off."
                    )
