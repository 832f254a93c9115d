"""What a run has left of its edits, whichever of its files is given, with the model that they were made for."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.loading.editable import Loaded, ModelSource
from lightning_edit.loading.fingerprints import check_sample, sample_of
from lightning_edit.models.finding.sites import oriented, oriented_weight
from lightning_edit.solvers.base import Factors
from lightning_edit.storage.checkpoints import checkpoint_file
from lightning_edit.storage.checkpoints.checkpoint_form import is_memory
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.storage.run_files import MEMORIES, UPDATE, UPDATES, check_own_files
from lightning_edit.updates.base_model import base_of, load_again, source_of
from lightning_edit.updates.files.update_list import IN_MEMORIES, UpdateList
from lightning_edit.updates.files.update_record import DamagedUpdateError
from lightning_edit.updates.history import History
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.removed import Removed, removed_from
from lightning_edit.updates.run_settings import refuse_apart, refuse_independent

# In the names of a checkpoint's tensors.
PREFIX = "model."


@dataclass(frozen=True)
class Saved:
    """The edits of a run.

    Args:
        update: The sum of its updates, not inserted; ``on_top`` in its `info`: the edits of the run that it was
            built on are in it, too.
        base: The unedited model.
        source: Where that came from.
        folder: The run's; None for a file that lies elsewhere.
        edits: Of each edit ``subject``, ``prompt`` and ``target_new``, as far as the run keeps them.
        removed: What the checkpoint that was given holds and its run has no more; it is in the update only where the
            checkpoint does not stand for the run.
    """

    update: ModelUpdate
    base: Loaded
    source: ModelSource
    folder: Path | None
    edits: list[dict[str, str]]
    removed: Removed | None = None

    @property
    def taken_out(self) -> tuple[list[int], list[dict[str, str]]]:
        """The updates of the run that are not in this one, and their edits as far as they can be read."""
        numbers = self.update.info.get("removed_updates") or []
        return numbers, _edits_of(self.folder, lambda number: number in numbers)


def open_saved(path: str | Path, model: str | None = None, trust_remote_code: bool = False) -> Saved:
    """The edits of a run, with the model that they were made for.

    Args:
        path: The folder of a finished run, a saved update, or a checkpoint; it is there.
        model: The base model, where it is not where the run found it.
        trust_remote_code: Whether code that comes with the base model may be run.

    Raises:
        EditError: If there are no such edits, or the base model is not the one that they were made for.
    """
    given = Path(path).expanduser()
    file = update_of(given) if given.is_dir() else given
    folder = run_of(file)
    removed_since = None
    if file.suffix == ".ckpt":
        content = checkpoint_file.read(file, "RUN")
        removed_since = removed_from(file, (content.get("run") or {}).get("updates_written"))
        if removed_since is None or not removed_since.stands_for_run:
            saved = _of_checkpoint(content, file, folder, model, trust_remote_code)
            return replace(saved, removed=removed_since)
        file = update_of(removed_since.run)
    update = ModelUpdate.load(file)
    if folder is not None and History(folder / UPDATES).began_with:
        # Updates of earlier versions do not say so themselves.
        update.info["on_top"] = True
    base, source = base_of(folder, update, model, trust_remote_code)
    removed = set(update.info.get("removed_updates", ()))
    return Saved(update, base, source, folder, _edits_of(folder, lambda number: number not in removed), removed_since)


def update_of(folder: Path) -> Path:
    """The file of a run's update.

    Args:
        folder: The run's.

    Raises:
        EditError: If it has none; says why.
    """
    check_own_files(folder)
    if (folder / UPDATE).is_file():
        return folder / UPDATE
    if (folder / MEMORIES).is_dir():
        raise EditError(IN_MEMORIES.format(folder))
    refuse_independent(folder)
    started = checkpoint_file.checkpoints(folder)
    remedy = f" Its newest checkpoint can be given instead: {started[0]}." if started else ""
    raise EditError(
        f"RUN: {folder} holds no {UPDATE}. Runs that are not finished, those that put facts in the context "
        f"and those whose ExportEdits writes no update leave none.{remedy}"
    )


def run_of(file: Path) -> Path | None:
    """The folder of the run that wrote a file, None where it lies elsewhere.

    Args:
        file: A saved update or a checkpoint.
    """
    folder = checkpoint_file.run_beside(file)
    written = any((folder / name).exists() for name in ("metrics.json", UPDATES))
    return folder if written else None


def _edits_of(folder: Path | None, chosen: Callable[[int], bool]) -> list[dict[str, str]]:
    """The edits of some of a run's updates, but for those that cannot be read."""
    if folder is None:
        return []
    updates, edits = UpdateList(folder / UPDATES), list[dict[str, str]]()
    for number in updates.numbers():
        if chosen(number):
            with suppress(DamagedUpdateError):
                edits += updates.record(number).edits
    return edits


def _of_checkpoint(
    content: Mapping[str, Any], file: Path, folder: Path | None, model: str | None, trust_remote_code: bool
) -> Saved:
    refuse_apart(content["hyper_parameters"], f"the run of {file}")
    run = content.get("run")
    if run is not None and any(map(is_memory, run.get("anchored", {}).values())):
        raise EditError(IN_MEMORIES.format(f"the run of {file}"))
    source = source_of(content["hyper_parameters"], {}, file, model, trust_remote_code)
    base = load_again(source, [name.removeprefix(PREFIX).rpartition(".")[0] for name in content["state_dict"]])
    places = _places(content, base.model)
    check_sample(content["edits"].get("model_sample"), sample_of(base.model), source.name)
    layers = {
        place: LayerUpdate(module, content["edits"]["base"][str(place)], factors)
        for place, module in places.items()
        if (factors := _added(run, place, content["state_dict"], module, base.model)) is not None
    }
    if not layers:
        raise EditError(f"RUN: no update was written yet when {file} was, so there is nothing in it.")
    info = {"model": source.name, "edits": content["edits"]["edits_written"]}
    info |= {"on_top": True} if content["hyper_parameters"].get("on_top_of") else {}
    until = float("inf") if run is None else run.get("updates_written", float("inf"))
    return Saved(ModelUpdate(layers, info), base, source, folder, _edits_of(folder, lambda number: number <= until))


def _places(content: Mapping[str, Any], model: Any) -> dict[int, str]:
    """For each edited place its module, told by the fingerprint of its unedited weight."""
    found: dict[int, str] = {}
    for name in content["state_dict"]:
        module = name.removeprefix(PREFIX).rpartition(".")[0]
        try:
            base = fingerprint(oriented_weight(model.get_submodule(module)))
        except AttributeError as error:
            raise EditError(f"{type(model).__name__} has no module {module}, which the checkpoint edits.") from error
        place = next(
            (int(p) for p, one in content["edits"]["base"].items() if one == base and int(p) not in found), None
        )
        if place is None:
            raise EditError(
                f"{module} holds other weights than were edited. Give the model of the checkpoint's run with --model, "
                "in the same precision and without earlier edits."
            )
        found[place] = module
    return found


def _added(
    run: Mapping[str, Any] | None, place: int, weights: Mapping[str, Any], module: str, model: Any
) -> Factors | None:
    """What a checkpoint adds to a weight: the sum that it keeps, or where it keeps none (fine-tuning) W - W0."""
    if run is not None:
        pair = run["added"].get(place)
        return None if pair is None else Factors(pair["left"], pair["right"])
    site = model.get_submodule(module)
    edited = next(weight for name, weight in weights.items() if name.removeprefix(PREFIX).rpartition(".")[0] == module)
    return Factors((oriented(site, edited).double() - oriented_weight(site).double()).flatten(1))
