"""``fit`` and ``test`` before anything is imported for them: the help, and settings that are surely wrong.

What is left over is refused by the parser itself, which knows all classes, and by these.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from lightning_edit import settings
from lightning_edit.cli.startup.fit_help import help_text
from lightning_edit.cli.startup.signatures import Module, Source, kinds_of
from lightning_edit.commands.argument_words import under_current_names
from lightning_edit.errors import EditError
from lightning_edit.settings import as_number, refuse_unfit
from lightning_edit.storage.user.files import check_model_name

DATA = "lightning_edit.datamodules"
# For each section of the settings the class that it makes, if the user names no other one.
SECTIONS = {
    "model": ("lightning_edit", "EditingModule"),
    "data": (DATA, "TinyWorld"),
    "downstream": ("lightning_edit.callbacks", "Downstream"),
    "harness": ("lightning_edit.callbacks", "Harness"),
    "retention": ("lightning_edit.callbacks", "Retention"),
    "collateral": ("lightning_edit.callbacks", "Collateral"),
    "watch": ("lightning_edit.callbacks", "Watch"),
    "checkpoints": ("lightning_edit.callbacks", "EditCheckpoint"),
}
# For those that may make another class, of what it must be a kind.
KINDS = {"model": ("lightning_edit.run.measured_module", "MeasuredModule"), "data": (DATA, "EditDataModule")}
OTHERS = (
    *("config", "name", "trainer", "seed_everything", "weights_only", "ckpt_path"),
    *("print_config", "trust_config", "verbose", "help_all"),
)
# The annotations that stand for a range of numbers, by the names that sources give them.
NUMBERS = {name: getattr(settings, name) for name in ("Positive", "NotNegative", "Count", "CountOrZero", "Seed")}
NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?\.?inf|\.?nan", re.IGNORECASE)


def fit(words: list[str]) -> None:
    """Runs ``fit``.

    Args:
        words: The arguments after the command.
    """
    if (ready := _ready("fit", words)) is not None:
        from lightning_edit.cli import fit as command

        command.fit(ready)


def test(words: list[str]) -> None:
    """Runs ``test``.

    Args:
        words: The arguments after the command.
    """
    if (ready := _ready("test", words)) is not None:
        from lightning_edit.cli import fit as command

        command.test(ready)


def _ready(command: str, words: Sequence[str]) -> list[str] | None:
    """The checked arguments for the parser; None where the user wants the help, which is shown."""
    if "-h" in words or "--help" in words:
        sys.stdout.write(help_text(command))
        return None
    words = under_current_names(words)
    check(words)
    return ["--help" if word == "--help_all" else word for word in words]


def check(words: Sequence[str]) -> None:
    """Refuses settings that do not exist or surely have a wrong value, as far as the source tells.

    Args:
        words: The arguments of ``fit`` or ``test``.

    Raises:
        EditError: For the first such setting; names those that there are.
    """
    given = list(_options(words))
    # A file may name a class of the user's own.
    free = {"model", "data"} if {name for name, _ in given} & {"config", "c", "ckpt_path"} else set()
    for name, value in given:
        section, *path = (part for part in name.rstrip("+").split(".") if part != "init_args")
        if section in ("config", "c"):
            if value is not None and not Path(value).expanduser().is_file():
                raise EditError(f"`--config`: there is no file {value}.")
            continue
        if section == "model" and path == ["model"] and value is not None:
            check_model_name(value)
        if section in SECTIONS and section not in free:
            chosen = [value for option, value in given if option == section]
            _check_setting(name, path, value, _class_of(section, chosen[-1] if chosen else None))
        elif section not in (*SECTIONS, *OTHERS):
            raise EditError(f"{_unknown(name, section, (*SECTIONS, *OTHERS))}")


def _class_of(section: str, chosen: str | None) -> Source | None:
    """The class that a section makes; None if it is not one of this package."""
    module, kind = SECTIONS[section]
    if chosen is None or section not in KINDS:
        return Module(module).find(kind)
    base = Module(KINDS[section][0]).find(KINDS[section][1])
    return None if base is None else _named(section, chosen, base)


def _named(name: str, chosen: str, base: Source) -> Source | None:
    """A class by its bare name, in any case; any other may be what the user has made."""
    if not chosen.isidentifier() or chosen.lower() in ("null", "none"):
        return None
    known: list[str] = []
    for source in kinds_of(base):
        if source.node.name.lower() == chosen.lower():
            return source
        known.append(source.node.name)
    raise EditError(f"`{name}`: there is no class {chosen}. Known classes: {', '.join(sorted(known))}")


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The options of a command line and their values; None for one without a value."""
    for place, word in enumerate(words):
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            following = words[place + 1] if place + 1 < len(words) else "--"
            yield name, value if equals else None if following.startswith("--") else following


def _check_setting(name: str, path: Sequence[str], value: str | None, owner: Source | None) -> None:
    """Follows a dotted name through the classes that it goes through; a solver or the like may be any class."""
    if owner is None or not path or path[0] in ("help", "class_path"):
        return
    arguments = owner.arguments()
    if path[0] not in arguments:
        section = name.partition(".")[0]
        where = f"by {owner.node.name}" if section in KINDS else f"under {section}"
        names = arguments if section in KINDS else sorted(arguments)
        raise EditError(f"{_unknown(name, path[0], arguments)} Accepted {where}: {', '.join(names)}")
    kind = arguments[path[0]]
    inner = owner.module.find(kind.partition(" | ")[0])
    if inner is None:
        _check_value(name, kind, value)
    elif not inner.is_abstract:
        _check_setting(name, path[1:], value, inner)
    elif len(path) == 1 and value is not None:
        _named(name, value, inner)


def _check_value(name: str, kind: str, value: str | None) -> None:
    """Refuses what is no number, where the annotation wants one and nothing else."""
    first, *rest = kind.split(" | ")
    if first == "Layers" and value != "auto" and not re.search(r"\d", value or "0"):
        raise EditError(f"`{name}` must be auto or a list of whole numbers such as [5], got {value}.")
    if value is None or rest not in ([], ["None"]) or (rest and value.lower() in ("null", "none", "~")):
        return
    if first in ("int", "float", *NUMBERS) and not NUMBER.fullmatch(value.strip()):
        raise EditError(f"`{name}` must be a number{' or null' if rest else ''}, got {value}.")
    if first in NUMBERS:
        refuse_unfit(f"`{name}`", as_number(value), NUMBERS[first])


def _unknown(name: str, part: str, names: Iterable[str]) -> str:
    close = get_close_matches(part, list(names), n=1)
    return f"There is no setting --{name}.{f' Did you mean {close[0]}?' if close else ''}"
