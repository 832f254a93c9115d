"""What a run's files say of its settings, and which runs have no sum of updates: each was made by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.old_names import current
from lightning_edit.storage.user.json import read_json
from lightning_edit.storage.user.yaml import read_yaml

CONFIG = "config.yaml"
APART = (
    "{}: each update of {} was made by itself (`independent_updates`), so there is no edited model. "
    "{}Make the run again with `model.independent_updates: false`."
)


def refuse_apart(settings: Mapping[str, Any], run: str | Path, given: str = "RUN", remedy: str = "") -> None:
    """Refuses a run each of whose updates was made by itself.

    Args:
        settings: Those of its ``model``, perhaps under old names.
        run: What it is called.
        given: What names it.
        remedy: What else would work, a sentence with a space behind it.

    Raises:
        EditError: If it is one.
    """
    if current(settings, warn=False).get("independent_updates"):
        raise EditError(APART.format(given, run, remedy))


def refuse_independent(run: Path) -> None:
    """Refuses a run with `independent_updates`, finished or not.

    Args:
        run: Its folder.

    Raises:
        EditError: If its configuration, or its ``metrics.json`` where there is none, says that it is one.
    """
    refuse_apart(settings_of(run) or measured_settings(run), run)


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of a run's ``model``; none where its folder holds no configuration.

    Args:
        folder: The run's.

    Raises:
        EditError: If there is a configuration, but not that of a run.
    """
    path = folder / CONFIG
    if not path.is_file():
        return {}
    content = read_yaml(path)
    try:
        return dict(content["model"]["init_args"])
    except (KeyError, TypeError, ValueError) as error:
        raise EditError(f"{path} is not the configuration of a run ({error}); fix it or move it away.") from error


def measured_settings(run: Path) -> dict[str, Any]:
    """What ``metrics.json`` says of a run's ``model``; nothing where there is none.

    Args:
        run: Its folder.
    """
    if not (run / "metrics.json").is_file():
        return {}
    content = read_json(run / "metrics.json")
    config = content.get("config") if isinstance(content, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}
