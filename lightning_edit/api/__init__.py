"""Editing in Python without a trainer: one function, what it returns, and the same for a while."""

from lightning_edit.api.editing import edit
from lightning_edit.api.judging import judged
from lightning_edit.api.result import EditResult
from lightning_edit.api.within import edited

__all__ = ["EditResult", "edit", "edited", "judged"]
