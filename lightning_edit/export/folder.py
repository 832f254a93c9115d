"""Folders that are exported: they appear whole, with their model card, and never in the place of others."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from lightning_edit.errors import EditError
from lightning_edit.export.adapter import Adapter
from lightning_edit.export.card import CARD, SAMPLE, CardFacts, write_card
from lightning_edit.messages import counted, readable
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.user.files import is_there
from lightning_edit.tiny import MODELS

USE_LORA = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "path/to/this/folder")"""
USE_MODEL = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")"""
UNDO_LORA = "Leave the adapter off: the base model is not changed. `model.disable_adapter()` does so for a while."
UNDO_MODEL = "Take the base model. `lightning-edit updates remove` takes single updates out of the run that made this."


def check_new(folder: Path) -> None:
    """Refuses a folder that holds something.

    Args:
        folder: Where to export to.

    Raises:
        EditError: If it is a file, or a folder that is not empty.
    """
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise EditError(f"{folder} is there already. Give a new folder, or move or delete this one first.")


def write_folder(folder: Path, facts: CardFacts, write: Callable[[Path], None]) -> None:
    """Makes a folder with a model card, atomically.

    Args:
        folder: Where to.
        facts: What the card says.
        write: Writes all else into a folder that is there.

    Raises:
        EditError: See `check_new`.
        OSError: If it could not be written; nothing is left then.
    """
    check_new(folder)
    with atomic_path(folder) as scratch:
        scratch.mkdir()
        write(scratch)
        write_card(facts, scratch)


def write_lora(folder: Path, adapter: Adapter, facts: CardFacts) -> None:
    """Writes an adapter and its card.

    Args:
        folder: A new folder.
        adapter: The adapter.
        facts: What its card says; its base is the one that the adapter names.

    Raises:
        EditError: See `check_new`.
        OSError: See `write_folder`.
    """
    write_folder(folder, facts, lambda scratch: adapter.write(scratch, facts.base, facts.revision))


def lora_facts(
    adapter: Adapter, base: str, revision: str | None, info: Mapping[str, Any], edits: Sequence[Mapping[str, str]]
) -> CardFacts:
    """What the card of an adapter says, as far as the update itself knows.

    Args:
        adapter: The adapter.
        base: The name of the unedited model.
        revision: Of that on the hub.
        info: What is known of the update.
        edits: Those that are known.
    """
    ranks = adapter.ranks.values()
    worst = max(one.error for one in ranks)
    kept, written = max(one.kept for one in ranks), max(one.written for one in ranks)
    filled = f" (filled up with zeros to {written})" if written > kept else ""
    form = [
        f"Form: a LoRA adapter of {counted(len(ranks), 'matrix', 'matrices')}, rank {kept}{filled}; "
        + (
            "it holds the whole update."
            if adapter.exact
            else f"the update has rank {max(r.full for r in ranks)}, and {readable(100 * worst, 2)} % of it are left "
            "out (relative Frobenius norm, the worst matrix)."
        )
    ]
    facts = base_facts(base, revision, info, edits)
    loaded = ", ".join([f'"{facts.base}"', *([f'revision="{revision}"'] if revision else [])])
    return replace(facts, form=form, use=USE_LORA.format(base=loaded), undo=UNDO_LORA, library="peft", tags=("lora",))


def model_facts(
    base: str, revision: str | None, info: Mapping[str, Any], edits: Sequence[Mapping[str, str]]
) -> CardFacts:
    """What the card of an edited model says, as far as the update itself knows; see `lora_facts`."""
    facts = base_facts(base, revision, info, edits)
    return replace(facts, form=["Form: all weights"], use=USE_MODEL, undo=UNDO_MODEL, library="transformers")


def base_facts(
    base: str, revision: str | None, info: Mapping[str, Any], edits: Sequence[Mapping[str, str]]
) -> CardFacts:
    """What a card says whatever the form of the export; see `lora_facts`."""
    name, solver = loadable(base), str(info.get("solver") or "")
    return CardFacts(
        base=name,
        revision=revision,
        folder=name if is_there(name) else _cached(name, revision),
        method=solver.partition("(")[0] or "an unknown method",
        settings={key: str(info[key]) for key in ("solver", "layers", "dtype") if key in info},
        edits=int(info.get("edits") or len(edits)),
        on_top=bool(info.get("on_top")),
        sample=edits[:SAMPLE],
    )


def _cached(name: str, revision: str | None) -> str | None:
    """Where the card of a model on the hub lies, if it was downloaded before."""
    # What cannot be a name on the hub is refused as a ValueError.
    with suppress(ValueError):
        found = try_to_load_from_cache(name, CARD, revision=revision)
        return str(Path(found).parent) if isinstance(found, str) else None
    return None


def loadable(name: str) -> str:
    """The name by which other programs load a model: a folder's whole path, a hub name as it is.

    Args:
        name: As a run names its model.
    """
    if name in MODELS:
        return str(MODELS[name])
    return str(Path(name).expanduser().resolve()) if is_there(name) else name


def hub_revision(model: Any) -> str | None:
    """The commit on the hub that a model was loaded from; None of a folder.

    Args:
        model: The model.
    """
    commit = getattr(model.config, "_commit_hash", None)
    return commit if isinstance(commit, str) else None
