"""The command line: ``fit`` edits a model and measures it before and after, ``test`` measures a checkpoint again."""

import argparse
import atexit
import inspect
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from rich.console import Console

from lightning_edit import EditError
from lightning_edit.callbacks import Downstream, EditCheckpoint, Harness, Retention, Watch
from lightning_edit.callbacks.report import table
from lightning_edit.cli.checkpoint_cli import CheckpointCLI
from lightning_edit.commands import cache as cache_command
from lightning_edit.commands import updates as history_command
from lightning_edit.commands.argument_errors import EditArgumentParser, fail
from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.sweep import Sweep, describe
from lightning_edit.datamodules import EditDataModule, PreservationText
from lightning_edit.distributed.shutdown import LOST, end_started, is_lost_connection, quieten_others
from lightning_edit.run.fine_tuning import FineTuning  # noqa: F401  (makes its short name known)
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.run.module import EditingModule  # noqa: F401  (makes its short name known)
from lightning_edit.run.trainer_check import check_strategy_name
from lightning_edit.solvers import PostProcessor, Solver
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.run_folder import run_folder, stay_in

CONFIGS = Path(str(files("lightning_edit.configs")))
DESCRIPTION = """Edits facts in language models. Beside the subcommands below: `compare RUN...` shows finished runs in
one table and one figure, `sweep FILE.yaml` makes a run for every combination of settings, `updates` lists, removes and
re-applies the updates of a run, `cache` looks after finished work on disk; each has a --help. `fit --ckpt_path` takes
the run's config.yaml, and with --trust_config whatever classes and folders that names."""


class SaveRunConfig(SaveConfigCallback):
    """Keeps the configuration where the run's other files are, also where there is no logger."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Writes ``config.yaml`` into the run's folder."""
        with atomic_path(run_folder(trainer) / self.config_filename) as scratch:
            self.parser.save(self.config, scratch, skip_unset=False, multifile=self.multifile)


class EditCLI(CheckpointCLI):
    """`LightningCLI` that measures the model before a fit and after it."""

    config: Any
    named_kinds = (MeasuredModule, EditDataModule, PreservationText, Solver, PostProcessor, Callback, Strategy)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's methods that make sense here."""
        skipped = {"model", "dataloaders", "datamodule"}
        return {"fit": skipped | {"train_dataloaders", "val_dataloaders"}, "test": skipped}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Gives the measurements in the middle of a run keys of their own."""
        parser.add_lightning_class_args(Downstream, "downstream")
        parser.add_lightning_class_args(Harness, "harness")
        parser.add_lightning_class_args(Retention, "retention")
        parser.add_lightning_class_args(Watch, "watch")
        parser.add_lightning_class_args(EditCheckpoint, "checkpoints")

    def before_instantiate_classes(self) -> None:
        """Divides a model in the newer way; measures the checkpoint's records if the user asks for no others."""
        settings = self.config[self.subcommand].trainer
        check_strategy_name(settings.strategy)
        if settings.strategy == "fsdp":
            settings.strategy = "ModelParallelStrategy"
        self.check_remote_code()
        self.take_over_data()

    def after_instantiate_classes(self) -> None:
        """Refuses what no process could do, before any is started."""
        self.model.check_trainer(self.trainer, self.subcommand == "fit")
        if self.subcommand == "fit":
            stay_in(self.trainer, self.config.fit.ckpt_path)
        atexit.register(end_started, self.trainer.strategy.launcher)

    def before_fit(self) -> None:
        """Measures the unedited model; a resumed run has done so."""
        if self.config.fit.ckpt_path is None:
            self._measure()

    def after_test(self) -> None:
        """Shows the figures of a model that was not edited; those of an edited one are shown already."""
        if not self.model.edits_written:
            Console().print(table({"after": self.model.results["before"]}, 0))

    def after_fit(self) -> None:
        """Measures the edited model."""
        self._measure()

    def _measure(self) -> None:
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        if self.trainer.received_sigterm:
            # Lightning looks at it between batches, and there may have been a single one.
            raise SIGTERMException


