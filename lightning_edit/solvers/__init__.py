"""Solvers of the preservation-memorization least squares, one a file; they know nothing but tensors."""

from lightning_edit.solvers.alphaedit import AlphaEdit
from lightning_edit.solvers.base import EditProblem, Factors, Solution, Solver
from lightning_edit.solvers.cholesky import SingularError
from lightning_edit.solvers.emmet import EMMET
from lightning_edit.solvers.layer_solver import LayerSolver
from lightning_edit.solvers.memit import MEMIT
from lightning_edit.solvers.post_processing import PRUNE, RECT, PostProcessor
from lightning_edit.solvers.previous_keys import PreviousKeys
from lightning_edit.solvers.ridge import Ridge
from lightning_edit.solvers.rome import ROME, RROME

__all__ = [
    "EMMET",
    "MEMIT",
    "PRUNE",
    "RECT",
    "ROME",
    "RROME",
    "AlphaEdit",
    "EditProblem",
    "Factors",
    "LayerSolver",
    "PostProcessor",
    "PreviousKeys",
    "Ridge",
    "SingularError",
    "Solution",
    "Solver",
]
