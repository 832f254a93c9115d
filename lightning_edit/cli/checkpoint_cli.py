"""What the command line does with ``--ckpt_path``: whose settings are taken, and what these may name."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_edit.commands.other_class import begun_anew
from lightning_edit.commands.relative_paths import check_relative
from lightning_edit.commands.resume_arguments import restored_settings, resume_arguments, same_folder
from lightning_edit.commands.run_config import TRUST, accepted_classes, check_config, checked_config, typed_classes
from lightning_edit.commands.setting_checks import bound_yaml, check_settings
from lightning_edit.errors import EditError
from lightning_edit.messages import listed
from lightning_edit.storage.checkpoints.checkpoint_file import edited_of, run_beside
from lightning_edit.storage.checkpoints.known_classes import (
    accept_former_names,
    known_classes,
    named_classes,
    only_imports,
)


class CheckpointCLI(LightningCLI):
    """`LightningCLI` that goes on from a checkpoint, or measures one, without trusting it.

    Attributes:
        named_kinds: Classes whose subclasses a checkpoint, and the configuration beside it, may name.
        begun_anew: Classes whose subclasses begin with their own defaults where they replace another one.
        restored: What ``test`` takes over from the checkpoint: settings of ``model`` and ``data``.
        may_import: The classes that the parser may import; None for all.
    """

    config: Any
    named_kinds: tuple[type, ...] = ()
    begun_anew: tuple[type, ...] = ()
    restored: Mapping[str, Any] = MappingProxyType({})
    may_import: list[str] | None = None
    _typed: tuple[str, ...] = ()

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuses what is no checkpoint before anything is loaded; a fit takes the settings of that run."""
        words = sys.argv[1:] if args is None else args
        accept_former_names(known_classes(*self.named_kinds))
        typed = [word for word in words if word != TRUST] if isinstance(words, list) else []
        accepted = None if isinstance(words, list) and TRUST in words else accepted_classes(self.named_kinds)
        resumed = typed[:1] == ["fit"] and "ckpt_path" in " ".join(typed)
        arguments = resume_arguments(typed, accepted) if resumed else words
        if arguments is not typed and resumed and accepted is not None:
            self.may_import = [*accepted, *typed_classes(typed, self.named_kinds)]
        self._typed = tuple(typed)
        bound_yaml()
        with self._imports(), begun_anew(*self.begun_anew):
            super().parse_arguments(parser, arguments)
        check_settings(self.config[self.config.subcommand])
        if self.config[self.config.subcommand].ckpt_path is not None:
            self._with_checkpoint(typed)

    def _with_checkpoint(self, typed: list[str]) -> None:
        config = self.config[self.config.subcommand]
        defaults = self._parser(self.config.subcommand).get_defaults().as_dict()
        if self.config.subcommand == "test":
            config.ckpt_path = str(edited_of(config.ckpt_path))
            self.restored = restored_settings(Path(config.ckpt_path), self.named_kinds)
            self.may_import = [*known_classes(*self.named_kinds), *named_classes([self.config.as_dict(), defaults])]
            return
        run = Path(config.ckpt_path).parent.parent
        same_folder(config.trainer, run)
        if self.names_run and config.name != run.name:
            raise EditError(
                f"`--name {config.name}`: the run goes on in its own folder {run}. Leave the name out; for a run "
                "beside it copy the folder first, and give the copy's checkpoint."
            )
        if self.may_import is not None:
            check_config(config.as_dict(), defaults, run, typed)
        # The run keeps the configuration that it began with, whatever becomes of going on.
        self.save_config_callback = None

    @property
    def names_run(self) -> bool:
        """Whether the command line, and not a configuration, gives the run a name."""
        return any(word.partition("=")[0] == "--name" for word in self._typed)

    def flags_to_go_on(self, run: Path) -> list[str]:
        """What a fit that goes on from this one needs beside ``--ckpt_path``: trust in what the run's files name.

        Args:
            run: The run's folder.
        """
        config = self.config[self.config.subcommand].clone()
        same_folder(config.trainer, run)
        flags = ["--model.trust_remote_code=true"] if config.get("model.init_args.trust_remote_code") else []
        try:
            checked_config(run / "config.yaml", accepted_classes(self.named_kinds))
            check_config(config.as_dict(), self._parser(self.config.subcommand).get_defaults().as_dict(), run, [])
        except EditError:
            return [TRUST, *flags]
        return flags

    def _imports(self) -> AbstractContextManager[None]:
        """Lets the parser import nothing but what a checkpoint, or the configuration beside it, may name."""
        return nullcontext() if self.may_import is None else only_imports(self.may_import)

    def _parse_ckpt_path(self) -> None:
        """Measures a model as the checkpoint says; a fit whose settings are not the checkpoint's is refused instead."""
        if self.restored.get("model"):
            typed = self._typed_of_model()
            self._take_over("model")
            if (place := typed.pop("model", None)) is not None:
                # It may lie elsewhere by now; whether its weights are the checkpoint's is checked when it is loaded.
                self.config[self.config.subcommand]["model.init_args.model"] = place
            if changed := [name for name, value in typed.items() if value != self._of_model(name)]:
                given = listed(f"`model.{name}` ({_in_short(self._of_model(name))})" for name in changed)
                raise EditError(
                    f"`test --ckpt_path` measures the model as the checkpoint holds it, which decides {given}. Leave "
                    "out what was given for it; `lightning-edit export --to model` writes the edited model, which can "
                    "be loaded in other ways."
                )

    def _typed_of_model(self) -> dict[str, Any]:
        """The settings of the model among the words of the command line, with their values."""
        words = [word.removeprefix("--model.").partition("=")[0] for word in self._typed if word.startswith("--model.")]
        names = [word.removeprefix("init_args.") for word in words]
        return {name: self._of_model(name) for name in names}

    def _of_model(self, name: str) -> Any:
        """A setting of the model as it is now, None where it has none of this name."""
        return self.config[self.config.subcommand].get(f"model.init_args.{name}")

    def check_remote_code(self) -> None:
        """Refuses a checkpoint that asks for a model's own code to be run, unless the command does.

        Raises:
            EditError: Says how the command could.
        """
        settings = self.config[self.subcommand]
        trusts = settings.get("ckpt_path") is not None and settings.get("model.init_args.trust_remote_code")
        if trusts and not any("trust_remote_code" in word for word in self._typed):
            raise EditError(
                "`trust_remote_code` comes with the checkpoint or its run, and a model's code is run only if the "
                "command says so: give --model.trust_remote_code true if you trust the model."
            )

    def take_over_data(self) -> None:
        """Measures the checkpoint's records, if the user asks for no others."""
        if "class_path" not in self.restored.get("data", {}):
            return
        given, default = self._get(self.config, "data"), self._parser(self.subcommand).get_defaults().data
        if given == default:
            self._take_over("data")

    def check_paths(self) -> None:
        """Refuses relative paths of the checkpoint's run that lead nowhere from here.

        Raises:
            EditError: See `check_relative`.
        """
        settings = self.config[self.subcommand]
        if settings.get("ckpt_path") is not None:
            file = Path(settings.ckpt_path).expanduser()
            check_relative(settings.as_dict(), file, run_beside(file))

    def _take_over(self, key: str) -> None:
        with self._imports():
            self.config = self.parser.parse_object({self.config.subcommand: {key: self.restored[key]}}, self.config)

    def instantiate_classes(self) -> None:
        """Makes what the settings name; beside a checkpoint nothing else is imported for it."""
        with self._imports():
            super().instantiate_classes()


def _in_short(value: Any) -> Any:
    """A setting as a message shows it: of a class its name."""
    path = value.get("class_path") if hasattr(value, "get") else None
    return value if path is None else path.rpartition(".")[2]
