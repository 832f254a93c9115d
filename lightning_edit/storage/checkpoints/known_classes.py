"""Which classes a file of somebody else's may name: those of this project, by text, before anything is imported.

A checkpoint and a run's configuration say by name of which class a model's solver or a run's data module is. Importing
a module runs it, so a name is first looked up among the classes that are here already.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from jsonargparse import _common as jsonargparse_settings
from lightning.pytorch.core.saving import CHECKPOINT_PAST_HPARAMS_KEYS

from lightning_edit.errors import EditError

ROOTS = ("lightning_edit", "datamodules", "callbacks")
# Where classes stood in earlier versions: files that were written then still name them so.
FORMER_MODULES = {
    "lightning_edit": (
        *("module", "fine_tuning", "measured_module", "solvers.evoedit", "solvers.spectral"),
        *("run.crispedit", "run.fine_tuning", "run.in_context", "run.lora", "run.memory_editing"),
    ),
    "callbacks": (
        *("", "checkpoint", "downstream", "examples", "export", "harness", "progress", "records", "report"),
        *("retention", "scheduled", "watch"),
    ),
    "datamodules": ("", "counterfact", "easyedit", "own_edits", "preservation", "tiny_world", "zsre"),
}
CLASS_KEYS = ("class_path", "_class_path")
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
DEEPEST = 50
YAML = jsonargparse.get_loader("yaml")


def names_of(kind: type) -> list[str]:
    """All names under which a class can be imported, the public one first.

    Args:
        kind: The class.
    """
    parts = kind.__module__.split(".")
    packages = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return [
        f"{package}.{kind.__qualname__}"
        for package in packages
        if getattr(sys.modules.get(package), kind.__qualname__, None) is kind
    ]


def known_classes(*kinds: type) -> dict[str, str]:
    """The names of this project's classes.

    Args:
        kinds: Classes whose subclasses are meant.

    Returns:
        For each accepted name, the bare name of the class and those of earlier versions among them, the public one.
    """
    accepted: dict[str, str] = {}
    for kind in kinds:
        for own in (kind, *subclasses(kind)):
            if own.__module__.split(".")[0] in ROOTS:
                names = names_of(own)
                former = _former_names(own.__qualname__)
                accepted |= dict.fromkeys([own.__qualname__, *names, *former], names[0])
    return accepted


def _former_names(name: str) -> list[str]:
    return [
        ".".join(part for part in (package, module, name) if part)
        for package, modules in FORMER_MODULES.items()
        for module in modules
    ]


def subclasses(kind: type) -> Iterator[type]:
    """All subclasses of a class that are imported.

    Args:
        kind: The class.
    """
    children: list[type] = type.__subclasses__(kind)
    for child in children:
        yield child
        yield from subclasses(child)


def accept_former_names(names: Mapping[str, str]) -> None:
    """Lets the parser read settings that name classes as earlier versions did.

    Args:
        names: For each name the public one, see `known_classes`.
    """
    former = {name: public for name, public in names.items() if "." in name}

    def load(text: str) -> Any:
        return _renamed(YAML(text), former)

    jsonargparse.set_loader("yaml", load, exceptions=(yaml.YAMLError,))


def _renamed(settings: Any, names: Mapping[str, str]) -> Any:
    if isinstance(settings, dict):
        return {
            key: names.get(value, value) if key in CLASS_KEYS and isinstance(value, str) else _renamed(value, names)
            for key, value in settings.items()
        }
    if isinstance(settings, list):
        return [_renamed(entry, names) for entry in settings]
    return settings


def check_names(settings: Any, accepted: Mapping[str, str], source: str, remedy: str = "") -> Any:
    """Refuses settings that name a class other than the accepted ones, however deep.

    Args:
        settings: Settings in plain types.
        accepted: For each accepted name the one to use.
        source: Where the settings come from, for the message.
        remedy: What the user can do about it.

    Returns:
        The settings with the names to use.

    Raises:
        EditError: Says which name is not accepted.
    """
    return _checked(settings, accepted, source, remedy, 0)


def _checked(settings: Any, accepted: Mapping[str, str], source: str, remedy: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise EditError(f"{source}: its settings are nested more than {DEEPEST} deep.")
    if isinstance(settings, Mapping):
        checked = {}
        for key, value in settings.items():
            named = key in CLASS_KEYS
            wrong = not (isinstance(value, str) and value in accepted) if named else value != INSTANTIATOR
            if wrong and (named or key == "_instantiator"):
                raise EditError(
                    f"{source} names {repr(value)[:80]} as its {key}, which is none that such a file may name, so it "
                    f"was not imported.{remedy}"
                )
            checked[key] = accepted[value] if named else _checked(value, accepted, source, remedy, depth + 1)
        return checked
    if isinstance(settings, list | tuple):
        return [_checked(entry, accepted, source, remedy, depth + 1) for entry in settings]
    return settings


@contextmanager
def only_imports(names: Sequence[str]) -> Iterator[None]:
    """Lets the parser import what is named here and nothing else, inside a ``with`` block.

    `check_names` sees names under ``class_path``; the parser also takes a bare text for a class or a function where
    one is expected, and reads further settings from files that a text names.

    Args:
        names: Dotted names of classes.
    """
    # The parser offers to add to its policy, and not to go back.
    before = dict(jsonargparse_settings.parsing_settings)
    allowed = [name for name in names if "." in name]
    jsonargparse.set_parsing_settings(import_path_denylist=["*"])
    verdicts = {"*": False, **dict.fromkeys(allowed, True)}
    jsonargparse_settings.parsing_settings["import_path_verdicts"] = verdicts
    try:
        yield
    finally:
        jsonargparse_settings.parsing_settings.clear()
        jsonargparse_settings.parsing_settings.update(before)


def named_classes(settings: Any) -> Iterator[str]:
    """All names of the classes that settings name and that are imported already.

    Args:
        settings: The settings, nested mappings and sequences.
    """
    if isinstance(settings, Mapping):
        name = settings.get("class_path")
        if isinstance(name, str):
            module, _, attribute = name.rpartition(".")
            named = getattr(sys.modules.get(module), attribute, None)
            yield from [name, *(names_of(named) if isinstance(named, type) else [])]
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for entry in settings:
            yield from named_classes(entry)


class SafelyLoaded:
    """Lightning's ``load_from_checkpoint``, which makes the objects that a checkpoint names, for known classes only."""

    @classmethod
    def named_kinds(cls) -> tuple[type, ...]:
        """The classes whose subclasses a checkpoint may name."""
        return (cls,)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Makes the object that a checkpoint describes; see Lightning's method of this name.

        Args:
            checkpoint_path: The file.
            *args: As Lightning's.
            **kwargs: As Lightning's.

        Raises:
            EditError: If the checkpoint names a class that is not this project's, or settings are to come from a file.
        """
        if kwargs.get("hparams_file") is not None or any(arg is not None for arg in args[1:2]):
            raise EditError("`hparams_file`: settings are those of the checkpoint; give others as arguments.")
        kwargs["weights_only"] = True
        names = names_of(cls)
        accepted = known_classes(*cls.named_kinds()) | dict.fromkeys(names, *names[:1])
        content = torch.load(Path(checkpoint_path), weights_only=True, map_location="meta")
        # Settings under the names of the earliest versions of Lightning count as well.
        for key in (cls.CHECKPOINT_HYPER_PARAMS_KEY, *CHECKPOINT_PAST_HPARAMS_KEYS):  # type: ignore[attr-defined]
            check_names(content.get(key, {}), accepted, str(checkpoint_path))
        with only_imports(list(accepted)):
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)  # type: ignore[misc]
