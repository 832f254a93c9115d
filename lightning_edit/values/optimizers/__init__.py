"""How deltas move between two passes: one file for each optimizer."""

from torch import Tensor

from lightning_edit.values.optimizers.adam import Adam
from lightning_edit.values.optimizers.base import Optimizer
from lightning_edit.values.optimizers.descent import Descent
from lightning_edit.values.settings import ValueSettings

__all__ = ["Adam", "Descent", "Optimizer", "optimizer_for"]


def optimizer_for(settings: ValueSettings, delta: Tensor, z0: Tensor) -> Optimizer:
    """The optimizer that the settings name.

    Args:
        settings: See `ValueSettings`.
        delta: ``(n, d_model)``, what it moves; a leaf that requires gradients.
        z0: ``(n, d_model)``, the unedited states, by whose norms lengths are measured.
    """
    if settings.optimizer == "descent":
        return Descent(delta, settings.radius * z0.norm(dim=1), settings.growth)
    return Adam(delta, settings.lr)
