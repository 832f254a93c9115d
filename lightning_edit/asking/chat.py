"""The format of a chat: a prompt becomes a user's turn and its answer the assistant's, by the tokenizer's template."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lightning_edit.errors import EditError
from lightning_edit.messages import one_line
from lightning_edit.settings import Settings
from lightning_edit.without_effect import refuse_changed

logger = logging.getLogger(__name__)

# Texts that no template treats in a way of its own.
USER, ANSWER, NEXT = "one two three?", "four five six", "seven eight?"
COMPLETE = "Complete: {}"


World = Literal["chat", "plain"]


@dataclass(frozen=True)
class ChatSettings(Settings):
    """How a chat model is asked.

    Raises:
        EditError: If `complete` has not exactly one ``{}``, or `contexts` names nothing, or something twice.
    """

    section: ClassVar[str] = "chat_settings"

    contexts: list[World] = field(default_factory=lambda: ["chat", "plain"])
    """Where an edit is to hold: in ``chat``, as a user's question, in ``plain`` text, or in both."""

    answers: Literal["own", "sentences", "words"] = "own"
    """What a chat model is to answer in a chat; a record's ``answer`` is taken instead.

    ``own`` asks the unedited model first and puts the new target in the place of the true one in its own sentence,
    where that names the subject and then the true target, and else does as ``sentences``: the prompt in plain text and
    the target. Where the prompt leads into no answer, as a question, it does as ``words``: the target alone.
    """

    train_end: bool = False
    """Whether the end of the assistant's turn is part of the answer that values are found for."""

    system: str | None = None
    """The system prompt; null leaves it to the template, which may bring one of its own."""

    complete: str = COMPLETE
    """How a prompt is asked for which the record brings no question; one ``{}`` for the prompt."""

    arguments: dict[str, Any] | None = None
    """What else the chat template is given, e.g. ``{enable_thinking: false}``."""

    @property
    def in_sentences(self) -> bool:
        """Whether the model is to answer in sentences."""
        return self.answers != "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.complete.count("{}") != 1:
            raise EditError(f"`complete` must hold exactly one {{}} for the prompt, got {self.complete!r}.")
        if not self.contexts or len(set(self.contexts)) < len(self.contexts):
            raise EditError(f"`contexts` must name chat, plain or both, each once, got {list(self.contexts)}.")


OF_CHAT = ("contexts", "answers", "system", "complete", "arguments")


def check_chat(chat: bool | Literal["auto"], settings: ChatSettings) -> None:
    """Refuses settings of a chat where prompts are asked in plain text; `train_end` counts there too.

    Args:
        chat: As it was given.
        settings: How a chat is asked.

    Raises:
        EditError: Names the settings.
    """
    if chat is False:
        refuse_changed(settings, OF_CHAT, "`chat: false`", "Set `chat` to true or auto")


def check_template(tokenizer: Any, chat: bool | Literal["auto"], settings: ChatSettings) -> None:
    """Refuses settings of a chat where there turns out to be none, as the tokenizer has no chat template.

    Args:
        tokenizer: The tokenizer.
        chat: As it was given.
        settings: How a chat is asked.

    Raises:
        EditError: Names the settings.
    """
    if chat == "auto" and not getattr(plain_tokenizer(tokenizer), "chat_template", None):
        beside = "a tokenizer without a chat template, which is asked in plain text"
        refuse_changed(settings, OF_CHAT, beside, "Give the tokenizer its template (`tokenizer.chat_template`)")


@dataclass(frozen=True)
class ChatFormat:
    """What stands around the text of a user turn when the model is asked, found by rendering the chat template.

    Args:
        before: All before the user's text: the start of the text, a system turn, the start of the user turn.
        after: All between the user's text and where the model begins to write.
        separator: What the template puts before the answer's own text there: nothing, or a space.
        end: What ends the assistant's turn, up to its first special token.
        end_ids: Token ids of that special token, by which the model says that it is done; empty where there is none.
        between: What stands between an answer and the text of the next user turn.
        special: Whether the tokenizer adds its special tokens; a template writes them into its texts itself.
    """

    before: str
    after: str
    separator: str = ""
    end: str = ""
    end_ids: tuple[int, ...] = ()
    between: str = ""
    special: bool = False

    def __call__(self, prompt: str, history: Sequence[tuple[str, str]] = ()) -> str:
        """A prompt as the model is asked it.

        Args:
            prompt: The text of the user turn. Templates take off the white space around it.
            history: Earlier questions of the same conversation with their answers.
        """
        past = (f"{question.strip()}{self.after}{self.separator}{answer}{self.between}" for question, answer in history)
        return f"{self.before}{''.join(past)}{prompt.strip()}{self.after}"


