"""Lightning Edit: write facts into language models, preserve the rest, and measure both."""

from lightning_edit.api import edit
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.second_moment import SecondMomentSettings
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import EMMET, MEMIT, PRUNE, RECT, ROME, RROME, AlphaEdit
from lightning_edit.updates.model_update import ModelUpdate, inserted
from lightning_edit.values.settings import ValueSettings

__all__ = [
    "EMMET",
    "MEMIT",
    "PRUNE",
    "RECT",
    "ROME",
    "RROME",
    "AlphaEdit",
    "ContextTemplates",
    "EditError",
    "EditRequest",
    "ModelUpdate",
    "SecondMomentSettings",
    "ValueSettings",
    "edit",
    "inserted",
]
