"""How answers are asked for in WILD's protocol."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lightning_edit.errors import EditError
from lightning_edit.settings import Count, CountOrZero, Settings

Form = Literal["bare", "qa_inst", "chat"]


@dataclass(frozen=True)
class WildSettings(Settings):
    """How the model is asked, and where its answer ends.

    Raises:
        EditError: If a value is out of its range, or an end is empty.
    """

    section: ClassVar[str] = "evaluation.wild_settings"

    input: Literal["auto", "bare", "qa_inst", "chat"] = "auto"
    """How it is asked: ``bare``, ``qa_inst`` or ``chat``; ``auto`` is ``chat`` in a chat, else ``bare``.

    ``bare`` is the prompt alone, ``qa_inst`` asks to answer it (``Please answer the question:``, then ``Q:`` and
    ``A:``), and ``chat`` puts it into a user's turn. The first two ask in plain text, in a chat run as well.
    """

    new_tokens: Count = 50
    """Tokens of an answer; fewer where it ends by itself or the context ends."""

    stop: list[str] = field(default_factory=lambda: [".", "\n"])
    """Texts at which an answer ends, beside the end of the text or turn; they are left out of it.

    A backslash and an n are a new line, as on a command line.
    """

    paraphrases: CountOrZero = 2
    """So many of a record's paraphrases are asked, the first ones."""

    unrelated: CountOrZero = 5
    """So many of its locality and neighborhood prompts are asked, the first ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(self.stop):
            raise EditError(f"`evaluation.wild_settings.stop` must hold texts that are not empty, got {self.stop!r}.")
        # A list within settings within settings loses its escapes on the way from the command line.
        object.__setattr__(self, "stop", [stop.replace("\\n", "\n") for stop in self.stop])
