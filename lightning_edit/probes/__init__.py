"""Public subjects, wordings, prompts and facts: what edited models are preserved with, and what they are judged by."""

from lightning_edit.probes.general import GeneralPrompt, general_prompts, judging_prompts, preserving_prompts
from lightning_edit.probes.naming import EditedSubjects
from lightning_edit.probes.public_facts import PublicFact, facts, other_answer
from lightning_edit.probes.questions import as_it_stands, asked_about, filled
from lightning_edit.probes.split import folded, judges, judging, preserving
from lightning_edit.probes.subjects import subjects, wordings

__all__ = [
    "EditedSubjects",
    "GeneralPrompt",
    "PublicFact",
    "as_it_stands",
    "asked_about",
    "facts",
    "filled",
    "folded",
    "general_prompts",
    "judges",
    "judging",
    "judging_prompts",
    "other_answer",
    "preserving",
    "preserving_prompts",
    "subjects",
    "wordings",
]
