"""One prompt by which an edited model is judged."""

from dataclasses import asdict, dataclass
from typing import Any

GENERAL, OLD_OBJECT, OTHER_SUBJECTS, SAME_SUBJECT, REWORDED = KINDS = (
    "general",
    "old_object",
    "other_subjects",
    "same_subject",
    "reworded",
)


@dataclass(frozen=True)
class Probe:
    """A prompt, what a right answer to it says, and what the model said before the run.

    Args:
        kind: One of `KINDS`: general prompts; questions that were answered with the old object of an edit; other
            subjects in the wording of an edit; the subject of an edit in other relations; an edit in other words.
        prompt: The complete prompt.
        answers: Any of these is a right answer; none where that is unknown.
        unwanted: What an answer should not begin to say: the new object of an edit that is not asked about.
        edit: The edit it was made from, as messages name it; empty for a general prompt.
        before: What the model said before the run.
        lead_in: What a reply may begin with before it says an answer.
    """

    kind: str
    prompt: str
    answers: tuple[str, ...] = ()
    unwanted: str = ""
    edit: str = ""
    before: str = ""
    lead_in: str = ""

    def packed(self) -> dict[str, Any]:
        """Texts and lists only."""
        return {**asdict(self), "answers": list(self.answers)}

    @staticmethod
    def unpacked(content: dict[str, Any]) -> "Probe":
        """The probe that `packed` wrote.

        Args:
            content: As read from a checkpoint.
        """
        return Probe(**{**content, "answers": tuple(content["answers"])})
