"""What an editing module offers to callbacks beyond Lightning's own hooks."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lightning.pytorch.callbacks import Callback
from torch import nn

from lightning_edit.asking.chat import ChatSettings, World
from lightning_edit.keys.named_prompts import Prompts
from lightning_edit.loggers import LoggersOfRun
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.same_run import RunIdentity
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Checked
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.model_update import ModelUpdate


class EditingRun(Protocol):
    """A module under way, as callbacks and checkpoints see it.

    Attributes:
        kind: How the edits are made, see `RunFigures`.
        measured_again: Whether a checkpoint is tested, for which nothing of the fit is prepared.
        idle: The settings that have no effect beside the others, see `idle_settings`.
        by_updates: Whether edits are written in updates during the fit, after each of which a stopped run can go on.
        adds_to_weights: Whether an update is something that is added to weights, and can be taken out again by itself.
        model: The transformers model.
        codes: The quantized modules beside whose codes the updates are kept, by name.
        model_name: The folder or name it was loaded from.
        layers: The edited layers.
        weights: Their weights.
        loop: What waits, what is written, and where a stopped run goes on.
        identity: What the run depends on.
        update: The whole update of the run, once the fit is over.
        results: Figures under ``before`` and ``after``.
        curves: What was measured on the way.
        preserved: The prompts that the run names to be preserved, see `named_prompts`.
        sections: What callbacks add to ``metrics.json``, by name.
        chat_settings: How a chat is asked.
        evaluation: What is measured of each edit.
        seconds: Time spent on each stage.
        on_top_of: The checkpoint of an earlier run that this one is built upon.
        loggers_of_run: All loggers, which are given the same.
    """

    kind: Any
    measured_again: bool
    idle: frozenset[str]
    by_updates: bool
    adds_to_weights: bool
    model: Any
    codes: Mapping[str, nn.Module]
    model_name: str
    tokenizer: Any
    chat_settings: ChatSettings
    evaluation: EvaluationSettings
    decoder: Decoder
    layers: list[int]
    weights: EditedWeights
    loop: UpdateLoop
    identity: RunIdentity
    update: ModelUpdate | None
    results: dict[str, dict[str, float]]
    curves: list[dict[str, Any]]
    preserved: Mapping[World, Prompts]
    sections: dict[str, Any]
    seconds: dict[str, float]
    on_top_of: str | None
    hparams: Any
    trainer: Any
    loggers: Sequence[Any]
    loggers_of_run: LoggersOfRun

    @property
    def requests(self) -> Sequence[EditRequest]:
        """All edits of the run."""

    @property
    def positions_so_far(self) -> Sequence[int]:
        """Where those of `requests_so_far` are among all edits."""

    @property
    def requests_so_far(self) -> Sequence[EditRequest]:
        """The edits that the model has learned by now, those that wait for their update included."""

    @property
    def levers(self) -> Mapping[str, float]:
        """Settings of the method by which it writes more or does less harm, see `RunFigures`."""

    @property
    def report(self) -> Report:
        """Where progress goes."""

    def configure_model(self) -> None:
        """Loads the model, once."""

    def describe(self) -> dict[str, Any]:
        """What a checkpoint and ``metrics.json`` hold beside the settings."""

    def restore(self, state: RunState, described: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written."""

    def take_before(self, edits: Mapping[str, Any]) -> None:
        """Takes over what a checkpoint says of the unedited model."""

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Adds the time of a ``with`` block to a stage."""

    def log_figures(self, figures: dict[str, float], step: int) -> None:
        """Gives figures to all loggers."""


class EditCallback(Checked, Callback):
    """A callback with hooks for the moments of an editing run; all of them do nothing here.

    Attributes:
        called_last: Whether the others are called first.
    """

    called_last = False

    def on_resume(self, trainer: Any, pl_module: EditingRun) -> None:
        """Called when a fit goes on from a checkpoint, before the run is restored; `run_folder` is that run's now."""

    def on_values_found(self, trainer: Any, pl_module: EditingRun) -> None:
        """Called after each micro-batch has its values; they are not written yet, see `UpdateLoop.edits_so_far`."""

    def on_edits_written(self, trainer: Any, pl_module: EditingRun) -> None:
        """Called after each update; the weights are edited, and `UpdateLoop.refuse` can still undo it."""

    def on_update_refused(self, trainer: Any, pl_module: EditingRun) -> None:
        """Called when an update was undone; what was measured of it is to be forgotten."""

    def on_update_kept(self, trainer: Any, pl_module: EditingRun) -> None:
        """Called when an update counts; a run that is resumed from here repeats nothing of what came before."""

    def on_edits_done(self, trainer: Any, pl_module: EditingRun) -> None:
        """Called once after the last update, still on the training device."""


def call_hooks(module: EditingRun, hook: str) -> None:
    """Calls a hook of all callbacks that have it.

    Args:
        module: The module under way.
        hook: Name of one of the hooks of `EditCallback`.
    """
    callbacks: Sequence[EditCallback] = [c for c in module.trainer.callbacks if isinstance(c, EditCallback)]
    for callback in sorted(callbacks, key=lambda callback: callback.called_last):
        getattr(callback, hook)(module.trainer, module)
