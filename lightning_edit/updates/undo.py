"""Updates taken out of a finished run, or put back: its weights are made again from the base model."""

from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_edit.errors import EditError
from lightning_edit.loading.editable import Loaded
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.atomic import atomic_path, copy_others
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.run_files import MODEL, UPDATE, WEIGHTS, clear_killed_writers
from lightning_edit.storage.run_lock import RunLock
from lightning_edit.updates.base_model import base_of
from lightning_edit.updates.beside import save_beside
from lightning_edit.updates.files.update_list import REMOVED, left_out, open_updates
from lightning_edit.updates.files.update_record import DamagedUpdateError, UpdateRecord
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate, layer_update
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.run_settings import refuse_independent
from lightning_edit.updates.sums import same_update

Action = Literal["remove", "apply"]


@dataclass(frozen=True)
class Change:
    """What became of a run.

    Args:
        removed: The numbers that are out of its weights now.
        kept: Those that are in.
        edits: How many edits these hold.
        written: The files and folders made anew.
        checked: Whether the edited weights are those the run had after the last kept update: compared with the
            fingerprint kept then. None where it keeps none, or where a removed update came before a kept one.
        distance: For each layer, by the name that `updates list` shows, how far the weights are from those of a run
            without the removed updates, see `first_order_distance`; None where a removed update is damaged.
        notes: What could not be checked.
        on_top: Whether edits of the run that it was built on are in its weights, whatever is removed.
    """

    removed: list[int]
    kept: list[int]
    edits: int
    written: list[Path]
    checked: bool | None
    distance: dict[str, float | str] | None
    notes: list[str]
    on_top: bool = False

    @property
    def exact(self) -> bool:
        """Whether the weights are those that the run had after the last kept update."""
        return self.kept == list(range(1, len(self.kept) + 1))


def change_updates(
    run: str | Path,
    action: Action,
    numbers: Collection[int],
    model: str | None = None,
    trust_remote_code: bool = False,
) -> Change:
    """Takes updates out of a finished run, or puts back what was taken out.

    The weights are the base model's plus the sum of the kept updates. ``update.safetensors`` and, where there is one,
    ``model/`` are made anew; all files take their places together, after all of them are written.

    Args:
        run: The run's folder.
        action: What to do with the updates.
        numbers: Which.
        model: The base model, where it is not where the run found it.
        trust_remote_code: Whether code that comes with the base model may be run, whatever the run's settings say.

    Raises:
        EditError: If a number is unknown, removed already or not removed, if the run is not finished or each of its
            updates was made by itself, or if the base model is not the one that was edited; nothing is changed then.
    """
    folder, history = Path(run).expanduser(), open_updates(run, History)
    with RunLock(folder):
        # A command that was killed while it changed the run may have left `model/` beside its place.
        clear_killed_writers(folder)
        removed = _removed_after(folder, history, action, set(numbers))
        return _change(folder, history, removed, model, trust_remote_code)


def _change(folder: Path, history: History, removed: set[int], model: str | None, trust_remote_code: bool) -> Change:
    notes = _check_run(folder, history, removed)
    kept = [number for number in history.numbers() if number not in removed]
    records, total = [history.record(number) for number in kept], history.sum(removed)
    if not all(record.edits for record in records if removed and record.number > min(removed)):
        notes.append(
            f"Update {records[-1].number} is the post-processing of the sum of all updates, those that are removed now "
            "included. Without it the weights are the plain sum."
        )
    described = _known_update(folder, history)
    edits = sum(len(record.edits) for record in records)
    update = ModelUpdate(total, {**described.info, "edits": edits, "removed_updates": sorted(removed)})
    base, _ = base_of(folder, described, model, trust_remote_code)
    if "model_sample" not in update.info:
        notes.append("The run has not noted its model beside the edited matrices, so these alone were compared.")
    update.insert(base.model)
    written = _write(folder, history, removed, update, base)
    checked = _check_after(base.model, records[-1]) if records and kept == list(range(1, len(kept) + 1)) else None
    distance = _distance(history, removed, described)
    return Change(sorted(removed), kept, edits, written, checked, distance, notes, history.began_with)


