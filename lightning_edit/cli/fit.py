"""The command line's ``fit`` and ``test``: Lightning's, with a measurement before a fit and after it."""

import atexit
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from lightning_edit.callbacks import Collateral, Downstream, EditCheckpoint, EditReport, Harness, Retention, Watch
from lightning_edit.cli.checkpoint_cli import CheckpointCLI
from lightning_edit.cli.idle_settings import refuse_idle
from lightning_edit.commands.argument_errors import EditArgumentParser
from lightning_edit.commands.failure import causes
from lightning_edit.commands.method_file import METHOD_FILE, method_file
from lightning_edit.commands.plain_texts import settle_texts
from lightning_edit.commands.run_name import check_name
from lightning_edit.configs import CONFIGS
from lightning_edit.datamodules import EditDataModule, PreservationText
from lightning_edit.distributed.shutdown import LOST, end_started, is_lost_connection, quieten_others
from lightning_edit.errors import EditError
from lightning_edit.gradients.gradient import Gradient  # noqa: F401  (makes its short name known)
from lightning_edit.gradients.source import Source
from lightning_edit.loggers.failing import check_packages, refused_by_logger
from lightning_edit.messages import one_line, printable, terminal
from lightning_edit.metrics.table import table
from lightning_edit.models.auto_layers import AUTO
from lightning_edit.models.out_of_memory import is_out_of_memory
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.run.methods.crispedit import CrispEdit  # noqa: F401  (makes its short name known)
from lightning_edit.run.methods.fine_tuning import FineTuning  # noqa: F401  (makes its short name known)
from lightning_edit.run.methods.in_context import InContext  # noqa: F401  (the same)
from lightning_edit.run.methods.lora import LoRA  # noqa: F401  (the same)
from lightning_edit.run.methods.memory_editing import MemoryEditing  # noqa: F401  (the same)
from lightning_edit.run.module import EditingModule  # noqa: F401  (makes its short name known)
from lightning_edit.run.trainer_check import check_strategy_name
from lightning_edit.solvers import Anchor, PostProcessor, Solver
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.run_folder import clear_refused, lock, name_folder, run_folder, stay_in
from lightning_edit.windows.windows import Windows  # noqa: F401  (the same)


class SaveRunConfig(SaveConfigCallback):
    """Keeps the configuration where the run's other files are, also where there is no logger."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Writes ``config.yaml`` into the run's folder."""
        with atomic_path(run_folder(trainer) / self.config_filename) as scratch:
            self.parser.save(self.config, scratch, skip_unset=False, multifile=self.multifile)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Writes the layers that were chosen for the model in place of ``auto``: the file repeats the run as it was."""
        settings = self.config.model.init_args
        if trainer.is_global_zero and settings.get("layers") == AUTO:
            settings.layers = pl_module.hparams.layers
            self.save_config(trainer, pl_module, "test")


class EditCLI(CheckpointCLI):
    """`LightningCLI` that measures the model before a fit and after it."""

    config: Any
    begun_anew = (PreservationText, Solver, Anchor, PostProcessor, Source)
    named_kinds = (MeasuredModule, EditDataModule, *begun_anew, Callback, Strategy)

    def __init__(self, *args: Any, **settings: Any) -> None:
        try:
            super().__init__(*args, **settings)
        except (EditError, MisconfigurationException):
            trainer, model = getattr(self, "trainer", None), getattr(self, "model", None)
            # What was measured is in the logs, if nowhere else.
            if isinstance(trainer, Trainer) and not getattr(model, "results", None):
                clear_refused(trainer)
            raise

    def subcommands(self) -> dict[str, set[str]]:
        """The one of the trainer's methods that is to be run: making the parser of another one too takes long."""
        skipped = {"model", "dataloaders", "datamodule"}
        methods = {"fit": skipped | {"train_dataloaders", "val_dataloaders"}, "test": skipped}
        return {name: methods[name] for name in self.parser_kwargs}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Gives the run a name, and the measurements in the middle of it keys of their own."""
        parser.add_argument("--name", type=str | None, default=None, help="the run's name, also that of its folder")
        parser.add_lightning_class_args(Downstream, "downstream")
        parser.add_lightning_class_args(Harness, "harness")
        parser.add_lightning_class_args(Retention, "retention")
        parser.add_lightning_class_args(Collateral, "collateral")
        parser.add_lightning_class_args(Watch, "watch")
        parser.add_lightning_class_args(EditCheckpoint, "checkpoints")

    def before_instantiate_classes(self) -> None:
        """Divides a model in the newer way; measures the checkpoint's records if the user asks for no others."""
        settle_texts(self.config)
        check_name(self.config[self.subcommand].name)
        settings = self.config[self.subcommand].trainer
        check_strategy_name(settings.strategy)
        loggers = settings.logger if isinstance(settings.logger, list) else [settings.logger]
        check_packages(str(getattr(logger, "class_path", "")) for logger in loggers)
        if settings.strategy == "fsdp":
            settings.strategy = "ModelParallelStrategy"
        self.check_remote_code()
        self.take_over_data()
        self.check_paths()

    def instantiate_classes(self) -> None:
        """Makes the classes; what Lightning or another library finds wrong with a setting is a mistake of the user's.

        Raises:
            EditError: In the words of whoever refused a setting.
        """
        try:
            super().instantiate_classes()
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            first = list(causes(error))[-1]
            if any(isinstance(cause, EditError) for cause in causes(error)):
                raise
            said = refused_by_logger(causes(error))
            raise EditError(
                said or f"These settings cannot be used: {one_line(first)} ({type(first).__name__})"
            ) from error

    def after_instantiate_classes(self) -> None:
        """Refuses what no process could do, before any is started."""
        self.model.check_trainer(self.trainer, self.subcommand == "fit")
        # A key that is not there is found before the configuration is written: its variable may be the key by mistake.
        _ = self.model.evaluation.judge.key
        self.model.measured_again = self.subcommand == "test" and self.config.test.ckpt_path is not None
        if self.config[self.subcommand].ckpt_path is None:
            refuse_idle(self.model.evaluation, self.trainer.callbacks)
        # Loggers open their files before records are read for a test.
        self.datamodule.setup(self.subcommand)
        self._take_name()
        for callback in self.trainer.callbacks:
            if isinstance(callback, EditReport):
                callback.command = self.subcommand
        if self.subcommand == "fit":
            self._note_method()
            stay_in(self.trainer, self.config.fit.ckpt_path)
            if self.config.fit.ckpt_path is not None:
                lock(self.trainer)
            for callback in self.trainer.callbacks:
                if isinstance(callback, EditCheckpoint):
                    callback.flags_to_go_on = self.flags_to_go_on
        atexit.register(end_started, self.trainer.strategy.launcher)

    def _take_name(self) -> None:
        """Names the folder of a new run, or of a test that is given a name; a run that goes on has one."""
        settings = self.config[self.subcommand]
        if settings.name is None:
            return
        self.model.sections["name"] = settings.name
        new = settings.ckpt_path is None if self.subcommand == "fit" else self.names_run
        if new:
            name_folder(self.trainer, settings.name)
            run_folder(self.trainer)

    def _note_method(self) -> None:
        """Notes the file of a method that was given, by which methods with the same settings are told apart."""
        if (name := method_file(self.config.fit.get("config") or ())) is not None:
            self.model.sections[METHOD_FILE] = name

    def before_fit(self) -> None:
        """Measures the unedited model; a resumed run has done so."""
        if self.config.fit.ckpt_path is None:
            self._check_folder()
            self._measure()

    def before_test(self) -> None:
        """Refuses the folder of another run."""
        self._check_folder()

    def _check_folder(self) -> None:
        # CSV loggers delete what they wrote in the same folder before as soon as they begin; and once a logger has made
        # the folder, nobody knows that it is new.
        keeps_files = any(isinstance(logger, CSVLogger | TensorBoardLogger) for logger in self.trainer.loggers)
        if self.trainer.is_global_zero and keeps_files:
            run_folder(self.trainer)

    def after_test(self) -> None:
        """Shows the figures of a model that was not edited; those of an edited one are shown already."""
        if not self.model.loop.edits_written:
            terminal().print(table({"after": self.model.results["before"]}, 0))

    def after_fit(self) -> None:
        """Measures the edited model."""
        self._measure()

    def _measure(self) -> None:
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        if self.trainer.received_sigterm:
            # Lightning looks at it between batches, and there may have been a single one.
            raise SIGTERMException


