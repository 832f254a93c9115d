"""The records of a run and how they were measured, read from its files to measure them again on other models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.commands.argument_errors import EditArgumentParser
from lightning_edit.commands.relative_paths import check_relative
from lightning_edit.commands.resume_arguments import restored_settings
from lightning_edit.commands.run_config import REMEDY
from lightning_edit.datamodules import EditDataModule
from lightning_edit.errors import EditError
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.metrics.edit_metrics import name_of
from lightning_edit.requests import EditRequest
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.storage.checkpoints import checkpoint_file
from lightning_edit.storage.checkpoints.known_classes import (
    accept_former_names,
    check_names,
    known_classes,
    only_imports,
)
from lightning_edit.storage.user.json import json_lines, read_json
from lightning_edit.storage.user.yaml import read_yaml


@dataclass(frozen=True)
class MeasuredRun:
    """What is needed to measure a run's records again.

    Args:
        data: Its data module.
        evaluation: What it measures, without a judge: an answer of another model is not sent away for a run's sake.
        chat: Whether it asks in a chat.
        chat_settings: How.
        own_answers: What the model was asked to say in its own words, as the run kept it; None where it did not ask.
        down_projection: See `find_decoder`.
    """

    data: EditDataModule
    evaluation: EvaluationSettings
    chat: bool | Literal["auto"]
    chat_settings: ChatSettings
    own_answers: list[str | None] | None = None
    down_projection: str | None = None

    def requests(self, asked_in_chat: bool) -> Sequence[EditRequest]:
        """The records as the run measured them.

        Args:
            asked_in_chat: Whether the tokenizer is one of a chat.

        Raises:
            EditError: If the data cannot be read any more.
        """
        self.data.ask_questions(self.chat_settings if asked_in_chat else None)
        self.data.setup("test")
        if self.own_answers is not None and len(self.own_answers) == len(self.data.requests):
            self.data.learn(self.own_answers)
        return self.data.measured


def measured_run(folder: Path | None, checkpoint: Path | None, trusted: bool = False) -> MeasuredRun:
    """Reads how a run was measured, and on what.

    Args:
        folder: The run's; None for a checkpoint that lies elsewhere.
        checkpoint: A checkpoint of the run, whose settings count where there is no ``config.yaml``.
        trusted: Whether classes of others that ``config.yaml`` names may be imported.

    Raises:
        EditError: If neither says what data the run had, or one names a class that it may not.
    """
    file = None if folder is None else folder / "config.yaml"
    kinds = (MeasuredModule, EditDataModule, *MeasuredModule.named_kinds(), *EditDataModule.named_kinds())
    known = known_classes(*kinds)
    accept_former_names(known)
    if file is not None and file.is_file():
        model, data = _of_config(file, None if trusted else known)
    elif checkpoint is not None:
        restored = restored_settings(checkpoint, kinds)
        model, data = restored["model"].get("init_args", restored["model"]), restored["data"]
    else:
        model, data = {}, {}
    if "class_path" not in data:
        raise EditError(
            f"RUN: {folder or checkpoint} does not say on what data it was measured: there is no config.yaml, as runs "
            "of the command line have it. In Python, `lightning_edit.survival.survive` takes the records themselves."
        )
    where = folder or (checkpoint or Path()).parent
    check_relative({"data": data}, where, where)
    made = _made(model, data, None if trusted else list(known))
    answers = _own_answers(folder, checkpoint)
    return MeasuredRun(
        made["data"],
        made["evaluation"],
        model.get("chat", False),
        made["chat_settings"],
        answers,
        model.get("down_projection"),
    )


def _of_config(file: Path, known: Mapping[str, str] | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The settings of ``model`` and ``data``; their classes are looked at before any is imported."""
    content = read_yaml(file)
    try:
        model, data = content["model"]["init_args"], content["data"]
    except (KeyError, TypeError) as error:
        raise EditError(f"{file} is not the configuration of a run ({error}).") from error
    if not isinstance(model, Mapping) or not isinstance(data, Mapping):
        raise EditError(f"{file} is not the configuration of a run.")
    return model, data if known is None else check_names(data, known, str(file), REMEDY)


def _made(model: Mapping[str, Any], data: Mapping[str, Any], importable: list[str] | None) -> Mapping[str, Any]:
    parser: Any = EditArgumentParser()
    parser.add_subclass_arguments(EditDataModule, "data", required=True)
    parser.add_class_arguments(EvaluationSettings, "evaluation")
    parser.add_class_arguments(ChatSettings, "chat_settings")
    evaluation = {key: value for key, value in (model.get("evaluation") or {}).items() if key != "judge"}
    given = {"data": dict(data), "evaluation": evaluation, "chat_settings": model.get("chat_settings") or {}}
    if importable is None:
        return parser.instantiate(parser.parse_object(given))
    with only_imports(importable):
        return parser.instantiate(parser.parse_object(given))


def _own_answers(folder: Path | None, checkpoint: Path | None) -> list[str | None] | None:
    """What the run kept of the model's own answers: they are never asked for again."""
    report = None if folder is None else folder / "metrics.json"
    if report is not None and report.is_file():
        content = read_json(report)
        config = content.get("config") if isinstance(content, dict) else None
        answers = config.get("own_answers") if isinstance(config, dict) else None
    else:
        answers = None if checkpoint is None else checkpoint_file.read(checkpoint, "RUN")["edits"].get("own_answers")
    if isinstance(answers, list) and all(one is None or isinstance(one, str) for one in answers):
        return answers
    return None


def other_records(folder: Path | None, requests: Sequence[EditRequest]) -> int:
    """How many records the run did not measure, as far as its ``records.jsonl`` tells: its data may have changed.

    Args:
        folder: The run's.
        requests: The records as they are read now.
    """
    path = None if folder is None else folder / "records.jsonl"
    if path is None or not path.is_file() or not path.stat().st_size:
        return 0
    lines = (value for value, _ in json_lines(path, on_unfinished=lambda where: None) if isinstance(value, dict))
    measured = {name_of(line) for line in lines if line.get("stage") == "after"}
    return sum(name_of(vars(request)) not in measured for request in requests) if measured else 0
