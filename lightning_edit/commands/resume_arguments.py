"""What ``fit --ckpt_path`` means on a command line: the settings of that run, and its folder again."""

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_edit.commands.argument_words import FILE_LOGGERS, RUNS, SAVE_DIR
from lightning_edit.commands.run_config import checked_config
from lightning_edit.errors import EditError
from lightning_edit.storage.checkpoints import checkpoint_file
from lightning_edit.storage.checkpoints.known_classes import check_names, known_classes
from lightning_edit.storage.run_files import LOGGERS
from lightning_edit.storage.user.json import read_json

logger = logging.getLogger(__name__)

FOLDERS = ("cache_dir", "offload_folder", "trust_remote_code")
# For loggers whose files are not in the run's folder the argument that names a run to go on with.
IDENTIFIED = {"WandbLogger": "version", "MLFlowLogger": "run_id", "CometLogger": "experiment_key"}
IDENTITY = re.compile(r"[\w-]{1,100}")


def resume_arguments(words: list[str], accepted: Mapping[str, str] | None) -> list[str]:
    """Arguments of a fit that goes on from a checkpoint: the configuration of its run comes before what was typed.

    Args:
        words: The arguments, ``fit`` and what follows, with ``--ckpt_path``: a checkpoint in a run's ``checkpoints/``,
            a folder whose last run is meant, or ``last``.
        accepted: The classes that the run's configuration may name; None if it is trusted.

    Raises:
        EditError: If there is no such checkpoint, it is damaged, or it is not in the folder of a run.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path")
    parser.add_argument(*SAVE_DIR, dest="runs", default=RUNS)
    given, _ = parser.parse_known_args(words[1:])
    if given.ckpt_path in (None, "null"):
        return words
    file = _checkpoint(given.ckpt_path, given.runs)
    run = file.parent.parent
    if file.parent.name != checkpoint_file.FOLDER or not (run / "config.yaml").is_file():
        raise EditError(
            f"`ckpt_path`: {file} is not among the checkpoints of a run (RUN/checkpoints/update-N.ckpt beside "
            "RUN/config.yaml), so a fit cannot resume from it; `test --ckpt_path` measures it, and `model.on_top_of` "
            "makes other edits on top of it."
        )
    config = str(run / "config.yaml") if accepted is None else checked_config(run / "config.yaml", accepted)
    return [words[0], f"--config={config}", *words[1:], f"--ckpt_path={file}"]


def _checkpoint(given: str, runs: str) -> Path:
    path = Path(runs if given == checkpoint_file.LAST else given).expanduser()
    if given != checkpoint_file.LAST and not path.exists():
        raise EditError(
            f"`ckpt_path`: there is no file {given}. Give a run's folder, a file of its checkpoints/, or `last`."
        )
    if given != checkpoint_file.LAST and not path.is_dir():
        checkpoint_file.check_sound(path)
        run = path.parent.parent
        if path.parent.name == checkpoint_file.FOLDER and path in checkpoint_file.checkpoints(run)[:1]:
            checkpoint_file.check_unfinished(run, [])
        return path
    file, passed_over = checkpoint_file.newest(path, given)
    for wrong in passed_over:
        logger.warning("%s; the previous one is used.", wrong)
    return file


def same_folder(settings: Any, run: Path) -> None:
    """Lets the loggers of a resumed run write where they wrote.

    Args:
        settings: The trainer's settings, changed in place.
        run: The run's folder.
    """
    loggers = settings.logger if isinstance(settings.logger, list) else [settings.logger]
    files = [chosen for chosen in loggers if _kind(chosen) in FILE_LOGGERS]
    for chosen in files:
        chosen.init_args.save_dir, chosen.init_args.name, chosen.init_args.version = str(run.parent), "", run.name
    noted = _noted(run)
    if not files and loggers:
        # The folder is named after the run there.
        noted = {_kind(loggers[0]): run.name, **noted}
    for chosen in loggers:
        if _kind(chosen) in IDENTIFIED and _kind(chosen) in noted:
            chosen.init_args[IDENTIFIED[_kind(chosen)]] = noted[_kind(chosen)]


def _noted(run: Path) -> dict[str, str]:
    """Under which names loggers know the run; see `LogResults`."""
    if not (run / LOGGERS).is_file():
        return {}
    content = read_json(run / LOGGERS)
    known = content.items() if isinstance(content, dict) else ()
    return {kind: name for kind, name in known if isinstance(name, str) and IDENTITY.fullmatch(name)}


def restored_settings(file: Path, kinds: Sequence[type]) -> dict[str, dict[str, Any]]:
    """The settings of ``model`` and ``data`` that a checkpoint brings to ``test``.

    Args:
        file: The checkpoint.
        kinds: Classes of whose subclasses it may name.

    Raises:
        EditError: If there is no such checkpoint, it is damaged, or it names a class that is not this project's.
    """
    content, accepted = checkpoint_file.read(file), known_classes(*kinds)
    restored = {}
    for key, name in (("model", "hyper_parameters"), ("data", "datamodule_hyper_parameters")):
        settings = check_names(content.get(name, {}), accepted, f"`ckpt_path`: {file}")
        settings = _without_folders({k: value for k, value in settings.items() if k != "_instantiator"})
        class_path = settings.pop("_class_path", None)
        restored[key] = {"class_path": class_path, "init_args": settings} if class_path is not None else settings
    return restored


def _without_folders(settings: Any) -> Any:
    """What a machine keeps on its disk, and where, is not for a checkpoint to say."""
    if isinstance(settings, Mapping):
        return {key: _without_folders(value) for key, value in settings.items() if key not in FOLDERS}
    return settings


def _kind(chosen: Any) -> str:
    return str(getattr(chosen, "class_path", "")).rpartition(".")[2]