def fit(words: list[str]) -> None:
    """Runs ``fit``.

    Args:
        words: The arguments after the command.
    """
    with lightning_errors():
        run(["fit", *words])


def test(words: list[str]) -> None:
    """Runs ``test``.

    Args:
        words: The arguments after the command.
    """
    with lightning_errors():
        run(["test", *words])


def run(args: list[str], kind: type[EditCLI] = EditCLI) -> EditCLI:
    """Runs ``fit`` or ``test``.

    Args:
        args: Which of them, and its arguments.
        kind: What runs it.
    """
    quieten()
    defaults: dict[str, Any] = {"default_config_files": [str(CONFIGS / "default.yaml")]}
    return kind(
        MeasuredModule,
        EditDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_callback=SaveRunConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={args[0]: defaults},
        parser_class=EditArgumentParser,
        args=args,
    )


@contextmanager
def lightning_errors() -> Iterator[None]:
    """Turns what Lightning raises into what the command line knows: messages, and the status of a signal."""
    try:
        yield
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except MisconfigurationException as error:
        raise EditError(str(error)) from error
    except Exception as error:
        memory = next((cause for cause in causes(error) if is_out_of_memory(cause)), None)
        if memory is not None and not isinstance(error, EditError):
            raise EditError(
                f"Out of memory: {(str(memory).splitlines() or ['the machine has none left'])[0]} Set "
                "`data.batch_size` (edits at once) to a smaller number, load the model with `model.dtype: bfloat16`, "
                "or spread it with `model.device_map: auto`."
            ) from error
        if not isinstance(error, EditError) and (said := refused_by_logger(causes(error))) is not None:
            raise EditError(said) from error
        if all(is_lost_connection(cause) for cause in causes(error)):
            raise EditError(LOST) from error
        raise


def _warning_text(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a user of the command line reads it: without the place in the source."""
    return f"warning: {printable(str(message))}\n"


def quieten() -> None:
    """Hides warnings of Lightning that are about ordinary training and do not apply to editing."""
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
        # What measures may change from one test to the next.
        ".*when using `ckpt_path`, callbacks used to create the checkpoint",
        # Holds for weights that are trained.
        ".*will silently drop the pre-backward hook",
    )
    for message in messages:
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _warning_text
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    quieten_others()
