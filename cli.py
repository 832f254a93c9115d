"""The command line: ``fit`` edits a model and measures it before and after, ``test`` measures a checkpoint again."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import ArgsType, LightningCLI
from rich.console import Console

import callbacks  # noqa: F401  (makes the short names of callbacks known)
from datamodules import EditDataModule
from lightning_edit import EditError
from lightning_edit.module import EditingModule

CONFIGS = Path(__file__).parent / "configs"


class EditCLI(LightningCLI):
    """`LightningCLI` that measures the model before a fit and after it."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's methods that make sense here."""
        skipped = {"model", "dataloaders", "datamodule"}
        return {"fit": skipped | {"train_dataloaders", "val_dataloaders"}, "test": skipped}

    def before_fit(self) -> None:
        """Measures the unedited model."""
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)

    def after_fit(self) -> None:
        """Measures the edited model."""
        self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)


def main(args: ArgsType = None) -> None:
    """Runs the command line; a mistake of the user's is shown as one message and exit status 2.

    Args:
        args: The arguments, those of the process if not given.
    """
    _quieten()
    defaults: dict[str, Any] = {"default_config_files": [str(CONFIGS / "default.yaml")]}
    try:
        EditCLI(
            EditingModule,
            EditDataModule,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"fit": defaults, "test": defaults},
            args=args,
        )
    except EditError as error:
        console = Console(stderr=True)
        console.print("[bold red]error:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _quieten() -> None:
    """Hides what Lightning says of ordinary training and what does not hold for editing."""
    messages = (
        ".*does not have many workers",
        ".*configure_optimizers` returned `None`",
        ".*overridden `transfer_batch_to_device`",
        ".*treespec, LeafSpec",
        ".*in eval mode at the start of training",
        ".*smaller than the logging interval",
    )
    for message in messages:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
