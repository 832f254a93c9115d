"""Runs whose edits are in no weights: nothing that is done to weights can take them away."""

from pathlib import Path

from lightning_edit.errors import EditError
from lightning_edit.storage.run_files import MEMORIES
from lightning_edit.updates.run_settings import measured_settings, refuse_apart

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
            "`lightning_edit.load_memories` puts memories on the model that they were made for."
        )
    model = measured_settings(run)
    if str(model.get("_class_path", "")).rpartition(".")[2] == "InContext":
        raise EditError(
            f"RUN: {run} puts facts before prompts and edits no weight. {WORKS} `lightning-edit test` with the "
            "run's settings and another `model.model` measures the same facts on another model."
        )
    refuse_apart(model, run, remedy=f"{WORKS} ")
