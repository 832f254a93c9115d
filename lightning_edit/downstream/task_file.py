"""Reading a task from its YAML file, with errors that say what would have been right."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from lightning_edit.downstream.endings import EndingTask
from lightning_edit.downstream.labels import LabelTask
from lightning_edit.downstream.running_text import TextTask
from lightning_edit.downstream.task import Source, Task
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.settings import accepted, refuse_unfit
from lightning_edit.storage.user.files import is_there
from lightning_edit.storage.user.yaml import read_yaml

KINDS: dict[str, type[Task]] = {"labels": LabelTask, "endings": EndingTask, "text": TextTask}
SUFFIXES = (".yaml", ".yml")


def known_tasks(folder: Path) -> list[str]:
    """The names of the tasks in a folder.

    Args:
        folder: It holds ``NAME.yaml`` for each task.
    """
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_task(name: str, folder: Path) -> Task:
    """A task by its name or by the path of its YAML file.

    Args:
        name: A name of `known_tasks`, or a path that ends in ``.yaml``.
        folder: Where names are looked up.

    Raises:
        EditError: If there is no such task, or its file is not as it should be.
    """
    file = Path(name).expanduser() if name.endswith(SUFFIXES) else folder / f"{name}.yaml"
    if not is_there(file):
        names = known_tasks(folder)
        raise EditError(
            f"There is no task {name}.{_meant(name, names)} Known tasks: {', '.join(names)}; "
            "your own is given by the path of its YAML file."
        )
    content = read_yaml(file)
    try:
        return _task(file.stem, content, file.parent)
    except EditError as error:
        raise EditError(f"{file}: {error}") from error


def _task(name: str, content: Any, home: Path) -> Task:
    if not isinstance(content, dict):
        raise EditError(f"expected the keys of a task, got {quoted(content)}.")
    kind = content.pop("kind", "labels")
    if not isinstance(kind, str) or kind not in KINDS:
        raise EditError(f"`kind` must be one of {', '.join(KINDS)}, got {quoted(kind)}.")
    _check_keys(content, KINDS[kind], "", skipped={"name"})
    data = content["data"]
    if not isinstance(data, dict):
        raise EditError(f"`data` must have the keys of a source, got {quoted(data)}.")
    _check_keys(data, Source, "data.")
    if isinstance(data.get("file"), str):
        data["file"] = str(home / Path(data["file"]).expanduser())
    if "answers" in content:
        content["answers"] = _answers(content["answers"])
    # The class itself checks last, and in its own words.
    Source(**_typed(Source, data, "data."))
    return KINDS[kind](name=name, data=Source(**data), **_typed(KINDS[kind], content, "", {"name", "data"}))


def _typed(kind: type, content: Mapping[str, Any], prefix: str, skipped: Iterable[str] = ()) -> dict[str, Any]:
    """The keys of a file with their types checked."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=set(skipped))
    given = {key: value for key, value in content.items() if key not in skipped}
    try:
        typed = parser.parse_object(given).as_dict()
    except (ArgumentError, TypeError) as error:
        raise EditError(f"{prefix}{str(error).strip()}") from error
    annotations = accepted(kind)
    for key in given:
        refuse_unfit(f"`{prefix}{key}`", typed[key], annotations[key])
    return typed


def _check_keys(content: Mapping[str, Any], kind: type, prefix: str, skipped: Iterable[str] = ()) -> None:
    accepted = {field.name: field for field in fields(kind) if field.name not in skipped}
    for key in content:
        if key not in accepted:
            raise EditError(
                f"there is no key `{prefix}{key}`.{_meant(str(key), accepted)} Accepted: {', '.join(accepted)}."
            )
    for key, field in accepted.items():
        if key not in content and field.default is MISSING and field.default_factory is MISSING:
            raise EditError(f"the key `{prefix}{key}` is missing. Accepted: {', '.join(accepted)}.")


def _answers(answers: Any) -> dict[str, str]:
    """Labels as texts, whatever YAML takes them for; the words must be texts already."""
    if not isinstance(answers, dict):
        raise EditError(f"`answers` must map each label to a word, got {quoted(answers)}.")
    for label, word in answers.items():
        if not isinstance(word, str):
            raise EditError(
                f"`answers`: the word of {label!r} is read as {quoted(word)}; put it in quotes, e.g. 'Yes'."
            )
    return {str(label): word for label, word in answers.items()}


def _meant(given: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, list(names), n=1)
    return f" Did you mean {close[0]}?" if close else ""
