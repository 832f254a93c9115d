"""The command line: ``fit`` edits a model and measures it before and after, ``test`` measures a checkpoint again."""

import importlib
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

import callbacks  # noqa: F401  (makes the short names of callbacks known)
from datamodules import EditDataModule
from lightning_edit import EditError
from lightning_edit.module import EditingModule
from lightning_edit.trainer_check import check_trainer

CONFIGS = Path(__file__).parent / "configs"
NOISE = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value type:")


class EditArgumentParser(LightningArgumentParser):
    """Answers a wrong key or type with the right ones instead of the usage of everything."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Shows what is wrong and what is accepted in its place, and leaves with status 2."""
        if not self.exit_on_error:
            # A part of a larger parse, which tells the whole story.
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        lines = [line for line in message.splitlines() if not line.strip().startswith(NOISE)]
        fail("\n".join([*lines, *_accepted(parser, message)]))


class EditCLI(LightningCLI):
    """`LightningCLI` that measures the model before a fit and after it."""

    config: Any

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's methods that make sense here."""
        skipped = {"model", "dataloaders", "datamodule"}
        return {"fit": skipped | {"train_dataloaders", "val_dataloaders"}, "test": skipped}

    def before_instantiate_classes(self) -> None:
        """Refuses a checkpoint that is not there, before the model is loaded."""
        path = self._get(self.config, "ckpt_path")
        if path is not None and not Path(path).is_file():
            raise EditError(f"`ckpt_path`: there is no file {path}. Give the edited.ckpt of a run.")
        if path is not None and self.subcommand == "fit":
            raise EditError("`ckpt_path`: a fit cannot go on from a checkpoint; `test --ckpt_path` measures it.")
        if path is not None:
            self._restore_data(path)

    def _restore_data(self, path: str) -> None:
        """Measures the records of the checkpoint's run, as long as the user asks for no others."""
        data = torch.load(path, weights_only=True, map_location="cpu").get("datamodule_hyper_parameters", {})
        given, default = self._get(self.config, "data"), self._parser(self.subcommand).get_defaults().data
        if given == default and "_class_path" in data:
            init_args = {name: value for name, value in data.items() if not name.startswith("_")}
            restored = {"class_path": data["_class_path"], "init_args": init_args}
            self.config = self.parser.parse_object({self.subcommand: {"data": restored}}, self.config)

    def after_instantiate_classes(self) -> None:
        """Refuses what no process could do, before any is started."""
        check_trainer(self.trainer, fit=self.subcommand == "fit")

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
            parser_class=EditArgumentParser,
            args=args,
        )
    except UnpicklingError:
        fail("`ckpt_path` is no checkpoint that can be read safely. Give the edited.ckpt of a run.")
    except (MisconfigurationException, OSError) as error:
        fail(str(error))
    except Exception as error:
        # The parser wraps what a class says of its arguments; the user should read the class's own words.
        edit_error = next((cause for cause in _causes(error) if isinstance(cause, EditError)), None)
        if edit_error is None:
            raise
        fail(str(edit_error))


def fail(message: str) -> NoReturn:
    """Shows a mistake of the user's and leaves with status 2.

    Args:
        message: What was expected, what was got, what to change.
    """
    console = Console(stderr=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _accepted(parser: Any, message: str) -> Iterator[str]:
    """What would have been right in place of what a parser's message complains about."""
    for key in re.findall(r"does not accept option '([\w.]+)'|unrecognized arguments: --([\w.]+)", message):
        known = [action.dest for action in parser._actions]
        path = "".join(key).split(".")
        prefixes = [".".join(path[:end]) + "." for end in range(len(path) - 1, 0, -1)] + [""]
        prefix = next(p for p in prefixes if any(dest.startswith(p) for dest in known))
        children = {dest.removeprefix(prefix).split(".")[0] for dest in known if dest.startswith(prefix)}
        yield f"Accepted under {prefix.rstrip('.') or 'the top level'}: {', '.join(sorted(children - {'help'}))}"
    for path in re.findall(r"Problem with given class_path '([\w.]+)'", message):
        yield f"Accepted by {path}: {', '.join(inspect.signature(_import(path)).parameters)}"
    if "Expected a dot import path" in message:
        for path in re.findall(r"Subtypes: \[.*?([a-z_]+(?:\.\w+)+)", message):
            yield f"Known classes: {', '.join(sorted(_concrete(_import(path))))}"


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _concrete(base: type) -> set[str]:
    """Names of all subclasses that can be made."""
    children: list[type] = type.__subclasses__(base)
    found = {name for child in children for name in _concrete(child)}
    return found if inspect.isabstract(base) or base.__name__.startswith("_") else found | {base.__name__}


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
