"""What holds the updates of a long sequence to what came before them: one file for each anchor."""

from lightning_edit.solvers.anchors.base import Anchor, AnchoredSolution, Memory, Standing
from lightning_edit.solvers.anchors.evoedit import EvoEdit
from lightning_edit.solvers.anchors.lyaplock import LyapLock
from lightning_edit.solvers.anchors.simie import SimIE

__all__ = ["Anchor", "AnchoredSolution", "EvoEdit", "LyapLock", "Memory", "SimIE", "Standing"]
