"""Which Lightning trainers can edit."""

import os
from typing import Any

from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from lightning_edit.distributed.strategy import ShardedModelStrategy
from lightning_edit.errors import EditError
from lightning_edit.models.precision import autocast_now

# Most processes for each core of a processor.
PROCESSES = 8
# Settings of the optimization, and what they are where they change nothing.
OF_STEPS = {"accumulate_grad_batches": (1,), "gradient_clip_val": (None, 0, 0.0)}
STRATEGIES = ("auto", "modelparallelstrategy", "model_parallel", "fsdp")


def check_trainer(trainer: Any, fit: bool, single_epoch: bool = True, many_processes: bool = True) -> None:
    """Refuses settings of a trainer that do not suit editing.

    Args:
        trainer: The Lightning trainer.
        fit: Whether it is to edit, and not only to measure.
        single_epoch: Whether each edit is made in one step, or trained for several epochs.
        many_processes: Whether the method knows how to share its work.

    Raises:
        EditError: For processes that cannot work together, a device without float64, more than one epoch, fewer than
            all edits, no time, a precision plugin or autocast.
    """
    _check_processes(trainer)
    if trainer.world_size > 1 and not many_processes:
        raise EditError(f"This method runs on one device, got {trainer.world_size}. Set `trainer.devices: 1`.")
    _check_strategy(trainer.strategy)
    if trainer.strategy.root_device.type == "mps":
        raise EditError("The solvers need float64, which this device has not. Set `trainer.accelerator: cpu`.")
    if trainer.precision != "32-true":
        raise EditError(f"`model.dtype` sets the precision of a model, not `trainer.precision` ({trainer.precision}).")
    if on := autocast_now():
        raise EditError(
            f"`model.dtype` sets the precision of a model, and `torch.autocast` is on ({', '.join(on.values())}). "
            "Fit and test outside of it."
        )
    _check_all_edits(trainer, fit, single_epoch)
    if fit:
        _check_time(trainer)
    if fit and single_epoch:
        _check_steps(trainer)
    if fit and single_epoch and trainer.max_epochs != 1:
        raise EditError(f"Each edit is made once: set `trainer.max_epochs` to 1, got {trainer.max_epochs}.")
    if fit and not single_epoch and (trainer.max_epochs is None or trainer.max_epochs < 1):
        raise EditError(
            f"Fine-tuning needs a number of passes over the edits: set `trainer.max_epochs` to 1 or more (25 in the "
            f"papers), got {trainer.max_epochs}."
        )


def _check_processes(trainer: Any) -> None:
    """Refuses processes that would bring a machine to a standstill before one of them does anything."""
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > PROCESSES * cores:
        raise EditError(
            f"`trainer.devices`: {trainer.num_devices} processes for {cores} cores; more than {PROCESSES} a core wait "
            "for each other. Give as many as there are cores, or fewer."
        )


def _check_time(trainer: Any) -> None:
    """Refuses a limit of time that ends a fit before its first edit."""
    left = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]
    if any(seconds is not None and seconds <= 0 for seconds in left):
        raise EditError(
            "`trainer.max_time` leaves no time for the first edit: give days:hours:minutes:seconds, such as "
            "00:02:00:00 for two hours, or leave it out."
        )


def _check_steps(trainer: Any) -> None:
    """Refuses settings of Lightning's own optimization, which values have not."""
    given = {name: getattr(trainer, name) for name, usual in OF_STEPS.items() if getattr(trainer, name) not in usual}
    if given:
        names = " and ".join(f"`trainer.{name}` ({value})" for name, value in given.items())
        raise EditError(
            f"{names} would change steps of training, and these edits are not trained: leave it out. How many edits "
            "have their values searched at once is `data.batch_size`."
        )


def _check_all_edits(trainer: Any, fit: bool, single_epoch: bool) -> None:
    """Refuses what would silently make or measure some of the edits only."""
    if trainer.fast_dev_run:
        raise EditError(
            "`trainer.fast_dev_run` makes one batch of edits and keeps nothing. For a quick trial set `data.limit: 1` "
            "(`data.edits: 1` for TinyWorld)."
        )
    for name in [*(["limit_train_batches"] if fit else []), "limit_test_batches"]:
        # A whole number counts batches, a fraction is a share of them.
        limit = getattr(trainer, name)
        if not (isinstance(limit, float) and limit == 1):
            raise EditError(
                f"`trainer.{name}` leaves out edits of the run, got {limit}. Leave it out and choose "
                "edits by `data.limit`, `data.indices` or `data.case_ids` (`data.edits` for TinyWorld)."
            )
    if fit and single_epoch and trainer.max_steps != -1:
        raise EditError(f"Edits are not counted in steps: leave out `trainer.max_steps`, got {trainer.max_steps}.")


def check_strategy_name(name: Any) -> None:
    """Refuses the name of a strategy that is none, or cannot edit.

    Args:
        name: What the user gave; anything but a text is left to `check_trainer`.

    Raises:
        EditError: Says which there are.
    """
    if isinstance(name, str) and name.lower() not in STRATEGIES and not name.startswith("ddp"):
        raise EditError(
            "`trainer.strategy` must be auto, ddp (several processes share the work) or ModelParallelStrategy (they "
            f"share the weights of a model that is too large for one device), got {name}."
        )


def _check_strategy(strategy: Any) -> None:
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy) and not isinstance(strategy, ShardedModelStrategy):
        raise EditError(
            "A model that is too large for one device is divided between processes by `trainer.strategy: "
            "ModelParallelStrategy`, the name alone (`strategy=ShardedModelStrategy()` in Python), got "
            f"{type(strategy).__name__}."
        )
    # What is edited in processes that are forked or spawned would be lost with them.
    inside = getattr(strategy, "_start_method", "popen") != "popen"
    if inside or not isinstance(strategy, SingleDeviceStrategy | DDPStrategy | ShardedModelStrategy):
        raise EditError(
            "Several processes edit with `trainer.strategy: ddp`, or `ModelParallelStrategy` for a model that is too "
            f"large for one device, got {type(strategy).__name__}{' of forked or spawned processes' if inside else ''}."
        )
