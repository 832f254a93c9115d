"""Lightning's strategy for models that are divided between processes, with one file for a checkpoint."""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry


class ShardedModelStrategy(ModelParallelStrategy):
    """`ModelParallelStrategy` as editing needs it: a checkpoint is one file, and is read before the fit begins.

    It goes by the name ``ModelParallelStrategy`` in ``trainer.strategy``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(save_distributed_checkpoint=False, **kwargs)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """No: the model is divided when the module is set up, and `on_fit_start` must know where the run goes on."""
        return False

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """None: no weight is trained."""
        return {}


# Lightning reads names in small letters.
for name in (ModelParallelStrategy.__name__.lower(), "model_parallel"):
    StrategyRegistry.register(name, ShardedModelStrategy, "Divides the weights between processes.", override=True)
