"""What all measurements in the middle of a run share: when they happen, and that they leave no trace in the model."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_edit.errors import EditError
from lightning_edit.models.hooks import frozen
from lightning_edit.run.edit_callback import EditCallback, EditingRun
from lightning_edit.settings import Count
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.run_folder import run_folder

# What goes with a figure under its name; a mean alone is drawn as a curve.
SPREAD = ("_stderr", "_n")


class Scheduled(EditCallback, ABC):
    """Measures something before editing, every so often, and after the last edit.

    Each measurement sees the edits so far, also those that have values and no update yet. Model, random state and
    training mode are afterwards as they were. Figures go to the loggers against the number of edits, and to
    ``curves.jsonl`` in the run's folder. Where every update starts from the unedited model, each is measured by itself,
    and the mean over them is kept, once.

    Args:
        every_n_updates: Measure after this many updates; None only before and after.
        every_n_micro_batches: Measure after this many micro-batches of edits, which matters where all edits are
            written in one update; None never.
        before: Whether to measure the unedited model.
        after: Whether to measure after the last edit.
    """

    def __init__(
        self,
        every_n_updates: Count | None = 1,
        every_n_micro_batches: Count | None = None,
        before: bool = True,
        after: bool = True,
    ) -> None:
        self.every_n_updates, self.every_n_micro_batches = every_n_updates, every_n_micro_batches
        self.before, self.after = before, after
        self._module: Any = None
        self._measured_at: set[int] = set()
        self._each_update: list[dict[str, float]] = []

    @property
    def active(self) -> bool:
        """Whether there is anything to measure; a callback that is not active costs nothing."""
        return True

    @property
    def stage(self) -> str:
        """What the time that it takes is called among those of the run."""
        return type(self).__name__.lower()

    @abstractmethod
    def check(self, trainer: Any, module: EditingRun) -> None:
        """Refuses bad settings before any editing; the model is loaded.

        Raises:
            EditError: If something could not be measured later.
        """

    @abstractmethod
    def measure(self, trainer: Any, module: EditingRun) -> dict[str, float]:
        """The figures of the model as it is now, under the names they are to have."""

    def setup(self, trainer: Any, pl_module: EditingRun, stage: str) -> None:
        """Checks the settings once for each module.

        Raises:
            EditError: If the module has no such moments, or for what `check` refuses.
        """
        if not self.active or self._module is pl_module:
            return
        if self.every_n_micro_batches is not None and (pl_module.loop.independent or not pl_module.by_updates):
            why = f"with `{'independent_updates' if pl_module.loop.independent else type(pl_module).__name__}`"
            raise EditError(
                f"{type(self).__name__}: `every_n_micro_batches` measures edits that wait for their update, and {why} "
                "there are none. Set it to null."
            )
        pl_module.configure_model()
        self.check(trainer, pl_module)
        self._module, self._measured_at = pl_module, set()
        self._each_update.clear()

    @property
    def state_key(self) -> str:
        """Tells callbacks of one class apart by their settings."""
        plain = str | int | float | list | tuple
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return self._generate_state_key(**{name: v for name, v in settings.items() if isinstance(v, plain | None)})

    def state_dict(self) -> dict[str, Any]:
        """What was measured already."""
        return {"measured_at": sorted(self._measured_at), "each_update": self._each_update}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self._measured_at, self._each_update = set(state_dict["measured_at"]), list(state_dict["each_update"])

    def on_fit_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the unedited model, if no test has done so."""
        if pl_module.identity.resumed:
            # What was measured after the checkpoint is cut from the logs and measured again.
            self._measured_at = {edits for edits in self._measured_at if edits <= pl_module.loop.edits_written}
        elif self.before:
            self._measure(trainer, pl_module)

    def on_test_end(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the model that was tested."""
        edited = pl_module.loop.edits_written > 0
        if (self.after if edited else self.before) and not (edited and pl_module.loop.independent):
            self._measure(trainer, pl_module)

    def on_values_found(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the edits so far, where it is time by micro-batches."""
        if self.every_n_micro_batches is not None and pl_module.loop.micro_batches % self.every_n_micro_batches == 0:
            self._measure(trainer, pl_module)

    def on_edits_written(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the edited model, where it is time by updates."""
        if self.every_n_updates is not None and pl_module.loop.updates_written % self.every_n_updates == 0:
            self._measure(trainer, pl_module)

    def on_update_refused(self, trainer: Any, pl_module: EditingRun) -> None:
        """Forgets the model that was undone."""
        self._measured_at = {edits for edits in self._measured_at if edits <= pl_module.loop.edits_written}

    def on_edits_done(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the finished model, if the last update did not."""
        if pl_module.loop.post_processed:
            self._measured_at.discard(pl_module.loop.edits_written)
        if pl_module.loop.independent:
            if not pl_module.loop.was_finished:
                self._keep(trainer, pl_module, _mean(self._each_update))
        elif self.after:
            self._measure(trainer, pl_module)

    def _measure(self, trainer: Any, module: EditingRun) -> None:
        edits = module.loop.edits_written + module.loop.queue.waiting
        if not self.active or edits in self._measured_at:
            return
        with untouched(module), module.loop.edits_so_far(module.requests), module.timed(self.stage):
            figures = self.measure(trainer, module)
        self._measured_at.add(edits)
        if module.loop.independent and edits:
            self._each_update.append(figures)
        else:
            self._keep(trainer, module, figures)

    def _keep(self, trainer: Any, module: EditingRun, figures: dict[str, float]) -> None:
        if not figures or not trainer.is_global_zero:
            return
        edits = module.loop.edits_written + module.loop.queue.waiting
        means = {name: value for name, value in figures.items() if not name.endswith(SPREAD)}
        module.log_figures(means, edits)
        module.curves.append({"edits": edits, "updates": module.loop.updates_written, "figures": figures})
        if not trainer.fast_dev_run:
            path = run_folder(trainer) / "curves.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if len(module.curves) > 1 else "w", encoding="utf-8") as file:
                file.write(to_json(module.curves[-1]) + "\n")


@contextmanager
def untouched(module: EditingRun) -> Iterator[None]:
    """Measures inside: random state, training mode and gradients are as they were afterwards.

    Args:
        module: The module whose model is measured.
    """
    with isolate_rng(), torch.no_grad(), frozen(module.model):
        yield


def _mean(measured: list[dict[str, float]]) -> dict[str, float]:
    """Means over updates; the standard error of one update's figure says nothing of their mean's."""
    names = [name for name in (measured[0] if measured else ()) if not name.endswith(SPREAD)]
    return {name: statistics.fmean(figures[name] for figures in measured) for name in names}
