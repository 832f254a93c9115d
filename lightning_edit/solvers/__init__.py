"""Solvers of the preservation-memorization least squares, and what goes with them; they know nothing but tensors."""

from lightning_edit.solvers.alphaedit import AlphaEdit
from lightning_edit.solvers.anchors import Anchor, EvoEdit, LyapLock, SimIE
from lightning_edit.solvers.base import EditProblem, Factors, Solution, Solver
from lightning_edit.solvers.cholesky import SingularError
from lightning_edit.solvers.emmet import EMMET
from lightning_edit.solvers.layer_solver import LayerSolver
from lightning_edit.solvers.memit import MEMIT
from lightning_edit.solvers.output_memit import OutputDirections, OutputMEMIT
from lightning_edit.solvers.post_processing import PRUNE, RECT, REVIVE, SPHERE, PostProcessor
from lightning_edit.solvers.previous_keys import PreviousKeys
from lightning_edit.solvers.ridge import Ridge
from lightning_edit.solvers.rome import ROME, RROME
from lightning_edit.solvers.sum import Sum

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
    "Anchor",
    "EditProblem",
    "EvoEdit",
    "Factors",
    "LayerSolver",
    "LyapLock",
    "OutputDirections",
    "OutputMEMIT",
    "PostProcessor",
    "PreviousKeys",
    "Ridge",
    "SimIE",
    "SingularError",
    "Solution",
    "Solver",
    "Sum",
]
