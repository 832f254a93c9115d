"""The figures of a run: a table on the terminal and ``metrics.json``."""

import platform
from importlib import metadata
from statistics import fmean
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_edit.callbacks.failed_edits import NotesFailures
from lightning_edit.collateral.advice import RunFigures, advice
from lightning_edit.collateral.table import tables
from lightning_edit.loop.same_run import plain
from lightning_edit.messages import terminal
from lightning_edit.metrics.ripples.table import tables as ripple_tables
from lightning_edit.metrics.table import generation_lines, table
from lightning_edit.metrics.wild.kept import notes
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import settings_without_effect
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.run_folder import run_folder
from lightning_edit.version import own_version


class EditReport(NotesFailures):
    """After each test of an edited model: a table before -> after, and ``metrics.json`` in the run's folder.

    Args:
        table: Whether to print the table.

    Attributes:
        command: What the figures are of, ``fit`` or ``test``: a fit measures the unedited model before it begins, which
            only the command line knows by then.
    """

    def __init__(self, table: bool = True) -> None:
        self.table = table
        self.command = "test"

    def on_fit_start(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Notes that the figures are those of a fit, and not of a checkpoint that is measured again."""
        self.command = "fit"

    def on_exception(self, trainer: Trainer, pl_module: EditingRun, exception: BaseException) -> None:
        """Says where the figures are when a run is stopped from outside."""
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.is_global_zero:
            message = f"Stopped. What was measured so far is in {run_folder(trainer)}."
            terminal(stderr=True).print(message, soft_wrap=True)

    def on_test_end(self, trainer: Trainer, pl_module: EditingRun) -> None:
        """Writes the figures known so far; the table waits for the edited model."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        folder = run_folder(trainer)
        with atomic_path(folder / "metrics.json") as scratch:
            scratch.write_text(to_json(self._figures(trainer, pl_module), indent=2) + "\n")
        if self.table and "after" in pl_module.results:
            console = terminal()
            console.print(table(pl_module.results, pl_module.loop.edits_written))
            for line in generation_lines(pl_module.results):
                console.print(line)
            for line in notes(pl_module.sections["wild"]) if "wild" in pl_module.sections else ():
                console.print(line, soft_wrap=True)
            for drawn in ripple_tables(pl_module.results, pl_module.sections.get("ripples", {})):
                console.print(drawn)
            for shown in tables(pl_module.sections["collateral"]) if "collateral" in pl_module.sections else ():
                console.print(shown)
            for line in self._advice(trainer, pl_module):
                console.print(line, soft_wrap=True, style="yellow")
            # A source gives an edit as many values as it has windows, or a gradient for each token.
            found = "values" if getattr(pl_module, "pairs_from", None) is None else "edits"
            line = times(pl_module.loop.edits_written, pl_module.seconds, found)
            console.print(line, soft_wrap=True, style="dim")
            if pl_module.loop.independent:
                console.print("Each update was made on the unedited model, so no edited model is kept.")
            console.print(f"Results: {folder}", soft_wrap=True)

    def _figures(self, trainer: Trainer, pl_module: EditingRun) -> dict[str, Any]:
        return {
            "command": self.command,
            "before": pl_module.results.get("before"),
            "after": pl_module.results.get("after"),
            "edits": pl_module.loop.edits_written,
            "left_out": pl_module.loop.left_out,
            "not_made": _not_made(pl_module),
            "stopped": pl_module.loop.stopped,
            "records_left_out": trainer.datamodule.left_out,
            **pl_module.sections,
            "versions": _versions(),
            "seconds": {name: round(value, 3) for name, value in pl_module.seconds.items()},
            "config": {
                **plain({"model": pl_module.hparams, "data": trainer.datamodule.hparams}),
                **pl_module.describe(),
            },
            "settings_without_effect": sorted(
                settings_without_effect({"model": type(pl_module), "data": type(trainer.datamodule)}, "methods")
                | {f"model.{name}" for name in pl_module.idle}
            ),
        }

    def _advice(self, trainer: Trainer, pl_module: EditingRun) -> list[str]:
        """What to change in the next run, see `advice`."""
        made, failed = self.among_made(trainer, pl_module)
        of_run = pl_module.identity.knows(pl_module.requests)
        known = [pl_module.loop.value_losses.get(place) for place in failed] if of_run else []
        losses = [loss for loss in known if loss is not None]
        last = pl_module.loop.last_update
        growth = {} if last is None or pl_module.loop.independent else last.figures
        figures = RunFigures(
            edits=made,
            failed=len(failed),
            failed_loss=fmean(losses) if losses else None,
            growth={
                name.split("/")[0].removeprefix("layer_"): value
                for name, value in growth.items()
                if name.endswith("/weight_growth")
            },
            before=pl_module.results.get("before") or {},
            after=pl_module.results["after"],
            collateral=pl_module.sections.get("collateral", {}).get("figures", {}),
            kind=pl_module.kind,
            single_texts=_of_single_texts(pl_module),
            levers=pl_module.levers,
        )
        return advice(figures)


def _not_made(module: EditingRun) -> int:
    """How many edits had no turn, as the run ended before; the figures count them as edits that failed."""
    if not module.loop.edits_written or not module.identity.knows(module.requests):
        return 0
    return len(module.requests) - len(module.positions_so_far) - len(module.loop.left_out)


def _of_single_texts(module: EditingRun) -> bool:
    """Whether a run has a second moment of ordinary text that is not joined."""
    settings, solver = getattr(module, "moment_settings", None), getattr(module, "solver", None)
    needed = solver is None or solver.needs_second_moment
    return settings is not None and settings.source == "text" and not settings.join_texts and needed


def _versions() -> dict[str, str]:
    """What ran: Python, and the packages that a result may depend on."""
    packages = {name: metadata.version(name) for name in ("lightning", "torch", "transformers")}
    return {"python": platform.python_version(), "lightning-edit": own_version(), **packages}


def times(edits: int, seconds: dict[str, float], found: str = "values") -> str:
    """Where the time went, in one line.

    Args:
        edits: Number of edits written.
        seconds: Seconds of each stage.
        found: What there is one of for each edit.
    """
    spent = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items() if value)
    of_values = seconds.get("values", 0)
    return f"{spent}; {edits / of_values:.1f} {found} per second" if of_values else spent
