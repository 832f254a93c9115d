"""A mistake on the command line, answered with what would have been right."""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, get_args

from jsonargparse import get_loader
from lightning.pytorch.cli import LightningArgumentParser
from yaml import YAMLError

from lightning_edit.commands.argument_words import (
    in_order,
    under_current_names,
    with_class_names,
    with_folders,
)
from lightning_edit.commands.failure import fail
from lightning_edit.errors import EditError
from lightning_edit.old_names import current
from lightning_edit.storage.checkpoints.known_classes import ROOTS
from lightning_edit.storage.user.files import read_text
from lightning_edit.storage.user.yaml import LARGEST

# The parser's errors carry nothing but text: the class that a setting may be, the one that it is, and the setting.
EXPECTED = re.compile(r"Subtypes: \[(.*)\]")
DOTTED = re.compile(r"[a-z_]+(?:\.\w+)+")
# Whose classes settings are meant to name.
OWN = (*ROOTS, "lightning")
GIVEN = re.compile(r"Problem with given class_path '([\w.]+)'")
UNKNOWN = re.compile(
    r"(?:Group '([\w.]+)' does not accept o|accept o|O)ption '([\w.]+)'|unrecognized arguments: --([\w.]+)"
)
# What the parser makes of values on its way is no help; nor are names of types to those who write no Python.
NOISE = re.compile(
    r"(?:- )?Does not validate|Subtypes:|Errors:|- Expected a <class 'NoneType'>|Given value type:"
    r"|Given value: (?:NestedArg|Namespace)\("
)
TYPE = re.compile(r"Expected a (?:<class '([\w.]+)'>|typing\.Literal\[(.*?)\](?=$|\. Got value))")
IN_WORDS = {"int": "whole number", "float": "number", "str": "text", "bool": "truth value (true or false)"}
IN_WORDS |= {"dict": "mapping"}


class EditArgumentParser(LightningArgumentParser):
    """Answers a wrong key or type with the right ones instead of the usage of everything."""

    def parse_args(self, args: Sequence[str] | None = None, *others: Any, **kwargs: Any) -> Any:
        """Parses arguments of which the order does not matter, under old names as well."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args(with_folders(in_order(under_current_names(words))), *others, **kwargs)

    def _apply_actions(self, cfg: Any, *others: Any, **kwargs: Any) -> Any:
        """Reads settings of a file or checkpoint under their old names, and classes in any case, as well."""
        given = with_class_names(current(cfg)) if isinstance(cfg, dict) else cfg
        return super()._apply_actions(given, *others, **kwargs)

    def format_help(self) -> str:
        """All options, those of Lightning's trainer after all others."""
        groups: list[Any] = self._action_groups  # type: ignore[has-type]
        trainer = [group for group in groups if any(a.dest.startswith("trainer.") for a in group._group_actions)]
        self._action_groups = [group for group in groups if group not in trainer] + trainer
        try:
            return super().format_help()
        finally:
            self._action_groups = groups

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Reads a configuration file within bounds; what is wrong in it is said with its name."""
        text = read_text(os.fspath(path), "`config`: ", LARGEST)
        try:
            get_loader("yaml")(text)
        except (EditError, YAMLError) as error:
            raise EditError(f"`config`: {os.fspath(path)}: {error}") from error
        return super().parse_path(path, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Shows what is wrong and what is accepted in its place, and leaves with status 2."""
        if not self.exit_on_error:
            # A part of a larger parse, which tells the whole story.
            super().error(message, ex)
        if denied := re.search(r"Importing '(.+?)' is not allowed", message):
            fail(
                f"A checkpoint, or the configuration beside it, names {denied[1]!r}, which is none of the classes that "
                "such a file may name, so it was not imported."
            )
        parser = getattr(ex, "subcommand_parser", None) or self
        fail("\n".join([*_in_words(message), *_accepted(parser, message)]))


def _in_words(message: str) -> Iterator[str]:
    """The lines of a parser's message that say something, each value that was given once, types in words."""
    shown: set[str] = set()
    for line in message.splitlines():
        text = line.strip()
        if NOISE.match(text) or text in shown:
            continue
        if text.startswith("Given value:"):
            shown.add(text)
        yield TYPE.sub(_type_in_words, line)


def _type_in_words(match: re.Match[str]) -> str:
    kind, choices = match.groups()
    if kind is None:
        return f"Expected one of {choices}" if "," in choices else f"Expected {choices}"
    name = kind.rpartition(".")[2]
    return f"Expected a {IN_WORDS.get(name, name)}"


def _accepted(parser: Any, message: str) -> Iterator[str]:
    """What would have been right in place of what a parser's message complains about."""
    expected, given = EXPECTED.findall(message), GIVEN.findall(message)
    path = [".".join(filter(None, names)) for names in UNKNOWN.findall(message)][-1:]
    if "Expected a dot import path" in message:
        named = [name for name in DOTTED.findall(" ".join(expected[-1:])) if name.partition(".")[0] in OWN]
        if named and (base := _imported(named[0])) is not None:
            yield f"Known classes: {', '.join(sorted(_concrete(base)))}"
    elif path and given:
        if (owner := _imported(given[-1])) is not None:
            owner = _inner(owner, path[0].split(".")[:-1])
            yield f"Accepted by {owner.__name__}: {', '.join(_arguments(owner))}"
    elif path:
        yield _siblings([action.dest for action in parser._actions], path[0].split("."))


def _inner(owner: Any, path: Sequence[str]) -> Any:
    """The class of the settings under a name among a class's settings, as far as there are classes under it."""
    for name in path:
        parameter = inspect.signature(owner).parameters.get(name)
        kinds = () if parameter is None else (*get_args(parameter.annotation), parameter.annotation)
        owner = next((kind for kind in kinds if inspect.isclass(kind)), owner)
    return owner


def _siblings(keys: list[str], path: list[str]) -> str:
    """The keys beside the nearest one that exists."""
    prefixes = [".".join(path[:end]) + "." for end in range(len(path) - 1, 0, -1)] + [""]
    prefix = next(p for p in prefixes if any(dest.startswith(p) for dest in keys))
    children = {dest.removeprefix(prefix).split(".")[0] for dest in keys if dest.startswith(prefix)}
    return f"Accepted under {prefix.rstrip('.') or 'the top level'}: {', '.join(sorted(children - {'help'}))}"


def _arguments(accepted: Any) -> list[str]:
    """Names of what a class is made from, those that it passes on to its parents included."""
    names: list[str] = []
    for part in inspect.getmro(accepted):
        parameters = inspect.signature(part).parameters.values() if "__init__" in vars(part) else []
        names += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in names]
        if parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return names


def _imported(path: str) -> Any:
    """A class by its name, as long as its module is here already: a message is no reason to run one."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _concrete(base: type) -> set[str]:
    """Names of all subclasses that can be made, of this project and of Lightning."""
    children: list[type] = type.__subclasses__(base)
    own = [child for child in children if child.__module__.partition(".")[0] in OWN]
    names = {name for child in own for name in _concrete(child)}
    return names if inspect.isabstract(base) or base.__name__.startswith("_") else names | {base.__name__}
