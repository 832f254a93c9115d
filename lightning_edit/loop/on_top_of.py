"""Building upon an earlier run: what it left in the weights, and where its updates can be looked up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.errors import EditError
from lightning_edit.loop.checkpoint_fit import check_fits
from lightning_edit.loop.replaced_edits import valid_columns
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.same_run import check_base
from lightning_edit.messages import counted
from lightning_edit.solvers import Factors, PreviousKeys
from lightning_edit.storage.checkpoints import checkpoint_file
from lightning_edit.storage.checkpoints.checkpoint_form import is_memory
from lightning_edit.storage.run_files import UPDATES
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.history import START, History
from lightning_edit.updates.removed import removed_from
from lightning_edit.updates.run_settings import refuse_apart


def earlier_edits(path: str, weights: EditedWeights, model: str, previous_keys: bool) -> tuple[RunState, list[History]]:
    """What earlier runs left in the weights.

    Where earlier edits are to be preserved and the earlier run did not do so, C_p is added up from the keys of its
    updates, without those of edits that a later one replaced.

    Args:
        path: A checkpoint of the run to build upon.
        weights: Those of this run.
        model: Its name.
        previous_keys: Whether C_p is wanted.

    Returns:
        The sums and C_p that the run starts from, and where the updates behind them can be looked up, the latest run
        first.

    Raises:
        EditError: If it is no checkpoint of edits of the same layers of the same model, or each update of its run was
            made by itself.
    """
    file = checkpoint_file.edited_of(path, "model.on_top_of")
    content = _built_upon(file)
    check_base(content["edits"], weights, model)
    check_fits(content, weights)
    state, histories = RunState.unpacked(content["run"]), _chain(file, content)
    earlier = state.previous_keys
    if previous_keys and not earlier:
        for history, valid in zip(histories, valid_columns(histories), strict=True):
            for number in range(1, (history.until or 0) + 1):
                stored, columns = history.read(number), valid[number]
                for layer, keys in stored.keys.items():
                    of_edits = stored.record.columns_of(columns)
                    kept = keys if len(columns) == len(stored.record.edits) else keys[:, of_edits]
                    before = earlier.get(layer, PreviousKeys())
                    earlier[layer] = before.extended(kept.double(), weights.has_experts(layer))
    preserved = earlier if previous_keys else {}
    return RunState(added=state.added, previous_keys=preserved, statistics=state.statistics), histories


def _built_upon(file: Path) -> dict[str, Any]:
    content = checkpoint_file.read(file, "model.on_top_of")
    refuse_apart(content["hyper_parameters"], f"the run of {file}", "`on_top_of`")
    if "run" not in content:
        raise EditError(
            f"`on_top_of`: {file} holds no updates that can be built upon, like those of a fine-tuning. Give the "
            "edited.ckpt of a run that writes updates, or the model/ folder of this one as `model.model`."
        )
    if any(map(is_memory, content["run"].get("anchored", {}).values())):
        raise EditError(
            f"`on_top_of`: the edits of {file} are in a memory beside a layer, and not in weights that can be built "
            "upon. Give a run whose edits are in the weights, or make all edits with MemoryEditing."
        )
    return content


def _chain(file: Path, content: Mapping[str, Any]) -> list[History]:
    """Where the updates in a checkpoint can be looked up, those of the runs that its run was built upon included."""
    history = History(checkpoint_file.run_beside(file) / UPDATES, until=content["run"]["updates_written"])
    if len(history.numbers()) < (history.until or 0):
        rank_zero_warn(
            f"{history.folder} does not hold the {counted(history.until or 0, 'update')} of {file}: what they wrote "
            "stays in the weights, but an edit that replaces one of them cannot be told apart from a new one, and "
            "`previous_keys` preserves them only as far as the checkpoint holds their keys."
        )
        return []
    if (removed := removed_from(file, history.until)) is not None:
        rank_zero_warn(f"{removed}. It is built upon as it is, with all that it holds.")
    before = content["hyper_parameters"].get("on_top_of")
    earlier = Path(before).expanduser() if before else None
    if earlier is not None and earlier.is_dir():
        earlier /= checkpoint_file.EDITED
    return [history, *(_chain(earlier, _built_upon(earlier)) if earlier is not None and earlier.is_file() else [])]


def start_of(file: Path, weights: EditedWeights) -> dict[int, Factors]:
    """What the weights held when the run of a checkpoint began; that run keeps it, and need not be built upon again.

    Args:
        file: The checkpoint of a run that was built on an earlier one.
        weights: Those of the model that is measured.

    Returns:
        For each layer what earlier runs had added; nothing, with a warning, where that is not known any more.
    """
    history = History(checkpoint_file.run_beside(file) / UPDATES)
    start, why = history.start_if_known()
    if any(layer not in weights.bases or weights.base_fingerprint(layer) != one.base for layer, one in start.items()):
        start, why = {}, f"{history.folder / START} is of another model."
    if not start:
        rank_zero_warn(
            f"{why} The run of {file} was built on an earlier one, and what it found is not known: what should stay is "
            "compared with the base model without any edit, so what the earlier run changed counts, too."
        )
    return {layer: one.factors for layer, one in start.items()}
