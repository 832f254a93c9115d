"""The words of a command line, put in the order and under the names in which the parser reads them rightly."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_edit.commands.layer_words import layers_as_list
from lightning_edit.commands.plain_texts import PlainText, plain_text, subclasses
from lightning_edit.old_names import current_name, current_value
from lightning_edit.settings import Checked

CONFIG = ("--config", "-c")
# Loggers whose files are in a run's folder, and where runs are.
ADDED, FILE_LOGGERS, RUNS = "--trainer.logger+", ("CSVLogger", "TensorBoardLogger"), "runs"
SAVE_DIR = ("--trainer.logger.save_dir", "--trainer.logger.init_args.save_dir")
CLASSES = ("model", "data", "solver", "anchor", "post_processing", "preservation")


def in_order(words: Sequence[str]) -> list[str]:
    """The same words with the files first, so that a flag wins over every file, wherever both stand.

    A class also comes before its own settings: ``--data.path`` may stand before ``--data``. What is given twice keeps
    its order, so that the later one wins.

    Args:
        words: All arguments, a subcommand and its options.
    """
    start = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    options = list(_options(words[start:]))
    files = [option for option in options if _name(option) in CONFIG]
    flags: list[list[str]] = []
    for option in (option for option in options if _name(option) not in CONFIG):
        names = [_name(flag) for flag in flags]
        own = next((place for place, name in enumerate(names) if name.startswith(f"{_name(option)}.")), None)
        # A class that is given twice begins anew the second time.
        flags.insert(len(flags) if own is None or _name(option) in names else own, option)
    return [*words[:start], *(word for option in (*files, *flags) for word in option)]


def class_name(value: Any) -> Any:
    """The name of a class as it is written, from that name in any case; all else is left as it is.

    Args:
        value: What was given as the name of a class, perhaps a dotted path.
    """
    if not isinstance(value, str) or "." in value:
        return value
    return next((kind.__name__ for kind in subclasses(Checked) if kind.__name__.lower() == value.lower()), value)


def with_class_names(settings: Any, name: str = "class_path") -> Any:
    """Settings of a configuration, with classes under their exact names.

    Args:
        settings: Nested as in a configuration.
        name: Under which it stands there.
    """
    if isinstance(settings, Mapping):
        return {key: with_class_names(value, str(key)) for key, value in settings.items()}
    if isinstance(settings, list):
        return [with_class_names(value, name) for value in settings]
    # A language model's name is nobody's class.
    return class_name(settings) if name in ("class_path", *CLASSES[1:]) else settings


def under_current_names(words: Sequence[str]) -> list[str]:
    """The same words with classes under their exact names, and settings of another name now under it, with a warning.

    Layers may be written as people do, see `layers_as_list`.

    Args:
        words: All arguments.

    Raises:
        EditError: If layers look like numbers of blocks and are none.
    """
    renamed: list[str] = []
    for option in _options(words):
        if not option[0].startswith("--"):
            renamed += option
            continue
        name, equals, value = option[0][2:].partition("=")
        values = [current_value(name, value) for value in ([value] if equals else option[1:])]
        if name in CLASSES[:2] or name.rpartition(".")[2].rstrip("+") in CLASSES[2:]:
            values = [class_name(value) for value in values]
        if name == "model.layers":
            values = [layers_as_list(value) for value in values]
        values = [plain_text(name, value) for value in values]
        # A text stays as it is in a word of its own, unless that would look like an option.
        apart = not equals or (isinstance(values[0], PlainText) and (values[0][0] != "-" or " " in values[0]))
        renamed += [f"--{current_name(name)}", *values] if apart else [f"--{current_name(name)}={values[0]}"]
    return renamed


def with_folders(words: Sequence[str]) -> list[str]:
    """The same words with a folder for each added logger that needs one: that of the loggers before it, or ``runs``.

    Args:
        words: All arguments, in the order in which they are read.
    """
    told: list[str] = []
    options, folder = list(_options(words)), RUNS
    for place, option in enumerate(options):
        told += option
        name, _, value = option[0].partition("=")
        value = value or " ".join(option[1:])
        if name in SAVE_DIR:
            folder = value
        elif name == ADDED and value.rpartition(".")[2] in FILE_LOGGERS:
            later = [_name(other) for other in options[place + 1 :]]
            own = later[: later.index(ADDED)] if ADDED in later else later
            told += [] if set(own) & set(SAVE_DIR) else [f"{SAVE_DIR[0]}={folder}"]
    return told


def _options(words: Sequence[str]) -> Iterator[list[str]]:
    """Each option with its values; words before the first option stand alone."""
    option: list[str] = []
    for word in words:
        begins = word.startswith("--") or word in CONFIG
        if option and (begins or not option[0].startswith("-") or "=" in option[0]):
            yield option
            option = []
        option.append(word)
    if option:
        yield option


def _name(option: Sequence[str]) -> str:
    return option[0].partition("=")[0]