def _removed_after(folder: Path, history: History, action: Action, numbers: set[int]) -> set[int]:
    existing, noted, removed = history.numbers(), history.removed(), left_out(folder, history)
    if unknown := sorted(numbers - set(existing)):
        raise EditError(f"There is no update {_listed(unknown)}: {history.folder} holds updates 1 to {existing[-1]}.")
    # What the two notes disagree about was being changed when a crash came, and the same command finishes that.
    if action == "remove":
        if wrong := sorted(numbers & removed & noted):
            raise EditError(f"Update {_listed(wrong)} is removed already. Now removed: {_listed(removed)}.")
        return removed | numbers
    if wrong := sorted(numbers - removed - noted):
        raise EditError(f"Update {_listed(wrong)} is not removed. Now removed: {_listed(removed) or 'none'}.")
    return removed - numbers


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _check_run(folder: Path, history: History, removed: set[int]) -> list[str]:
    """Refuses a run whose weights are not the sum of its updates, as while it is being made."""
    path = folder / UPDATE
    if not path.exists():
        if (folder / MODEL).exists():
            return [f"There was no {path}, so it could not be checked that the run is finished."]
        refuse_independent(folder)
        raise EditError(
            f"{folder} holds neither {UPDATE} nor {MODEL}/: the run is not finished, or its ExportEdits writes "
            "neither. Wait for its end, or resume it from its last checkpoint, before you change its updates."
        )
    now = ModelUpdate.load(path)
    try:
        total = history.sum(set(now.info.get("removed_updates", ())))
    except DamagedUpdateError as error:
        if error.number not in removed:
            raise
        return [f"Update {error.number} is damaged, so it could not be checked that {path} held the run's updates."]
    if not _same(now.layers, total):
        raise EditError(
            f"{path} is not the sum of the updates in {history.folder}. Either the run is still going on, or its "
            "updates were processed as a whole at the end (PRUNE), or the file is another run's; none can be changed "
            "update by update."
        )
    return []


def _same(first: dict[int, LayerUpdate], second: dict[int, LayerUpdate]) -> bool:
    return first.keys() == second.keys() and all(
        (update.module, update.base) == (second[layer].module, second[layer].base)
        and same_update(update.factors, second[layer].factors)
        for layer, update in first.items()
    )


def _known_update(folder: Path, history: History) -> ModelUpdate:
    """What is known of the edited weights and of how they were edited, without what was added to them."""
    update = ModelUpdate({})
    for number in history.numbers():
        # A damaged update must not keep the others from being used.
        with suppress(DamagedUpdateError):
            record = history.record(number)
            update.info |= record.info
            for layer, entry in record.layers.items():
                update.layers[layer] = layer_update(entry, Factors(torch.empty(0)))
    if (folder / UPDATE).exists():
        update.info |= ModelUpdate.load(folder / UPDATE).info
    return update


def _check_after(model: Any, record: UpdateRecord) -> bool | None:
    """Whether the weights are those that were there right after an update; None where that was not noted."""
    if not all("after" in entry for entry in record.layers.values()):
        return None
    return all(
        fingerprint(oriented_weight(model.get_submodule(entry["module"]))) == entry["after"]
        for entry in record.layers.values()
    )


def _write(folder: Path, history: History, removed: set[int], update: ModelUpdate, base: Loaded) -> list[Path]:
    written = [folder / UPDATE]
    with ExitStack() as together:
        # Taking place in reverse order: the note comes last, so that after a crash in between the command can be given
        # again.
        history.set_removed(removed, together.enter_context(atomic_path(history.folder / REMOVED)))
        update.save(together.enter_context(atomic_path(folder / UPDATE)))
        old = folder / MODEL
        if old.is_dir():
            scratch = together.enter_context(atomic_path(old))
            if base.codes:
                save_beside(base.model, base.codes, update, scratch)
            else:
                base.model.save_pretrained(scratch)
            copy_others(old, scratch, WEIGHTS)
            written.append(old)
    return written


def _distance(history: History, removed: set[int], update: ModelUpdate) -> dict[str, float | str] | None:
    try:
        return {update.layers[layer].shown(layer): value for layer, value in history.distance(removed).items()}
    except DamagedUpdateError:
        return None
