"""The loggers of a run: all of them are given the same, and one that fails never ends the run."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lightning_edit.loggers.adapter import LoggerAdapter
from lightning_edit.loggers.content import RunContent
from lightning_edit.loggers.failing import advice_on
from lightning_edit.loggers.mlflow import MLflowAdapter
from lightning_edit.loggers.tensorboard import TensorBoardAdapter
from lightning_edit.loggers.wandb import WandbAdapter
from lightning_edit.messages import one_line

ADAPTERS: dict[type, type[LoggerAdapter]] = {
    TensorBoardLogger: TensorBoardAdapter,
    WandbLogger: WandbAdapter,
    MLFlowLogger: MLflowAdapter,
}


def adapter_of(logger: Any) -> LoggerAdapter:
    """How a run uses a logger.

    Args:
        logger: One of Lightning's, or a subclass of one.
    """
    kind = next((adapter for known, adapter in ADAPTERS.items() if isinstance(logger, known)), LoggerAdapter)
    return kind(logger)


class LoggersOfRun:
    """Gives what a run shows to all loggers of its trainer.

    A logger that fails, be it that a server is gone or a disk full, is left out from then on, and a warning says so:
    what was edited is worth more than what is shown of it.

    Args:
        module: The module of the run, which knows the trainer.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._adapters: dict[int, LoggerAdapter] = {}
        self.tags: set[str] = set()

    def __iter__(self) -> Iterator[LoggerAdapter]:
        for logger in tuple(self._module.trainer.loggers):
            known = self._adapters.get(id(logger))
            if known is None or known.logger is not logger:
                self._adapters[id(logger)] = known = adapter_of(logger)
            yield known

    @rank_zero_only
    def figures(self, figures: Mapping[str, float], step: int) -> None:
        """Gives figures; see `LoggerAdapter.figures`.

        Args:
            figures: Numbers by name.
            step: What they are drawn against.
        """
        if figures:
            self.tags |= figures.keys()
            self.each(lambda one: one.figures(figures, step))

    @rank_zero_only
    def distributions(self, values: Mapping[str, Any], step: int) -> None:
        """Gives the values of figures over several edits; see `LoggerAdapter.distribution`.

        Args:
            values: Tensors ``[edits]`` by name.
            step: What they are drawn against.
        """
        for name, one in values.items():
            self.each(lambda adapter, name=name, one=one: adapter.distribution(name, one, step))  # type: ignore[misc]

    @rank_zero_only
    def content(self, content: RunContent, step: int) -> None:
        """Gives what a finished run has to show.

        Args:
            content: All of it.
            step: The number of edits.
        """
        self.each(lambda one: _give(one, content, step))

    @rank_zero_only
    def know(self, tags: set[str]) -> None:
        """Takes over which figures an earlier part of a resumed run has given.

        Args:
            tags: Their names.
        """
        self.tags |= tags
        self.each(lambda one: one.know(sorted(tags)))

    def each(self, use: Callable[[LoggerAdapter], None]) -> None:
        """Does something with each logger, and leaves out those that fail.

        Args:
            use: What to do.
        """
        for adapter in self:
            try:
                use(adapter)
            except Exception as error:  # noqa: BLE001  (whatever a logger, its server or its disk may raise)
                self._leave_out(adapter, error)

    def _leave_out(self, adapter: LoggerAdapter, error: Exception) -> None:
        trainer, name = self._module.trainer, type(adapter.logger).__name__
        trainer.loggers = [one for one in trainer.loggers if one is not adapter.logger]
        rank_zero_warn(
            f"{name} failed and is left out from here on; the run continues, and its files are complete without it. "
            f"{type(error).__name__}: {one_line(error)}. {advice_on(error)}".strip()
        )


def _give(adapter: LoggerAdapter, content: RunContent, step: int) -> None:
    if not adapter.shows_runs:
        return
    adapter.text("overview", content.overview, step)
    for table in content.tables:
        adapter.table(table, step)
    for name, png in content.pictures.items():
        adapter.picture(name, png, step)
    adapter.settings(content.settings, content.figures, step)
    if content.page is not None and adapter.keeps_files:
        adapter.page(content.page)