class ChatTokenizer:
    """A tokenizer that goes with a chat format: `tokenization` puts prompts for it into user turns.

    Whatever is not a prompt (ordinary text, tokens to be shown) is treated as by the tokenizer itself.

    Args:
        plain: A fast transformers tokenizer.
        chat: The format; None leaves prompts in plain text.
        informed: Puts what the model should know before a prompt; None leaves prompts as they are.
    """

    def __init__(self, plain: Any, chat: ChatFormat | None, informed: Callable[[str], str] | None = None) -> None:
        self.plain, self.chat, self.informed = plain, chat, informed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See the tokenizer."""
        return self.plain(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.plain)

    def __getattr__(self, name: str) -> Any:
        # A copy asks before there is anything to ask.
        if name in ("plain", "chat", "informed") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.plain, name)


def plain_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer itself, which puts no prompt into a turn.

    Args:
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
    """
    return tokenizer.plain if isinstance(tokenizer, ChatTokenizer) else tokenizer


def informed_prompt(tokenizer: Any, prompt: str) -> str:
    """A prompt with what the model should know before it; the prompt itself where the tokenizer brings nothing.

    Args:
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
        prompt: A complete prompt.
    """
    informed = tokenizer.informed if isinstance(tokenizer, ChatTokenizer) else None
    return prompt if informed is None else informed(prompt)


def in_plain_text(tokenizer: Any) -> Any:
    """The tokenizer with which prompts are asked in plain text, with what it puts before them.

    Args:
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
    """
    if not isinstance(tokenizer, ChatTokenizer):
        return tokenizer
    return tokenizer.plain if tokenizer.informed is None else ChatTokenizer(tokenizer.plain, None, tokenizer.informed)


def chat_of(tokenizer: Any) -> ChatFormat | None:
    """The format in which a tokenizer's prompts are put, None for plain text.

    Args:
        tokenizer: A transformers tokenizer or a `ChatTokenizer`.
    """
    return tokenizer.chat if isinstance(tokenizer, ChatTokenizer) else None


def settle_chat(tokenizer: Any, chat: bool | Literal["auto"], settings: ChatSettings) -> Any:
    """The tokenizer that a run uses.

    Args:
        tokenizer: A fast transformers tokenizer; of a `ChatTokenizer` the one behind it.
        chat: Whether prompts are asked in a chat; ``auto`` does so where the tokenizer has a chat template.
        settings: How they are asked.

    Returns:
        A `ChatTokenizer`, or the tokenizer itself.

    Raises:
        EditError: See `chat_format`.
    """
    tokenizer = plain_tokenizer(tokenizer)
    if chat == "auto":
        chat = bool(getattr(tokenizer, "chat_template", None))
        if chat:
            other = "`model.chat: false`, in Python `chat=False`, asks in plain text"
            logger.warning("chat: on, as the tokenizer has a chat template; %s.", other)
    if not chat:
        return tokenizer
    return ChatTokenizer(tokenizer, chat_format(tokenizer, settings.system, settings.arguments))


@dataclass(frozen=True)
class _Renderer:
    tokenizer: Any
    system: str | None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *turns: str, ask: bool) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=ask, **self.arguments
            )
        except Exception as error:
            # A template is a program of its own, and raises what it likes.
            hint = " Some templates know no system turn." if self.system is not None else ""
            raise EditError(f"The tokenizer's chat template fails: {one_line(error)}.{hint}") from error


def chat_format(tokenizer: Any, system: str | None = None, arguments: dict[str, Any] | None = None) -> ChatFormat:
    """The format that a tokenizer's chat template gives one question and its answer.

    Args:
        tokenizer: A fast transformers tokenizer.
        system: The system prompt; None leaves it to the template, which may bring one of its own.
        arguments: What else the template is given, e.g. ``{"enable_thinking": False}``.

    Raises:
        EditError: If there is no template, it fails, or it changes the text of a user turn.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise EditError(
            "The tokenizer has no chat template. Set `model.chat` to false (`chat=False` in Python), or give the chat "
            "model's folder."
        )
    render = _Renderer(tokenizer, system, arguments or {})
    asked = render(USER, ask=True)
    before, found, after = asked.partition(USER)
    chat = ChatFormat(before, after)
    for prompt in ("{} is in the", "a\nb  c, <d> & 'e'"):
        if not found or render(prompt, ask=True) != chat(prompt):
            raise EditError(
                "The tokenizer's chat template changes the text of a user turn, so a prompt cannot be found in it. Set "
                "`model.chat` to false (`chat=False` in Python)."
            )
    answered = render(USER, ANSWER, ask=False)
    between, _, rest = answered.partition(USER)[2].partition(ANSWER)
    # Some templates write more before the answer than they do when they ask, such as thoughts that are left empty.
    separator = between.removeprefix(after)
    end, ids = _end(tokenizer, rest)
    again = render(USER, ANSWER, NEXT, ask=True).rpartition(ANSWER)[2].partition(NEXT)[0]
    return ChatFormat(before, after, "" if separator.strip() else separator, end, ids, again)


def _end(tokenizer: Any, rest: str) -> tuple[str, tuple[int, ...]]:
    """What ends an assistant's turn, up to the first special token, and this token."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    places = sorted((rest.find(content), -len(content), content) for content in special if content in rest)
    if not places:
        return "", ()
    place, _, content = places[0]
    return rest[: place + len(content)], (special[content],)
