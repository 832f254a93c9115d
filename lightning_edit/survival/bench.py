"""The model of a run and its edits, put in and out; between two variants it is the unedited model, bit for bit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lightning_edit.loading.editable import Loaded
from lightning_edit.models.decoder import Decoder, find_decoder
from lightning_edit.solvers import Factors
from lightning_edit.updates.files.saved import Saved
from lightning_edit.updates.model_update import ModelUpdate, inserted


class Bench:
    """One model at a time: the base model of a run, loaded when it is needed, and let go for another one.

    Args:
        open_run: Opens the run's edits and their base model, see `open_saved`.
        device: Where models run.
        down_projection: See `find_decoder`.
    """

    def __init__(
        self, open_run: Callable[[], Saved], device: torch.device | None = None, down_projection: str | None = None
    ) -> None:
        self._open = open_run
        self._opened: Saved | None = None
        self.device, self._down_projection = device, down_projection
        saved = self.saved
        self.update, self.source = saved.update, saved.source

    @property
    def saved(self) -> Saved:
        """The edits, with their base model on the device."""
        if self._opened is None:
            self._opened = self._open()
            self.place(self._opened.base.model)
        return self._opened

    @property
    def base(self) -> Loaded:
        """The unedited model."""
        return self.saved.base

    @property
    def decoder(self) -> Decoder:
        """The same as editing sees it."""
        return find_decoder(self.base.model, self._down_projection)

    def place(self, model: Any) -> Any:
        """Puts a model on the device, unless it is there already or may not be moved.

        Args:
            model: The model.
        """
        # Some quantized models may not be moved; they are loaded where they run.
        there = self.device is None or model.device.type == self.device.type
        return model if there else model.to(self.device)

    def release(self) -> None:
        """Lets the base model go, so that there is room for another one."""
        self._opened = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # -- variants of the weights ---------------------------------------------------------------------------------------

    @contextmanager
    def edited(self, weight: float = 1.0) -> Iterator[ModelUpdate | None]:
        """The model with W = cast(W0 + weight Delta), inside a ``with`` block.

        Args:
            weight: From 0, the base itself, to 1, the edited model.

        Yields:
            The update that is in the model; None where none is.
        """
        if weight == 0:
            yield None
            return
        update = scaled(self.saved.update, weight)
        with inserted(self.base.model, update):
            yield update

    @contextmanager
    def without(self, update: ModelUpdate | None) -> Iterator[None]:
        """The unedited model while an update is in it, inside a ``with`` block.

        Args:
            update: What `edited` yields.
        """
        if update is None:
            yield
            return
        update.remove(self.base.model)
        try:
            yield
        finally:
            update.insert(self.base.model)


def scaled(update: ModelUpdate, weight: float) -> ModelUpdate:
    """A part of an update.

    Args:
        update: The update.
        weight: By which each of its matrices is multiplied.
    """
    layers = {
        place: replace(one, factors=Factors(one.factors.left * weight, one.factors.right))
        for place, one in update.layers.items()
    }
    return ModelUpdate(layers, update.info)


def run_folder_of(given: Path) -> Path:
    """What is opened where the folder of a run's edited model is given: the run's own.

    Args:
        given: A run's folder, an update, a checkpoint, or a run's ``model/``.
    """
    inside = given.name == "model" and (given / "config.json").is_file()
    return given.parent if inside and not (given / "metrics.json").exists() else given
