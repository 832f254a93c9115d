"""``export --to gguf`` and ``--to gguf-lora``: the edited GGUF file, or an adapter for llama.cpp."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from lightning_edit.cli.exporting.facts import asked_again, with_run
from lightning_edit.errors import EditError
from lightning_edit.export.folder import base_facts, hub_revision, write_folder
from lightning_edit.export.ranks import RankSettings
from lightning_edit.loading.model_files import source
from lightning_edit.messages import readable, terminal
from lightning_edit.updates.base_model import settings_of
from lightning_edit.updates.files.saved import Saved, run_of

if TYPE_CHECKING:
    from lightning_edit.export.gguf_types import Rounded

NEEDED = "`--to {}` is written by the package gguf: pip install 'lightning-edit[gguf]'."


def check_early(run: Path, form: str, model: str | None) -> None:
    """Refuses what cannot become a GGUF file before the model is loaded, as far as the run's settings tell.

    Args:
        run: What is exported.
        form: ``gguf`` or ``gguf-lora``.
        model: The base model, if it has moved.

    Raises:
        EditError: If the package is missing, or the base is no GGUF file and the whole of it is to be written.
    """
    if find_spec("gguf") is None:
        raise EditError(NEEDED.format(form))
    folder = run if run.is_dir() else run_of(run)
    name = model or (None if folder is None else settings_of(folder).get("model"))
    if form == "gguf" and isinstance(name, str):
        base_file(name)


def base_file(name: str) -> Path:
    """The GGUF file that a run has edited.

    Args:
        name: Its base model.

    Raises:
        EditError: If that is none.
    """
    folder, file = source(name)
    if not file:
        raise EditError(
            f"--to gguf writes the GGUF file that was edited again, and the run edited {name}, which is none. Export "
            "--to gguf-lora for an adapter that llama.cpp puts on any GGUF file of that model; or export --to model "
            "and convert the folder by llama.cpp's convert_hf_to_gguf.py."
        )
    return Path(folder) / file["gguf_file"]


def write_whole(saved: Saved, out: Path, given: Namespace) -> None:
    """Writes the GGUF file of the base model with the edits in it.

    Args:
        saved: The edits.
        out: A new folder.
        given: The command's arguments.

    Raises:
        EditError: If the edits would not survive, or the file is not the one that was edited.
        OSError: If it cannot be written; nothing is left then.
    """
    from lightning_edit.export.gguf_card import model_card
    from lightning_edit.export.gguf_edited import EditedFile
    from lightning_edit.export.gguf_types import NOTABLE

    updates = {layer.module: layer.factors for layer in saved.update.layers.values()}
    how = (given.gguf_type, given.max_error)
    edited = EditedFile.of(base_file(saved.source.name), saved.base.model, updates, *how)
    terminal().print(_table(edited.rounded))
    facts = base_facts(saved.source.name, None, saved.update.info, saved.edits)
    facts = with_run(model_card(facts, list(edited.rounded.values())), saved, given.all_edits)
    if given.check and any(one.error > NOTABLE for one in edited.rounded.values()):
        facts = asked_again(saved, edited.left(), facts, given.check, "rounded")
    terminal().print(f"The edited GGUF file is {edited.write(out, facts)}.", soft_wrap=True)


def _table(rounded: Mapping[str, "Rounded"]) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("tensor", overflow="fold")
    for heading in ("was", "is", "error of\nrounding", "update\nkept"):
        drawn.add_column(heading, justify="right")
    for one in rounded.values():
        drawn.add_row(one.name, one.before.name, one.kind.name, readable(one.error, 2), f"{100 * one.kept:.1f} %")
    return drawn


def write_lora(saved: Saved, out: Path, settings: RankSettings, given: Namespace) -> None:
    """Writes the edits as an adapter for llama.cpp.

    Args:
        saved: The edits.
        out: A new folder.
        settings: Which ranks it may have.
        given: The command's arguments.

    Raises:
        EditError: If the edits cannot be put into one.
        OSError: If it cannot be written; nothing is left then.
    """
    from lightning_edit.export.adapter import make_adapter
    from lightning_edit.export.gguf_base import find_places, names_of, open_gguf
    from lightning_edit.export.gguf_card import ADAPTER, adapter_card
    from lightning_edit.export.gguf_lora import adapter_tensors, file_names, rank_of, write_adapter
    from lightning_edit.export.gguf_names import Names, architecture_of

    model, name = saved.base.model, saved.source.name
    updates = {layer.module: layer.factors for layer in saved.update.layers.values()}
    adapter = make_adapter(model, updates, settings)
    places: dict[str, Any] = {}
    if source(name)[1]:
        reader = open_gguf(base_file(name))
        names = names_of(reader)
        places = find_places(reader, model, {one: model.get_submodule(one) for one in updates})
    else:
        text = model.config.get_text_config()
        names = Names(given.gguf_arch or architecture_of(model.config), int(text.num_hidden_layers))
    found = file_names(adapter, model, names, bool(places))
    tensors = adapter_tensors(adapter, model, found, places)
    terminal().print(_ranks(found.values(), adapter))
    facts = base_facts(name, hub_revision(model), saved.update.info, saved.edits)
    facts = with_run(adapter_card(facts, adapter, names.architecture), saved, given.all_edits)
    if not adapter.exact and given.check:
        facts = asked_again(saved, adapter.truncated(), facts, given.check, "truncated")
    rank = rank_of(adapter)
    write_folder(out, facts, lambda scratch: write_adapter(scratch / ADAPTER, names.architecture, rank, tensors))
    said = f"The adapter is {out / ADAPTER}. llama.cpp puts it on a GGUF file of {facts.base}, unedited."
    terminal().print(said, soft_wrap=True)


def _ranks(names: Sequence[str] | Any, adapter: Any) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("tensor", overflow="fold")
    for heading in ("rank of\nthe update", "kept", "relative\nerror"):
        drawn.add_column(heading, justify="right")
    for name, ranks in zip(names, adapter.ranks.values(), strict=True):
        drawn.add_row(name, str(ranks.full), str(ranks.kept), readable(ranks.error, 2) if ranks.error else "none")
    return drawn