def main(args: ArgsType = None) -> None:
    """Runs the command line; a mistake of the user's is shown as one message and exit status 2.

    Args:
        args: The arguments, those of the process if not given.
    """
    _quieten()
    words = sys.argv[1:] if args is None else args
    if isinstance(words, list):
        words = [_shipped(word) for word in words]
    command = OTHER_COMMANDS.get(words[0]) if isinstance(words, list) and words else None
    try:
        if command is None:
            run(words)
        else:
            command(words[1:])
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        # One that comes while a fit runs is answered by the trainer, which says how to go on.
        Console(stderr=True).print("Stopped.")
        sys.exit(128 + signal.SIGINT)
    except (MisconfigurationException, OSError) as error:
        fail(str(error))
    except Exception as error:
        # The parser wraps what a class says of its arguments; the user should read the class's own words.
        edit_error = next((cause for cause in _causes(error) if isinstance(cause, EditError)), None)
        if edit_error is not None:
            fail(str(edit_error))
        if all(is_lost_connection(cause) for cause in _causes(error)):
            fail(LOST)
        raise


def _shipped(word: str) -> str:
    """Finds ``configs/...`` from any folder, as long as there is no such file of the user's own."""
    option, equals, path = word.rpartition("=")
    shipped = CONFIGS.parent / path
    if path.startswith("configs/") and path.endswith(".yaml") and not Path(path).exists() and shipped.is_file():
        return f"{option}{equals}{shipped}"
    return word


def run(args: ArgsType) -> EditCLI:
    """Runs ``fit`` or ``test``.

    Args:
        args: The arguments.
    """
    defaults: dict[str, Any] = {"default_config_files": [str(CONFIGS / "default.yaml")]}
    return EditCLI(
        MeasuredModule,
        EditDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={"description": DESCRIPTION, "fit": defaults, "test": defaults},
        parser_class=EditArgumentParser,
        args=args,
    )


def compare_runs(args: list[str]) -> None:
    """Runs ``compare``.

    Args:
        args: The arguments after the command.
    """
    parser = ArgumentParser(prog="lightning-edit compare", description=inspect.getdoc(compare))
    parser.add_argument("runs", nargs="+", help="Folders of runs, or folders that hold such folders.")
    parser.add_function_arguments(compare, skip={"runs"}, as_group=False)
    compare(**parser.parse_args(args).as_dict())


def sweep(args: list[str]) -> None:
    """Runs ``sweep``: a fit for every combination of a sweep file, then a comparison, the best first.

    Args:
        args: The file, and settings of all fits.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-edit sweep", description="Makes a fit for every combination of settings and compares them."
    )
    parser.add_argument("file", help="a YAML file with `vary`, see configs/sweeps/; settings of all fits may follow")
    known, settings = parser.parse_known_args(args)
    plan, console = Sweep.load(known.file), Console(stderr=True)
    combinations, finished = plan.combinations(), []
    for number, combination in enumerate(combinations, start=1):
        name = describe(combination)
        console.rule(f"{number} of {len(combinations)}: {name}")
        try:
            cli = run(["fit", *settings, *plan.arguments(combination)])
        except (EditError, SystemExit) as error:
            # One impossible combination must not cost the others; its settings are refused with status 2.
            if isinstance(error, SystemExit) and error.code != 2:
                raise
            why = "see above" if isinstance(error, SystemExit) else str(error)
            console.print(f"left out: {name}: {why}", style="red", markup=False)
            continue
        figures = cli.model.results["after"]
        if plan.metric not in figures:
            raise EditError(f"`metric`: {plan.metric} was not measured, only {', '.join(figures)}.")
        finished.append((figures[plan.metric], name, str(run_folder(cli.trainer))))
    if not finished:
        raise EditError("No combination of the sweep could be run.")
    finished.sort(reverse=not quantity(plan.metric).lower_is_better)
    _, names, folders = zip(*finished, strict=True)
    figure = Path(folders[0]).parent / f"{Path(known.file).stem}.png"
    compare(list(folders), plan.metric, x="batch_size", output=str(figure), labels=list(names))


OTHER_COMMANDS = {"compare": compare_runs, "sweep": sweep, "cache": cache_command.main, "updates": history_command.main}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _quieten() -> None:
    """Hides what Lightning says of ordinary training and what does not hold for editing."""
    messages = (
        ".*does not have many workers",
        ".*configure_optimizers` returned `None`",
        ".*overridden `transfer_batch_to_device`",
        ".*treespec, LeafSpec",
        ".*in eval mode at the start of training",
        ".*smaller than the logging interval",
        ".*`training_step` returned `None`",
        ".*args parameter is intended to run from within Python",
        ".*It is recommended to use `self.log",
        # Holds for weights that are trained.
        ".*will silently drop the pre-backward hook",
    )
    for message in messages:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    quieten_others()
