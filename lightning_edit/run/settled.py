"""Settings that are known only once the model is loaded."""

import copy
from typing import Any

from lightning.pytorch import LightningModule


class Settled(LightningModule):
    """A module whose hyperparameters say what was settled in place of ``auto``: in checkpoints, reports and loggers."""

    def settle(self, **settings: Any) -> None:
        """Replaces hyperparameters by what they come to for the model.

        Args:
            **settings: The settled values by name.
        """
        self.hparams.update(settings)

    @property
    def hparams_initial(self) -> Any:
        """What loggers write, which is the settled settings."""
        return copy.deepcopy(self.hparams)
