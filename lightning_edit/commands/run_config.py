"""The configuration beside a checkpoint: what it may say, as long as the user has not said that it is to be trusted.

Whoever wrote the checkpoint may have written the configuration as well, and a configuration can name code that runs and
folders that are written to.
"""

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_edit.errors import EditError
from lightning_edit.storage.checkpoints.known_classes import ROOTS, check_names, known_classes, names_of, subclasses
from lightning_edit.storage.run_folder import WITHOUT_LOGGER
from lightning_edit.storage.user.yaml import read_yaml

TRUST = "--trust_config"
REMEDY = f" If this is a run of your own, or you have read its config.yaml, give {TRUST}."
# Those that take neither functions nor the name of what is to be run.
LIGHTNING = {
    "callbacks": (
        *("DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
        *("RichModelSummary", "RichProgressBar", "Timer", "TQDMProgressBar"),
    ),
    "loggers": ("CSVLogger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger"),
    "profilers": ("AdvancedProfiler", "PyTorchProfiler", "SimpleProfiler"),
    "strategies": ("DDPStrategy", "FSDPStrategy", "ModelParallelStrategy", "SingleDeviceStrategy"),
}
FOLDERS = (
    *("cache_dir", "offload_folder", "default_root_dir", "dirpath", "save_dir", "dir", "sub_dir", "root_dir"),
    *("tracking_uri", "artifact_location"),
)
# Beside the run, where those of other runs are too; what else is written belongs into the run's folder.
BESIDE = ("cache_dir", "default_root_dir", "save_dir", "tracking_uri", "artifact_location")
SQLITE = "sqlite:///"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def accepted_classes(kinds: Sequence[type]) -> dict[str, str]:
    """The classes that a configuration may name: this project's, and of Lightning those that run no code of others.

    Args:
        kinds: Classes whose subclasses are meant, of this project.

    Returns:
        For each accepted name the public one.
    """
    accepted = known_classes(*kinds)
    for room, names in LIGHTNING.items():
        for name in names:
            for spelling in names_of(getattr(sys.modules[f"lightning.pytorch.{room}"], name)):
                accepted[spelling] = accepted[name] = f"lightning.pytorch.{room}.{name}"
    return accepted


def checked_config(file: Path, accepted: Mapping[str, str]) -> str:
    """A run's configuration, after a look at the classes that it names.

    Args:
        file: The run's ``config.yaml``.
        accepted: The classes that it may name.

    Returns:
        YAML, with the public names of classes.

    Raises:
        EditError: If it is no configuration, or names another class.
    """
    content = read_yaml(file)
    if not isinstance(content, Mapping):
        raise EditError(f"{file} is not the configuration of a run.")
    return yaml.safe_dump(check_names(content, accepted, str(file), REMEDY), sort_keys=False)


def typed_classes(words: Sequence[str], kinds: Sequence[type]) -> list[str]:
    """The classes that the user names in the words of a command line, by dotted or by bare names.

    Args:
        words: What the user typed.
        kinds: Classes whose subclasses can be named without dots, if their modules are imported.
    """
    values = set(_typed(words))
    dotted = [value for value in values if DOTTED.fullmatch(value) and value.split(".")[0] not in ROOTS]
    bare = {child for kind in kinds for child in subclasses(kind) if child.__qualname__ in values}
    return [*dotted, *(name for child in bare for name in names_of(child))]


def _typed(words: Sequence[str]) -> list[str]:
    return [*words, *(word.partition("=")[2] for word in words)]


def check_config(config: Any, defaults: Any, run: Path, words: Sequence[str]) -> None:
    """Refuses settings by which a configuration would run code, write outside of the run, or send something away.

    Args:
        config: All settings of the fit, nested mappings.
        defaults: Those of a fit without any, whose folders are fine.
        run: The run's folder.
        words: What the user typed, who may name any folder.

    Raises:
        EditError: Says which setting.
    """
    fine = {*_typed(words), *(value for _, value in _folders(defaults))}
    if config.get("weights_only") is not True and not any(word.startswith("--weights_only") for word in words):
        raise EditError(
            f"{run / 'config.yaml'} sets `weights_only` to false, which lets a checkpoint run code.{REMEDY}"
        )
    # Without a logger, runs have a folder of their own in the one where caches may be too.
    beside = run.parent.parent if run.parent.name == WITHOUT_LOGGER else run.parent
    for name, value in _folders(config):
        if value not in fine and not _inside(value, beside if name.split(".")[-1] in BESIDE else run):
            raise EditError(
                f"{run / 'config.yaml'}: `{name}` is {value!r}, outside of the run's folder, and the fit would write "
                f"there.{REMEDY}"
            )
    for name, value in _judges(config):
        if value not in fine:
            raise EditError(
                f"{run / 'config.yaml'}: `{name}` is {value!r}: a judge would be sent answers, and a key.{REMEDY}"
            )
    for name, value in _harness(config):
        if value not in fine:
            raise EditError(
                f"{run / 'config.yaml'}: `{name}` names {value!r}: task files of the harness can hold code.{REMEDY}"
            )


def _walk(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All settings under dotted names, mappings included."""
    yield name, settings
    entries = dict(enumerate(settings)) if isinstance(settings, list | tuple) else settings
    for key, value in entries.items() if isinstance(entries, Mapping) else ():
        yield from _walk(value, f"{name}.{key}".lstrip("."))


def _folders(config: Any) -> Iterator[tuple[str, str]]:
    """What names a place to write to."""
    for name, value in _walk(config):
        path = isinstance(value, str | Path) and re.search(r"[/\\~]|^\.\.$", str(value))
        if value is not None and (name.split(".")[-1] in FOLDERS or (path and name.startswith("trainer."))):
            yield name, str(value)


def _inside(place: str, folder: Path) -> bool:
    if place.startswith(SQLITE) and not re.search(r"[?:%]", place.removeprefix(SQLITE)):
        # A file as well; after a question mark SQLite could be told of another one.
        place = place.removeprefix(SQLITE)
    path = Path(place.removeprefix("file://").removeprefix("file:")).expanduser()
    return "://" not in place and path.resolve().is_relative_to(folder.resolve())


def _judges(config: Any) -> Iterator[tuple[str, str]]:
    """Who would be sent what, and the variable with what is secret."""
    for name, settings in _walk(config):
        if isinstance(settings, Mapping) and "key_variable" in settings:
            parts = {part: settings.get(part) for part in ("url", "key_variable")}
            yield from ((f"{name}.{part}", str(value)) for part, value in parts.items() if value is not None)


def _harness(config: Any) -> Iterator[tuple[str, str]]:
    """Task files that the harness would read."""
    for name, settings in _walk(config):
        if not isinstance(settings, Mapping) or "include_path" not in settings:
            continue
        if settings["include_path"] is not None:
            yield f"{name}.include_path", str(settings["include_path"])
        tasks: Collection[str] = settings.get("tasks") or ()
        for task in tasks.split(",") if isinstance(tasks, str) else tasks:
            if not re.fullmatch(r"[\w.+ -]*", str(task)) or Path(str(task).strip() or "/").is_file():
                yield f"{name}.tasks", str(task)
