"""Public subjects and wordings, in two halves: what edited models are preserved with, and what they are judged by."""

from lightning_edit.probes.questions import filled, questions
from lightning_edit.probes.split import folded, judges, judging, preserving
from lightning_edit.probes.subjects import subjects, wordings

__all__ = ["filled", "folded", "judges", "judging", "preserving", "questions", "subjects", "wordings"]
