"""What may be done to an update after it is solved: one file for each way, or for those that share their algebra."""

from lightning_edit.solvers.post_processing.base import PostProcessor
from lightning_edit.solvers.post_processing.prune import PRUNE
from lightning_edit.solvers.post_processing.rect import RECT
from lightning_edit.solvers.post_processing.spectral import REVIVE, SPHERE

__all__ = ["PRUNE", "RECT", "REVIVE", "SPHERE", "PostProcessor"]
