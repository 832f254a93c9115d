"""Runs whose edits are in no weights: nothing that is done to weights can take them away."""

from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.storage.run_files import MEMORIES
from lightning_edit.storage.user.json import read_json

WORKS = "`survive` takes runs that leave an edited model: those of EditingModule, FineTuning, LoRA and CrispEdit."


def refuse_without_weights(run: Path) -> None:
    """Refuses runs that leave no edited model, and says what would work.

    Args:
        run: The folder of a run, or a file of one.

    Raises:
        EditError: If its edits are memories, facts in the context, or updates that were each made by itself.
    """
    if not run.is_dir():
        return
    if (run / MEMORIES).is_dir():
        raise EditError(
            f"RUN: the edits of {run} are in {MEMORIES}/, beside the weights, and no weight was edited. {WORKS} "
            "`lightning_edit.load_memories` puts memories on a model, also on a changed one."
        )
    model = _settings(run)
    if str(model.get("_class_path", "")).rpartition(".")[2] == "InContext":
        raise EditError(
            f"RUN: {run} puts facts before prompts and edits no weight. {WORKS} `lightning-edit test` with the "
            "run's settings and another `model.model` measures the same facts on another model."
        )
    if model.get("independent_updates"):
        raise EditError(
            f"RUN: each update of {run} was made by itself (`independent_updates`), so there is no edited model. "
            f"{WORKS} Make the run again with `model.independent_updates: false`."
        )


def _settings(run: Path) -> dict[str, Any]:
    """What ``metrics.json`` says of the run's ``model``; nothing where there is none."""
    if not (run / "metrics.json").is_file():
        return {}
    content = read_json(run / "metrics.json")
    config = content.get("config") if isinstance(content, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}
