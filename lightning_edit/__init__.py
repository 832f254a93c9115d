"""Lightning Edit: write facts into language models, preserve the rest, and measure both."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_edit.api import EditResult, edit, edited, judged
    from lightning_edit.asking.chat import ChatSettings
    from lightning_edit.errors import EditError
    from lightning_edit.gradients.gradient import Gradient
    from lightning_edit.keys.context_templates import ContextTemplates
    from lightning_edit.keys.layer_stats import SecondMomentSettings
    from lightning_edit.memories.folder import load_memories
    from lightning_edit.memories.wrapped import Memories
    from lightning_edit.metrics.judging.settings import JudgeSettings
    from lightning_edit.metrics.wild.settings import WildSettings
    from lightning_edit.requests import EditRequest
    from lightning_edit.ripples import Query, Ripple
    from lightning_edit.run.methods.crispedit import CrispEdit
    from lightning_edit.run.methods.fine_tuning import FineTuning
    from lightning_edit.run.methods.in_context import InContext
    from lightning_edit.run.methods.lora import LoRA
    from lightning_edit.run.methods.memory_editing import MemoryEditing
    from lightning_edit.run.module import EditingModule
    from lightning_edit.solvers import (
        EMMET,
        MEMIT,
        PRUNE,
        RECT,
        REVIVE,
        ROME,
        RROME,
        SPHERE,
        AlphaEdit,
        EvoEdit,
        LyapLock,
        OutputMEMIT,
        Ridge,
        SimIE,
        Sum,
    )
    from lightning_edit.updates.model_update import ModelUpdate, inserted
    from lightning_edit.values.settings import ValueSettings
    from lightning_edit.windows.windows import Windows

    __version__: str

# Where each name is defined. It is imported when it is first used, as torch and transformers take seconds for it.
_DEFINED_IN = {
    "EMMET": "lightning_edit.solvers",
    "MEMIT": "lightning_edit.solvers",
    "PRUNE": "lightning_edit.solvers",
    "RECT": "lightning_edit.solvers",
    "REVIVE": "lightning_edit.solvers",
    "ROME": "lightning_edit.solvers",
    "RROME": "lightning_edit.solvers",
    "SPHERE": "lightning_edit.solvers",
    "AlphaEdit": "lightning_edit.solvers",
    "ChatSettings": "lightning_edit.asking.chat",
    "ContextTemplates": "lightning_edit.keys.context_templates",
    "CrispEdit": "lightning_edit.run.methods.crispedit",
    "EditError": "lightning_edit.errors",
    "EditRequest": "lightning_edit.requests",
    "EditResult": "lightning_edit.api",
    "EvoEdit": "lightning_edit.solvers",
    "EditingModule": "lightning_edit.run.module",
    "FineTuning": "lightning_edit.run.methods.fine_tuning",
    "Gradient": "lightning_edit.gradients.gradient",
    "InContext": "lightning_edit.run.methods.in_context",
    "JudgeSettings": "lightning_edit.metrics.judging.settings",
    "LoRA": "lightning_edit.run.methods.lora",
    "LyapLock": "lightning_edit.solvers",
    "Memories": "lightning_edit.memories.wrapped",
    "MemoryEditing": "lightning_edit.run.methods.memory_editing",
    "ModelUpdate": "lightning_edit.updates.model_update",
    "OutputMEMIT": "lightning_edit.solvers",
    "Query": "lightning_edit.ripples",
    "Ridge": "lightning_edit.solvers",
    "Ripple": "lightning_edit.ripples",
    "SecondMomentSettings": "lightning_edit.keys.layer_stats",
    "SimIE": "lightning_edit.solvers",
    "Sum": "lightning_edit.solvers",
    "ValueSettings": "lightning_edit.values.settings",
    "WildSettings": "lightning_edit.metrics.wild.settings",
    "Windows": "lightning_edit.windows.windows",
    "edit": "lightning_edit.api",
    "edited": "lightning_edit.api",
    "inserted": "lightning_edit.updates.model_update",
    "judged": "lightning_edit.api",
    "load_memories": "lightning_edit.memories.folder",
}

# In a clone some parts of the package lie beside it; an installed package contains them.
_FOLDER = Path(__file__).parent
if not (_FOLDER / "configs").is_dir():
    __path__.append(str(_FOLDER.parent))

__all__ = [
    "EMMET",
    "MEMIT",
    "PRUNE",
    "RECT",
    "REVIVE",
    "ROME",
    "RROME",
    "SPHERE",
    "AlphaEdit",
    "ChatSettings",
    "ContextTemplates",
    "CrispEdit",
    "EditError",
    "EditRequest",
    "EditResult",
    "EditingModule",
    "EvoEdit",
    "FineTuning",
    "Gradient",
    "InContext",
    "JudgeSettings",
    "LoRA",
    "LyapLock",
    "Memories",
    "MemoryEditing",
    "ModelUpdate",
    "OutputMEMIT",
    "Query",
    "Ridge",
    "Ripple",
    "SecondMomentSettings",
    "SimIE",
    "Sum",
    "ValueSettings",
    "WildSettings",
    "Windows",
    "__version__",
    "edit",
    "edited",
    "inserted",
    "judged",
    "load_memories",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = import_module("lightning_edit.version").own_version()
    elif name in _DEFINED_IN:
        value = getattr(import_module(_DEFINED_IN[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
