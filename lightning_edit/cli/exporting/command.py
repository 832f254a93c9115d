"""The command line's ``export``: what a run has edited as an adapter or a model, with a model card, and on the hub."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from lightning_edit.cli.exporting.words import check, parser
from lightning_edit.errors import EditError
from lightning_edit.messages import readable, terminal

if TYPE_CHECKING:
    from lightning_edit.export.adapter import Adapter
    from lightning_edit.updates.files.saved import Saved


def main(words: list[str]) -> None:
    """Runs ``export``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If there is nothing to export, or it cannot be exported or uploaded like that. What was exported
            before an upload failed is kept.
    """
    given = parser().parse_args(words)
    run = Path(given.run).expanduser()
    if not run.exists():
        raise EditError(
            f"RUN: there is nothing at {given.run}. Give the folder of a finished run such as runs/version_0, a saved "
            "update (update.safetensors) or a checkpoint (.ckpt)."
        )
    pad = check(given)
    # They take seconds to import; a mistake is answered without them.
    from lightning_edit.cli.exporting.hub import check_target, upload
    from lightning_edit.export.exported import is_export

    made = is_export(run)
    if made and not given.hub:
        raise EditError(
            f"RUN: {run} is what `export` has written already. Give a run, or upload this by --hub USER/NAME."
        )
    target = check_target(given) if given.hub else None
    out = run if made else _write(run, given, pad)
    if target is not None:
        upload(out, target, given.dry_run)


def _write(run: Path, given: Namespace, pad: Any) -> Path:
    """Exports a run; returns the new folder."""
    from lightning_edit.cli.exporting.facts import check_figures
    from lightning_edit.export.folder import check_new
    from lightning_edit.export.ranks import RankSettings
    from lightning_edit.updates.files.saved import open_saved

    out = Path(given.out).expanduser() if given.out else (run if run.is_dir() else run.parent) / f"export-{given.to}"
    # An adapter for llama.cpp has one rank, that of its largest matrix.
    settings = RankSettings(given.rank, given.max_error, "none" if given.to == "gguf-lora" else pad)
    check_new(out)
    check_figures(run)
    if given.to in ("gguf", "gguf-lora"):
        from lightning_edit.cli.exporting import gguf as export_gguf

        export_gguf.check_early(run, given.to, given.model)
    saved = open_saved(run, given.model, given.trust_remote_code)
    if saved.removed is not None:
        terminal(stderr=True).print(f"! {saved.removed.note}", style="yellow", soft_wrap=True)
    if given.to == "model":
        _model(saved, out, given.all_edits)
    elif given.to == "lora":
        _lora(saved, out, settings, given)
    elif given.to == "gguf":
        export_gguf.write_whole(saved, out, given)
    else:
        export_gguf.write_lora(saved, out, settings, given)
    return out


def _lora(saved: "Saved", out: Path, settings: Any, given: Namespace) -> None:
    from lightning_edit.cli.exporting.facts import asked_again, with_run
    from lightning_edit.export.adapter import make_adapter
    from lightning_edit.export.folder import hub_revision, lora_facts, write_lora

    console, model = terminal(), saved.base.model
    updates = {layer.module: layer.factors for layer in saved.update.layers.values()}
    adapter = make_adapter(model, updates, settings)
    console.print(_table(adapter))
    facts = lora_facts(adapter, saved.source.name, hub_revision(model), saved.update.info, saved.edits)
    facts = with_run(facts, saved, given.all_edits)
    if not adapter.exact and given.check:
        facts = asked_again(saved, adapter.truncated(), facts, given.check)
    write_lora(out, adapter, facts)
    console.print(f"The adapter is in {out}. It is put on {facts.base}, unedited.", soft_wrap=True)


def _model(saved: "Saved", out: Path, all_edits: bool) -> None:
    from lightning_edit.cli.exporting.facts import with_run
    from lightning_edit.export.folder import hub_revision, model_facts, write_folder
    from lightning_edit.loading.pretrained import load_tokenizer
    from lightning_edit.updates.beside import save_beside

    model, source = saved.base.model, saved.source
    tokenizer = load_tokenizer(source.name, source.trust_remote_code)
    facts = model_facts(source.name, hub_revision(model), saved.update.info, saved.edits)
    saved.update.insert(model)

    def write(folder: Path) -> None:
        if saved.base.codes:
            save_beside(model, saved.base.codes, saved.update, folder)
        else:
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    write_folder(out, with_run(facts, saved, all_edits), write)
    terminal().print(f"The edited model is in {out}.", soft_wrap=True)


def _table(adapter: "Adapter") -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("matrix", overflow="fold")
    for heading in ("rank of\nthe update", "kept", "written", "relative\nerror"):
        drawn.add_column(heading, justify="right")
    for name, ranks in adapter.ranks.items():
        shown = readable(ranks.error, 2) if ranks.error else "none"
        drawn.add_row(adapter.targets[name], str(ranks.full), str(ranks.kept), str(ranks.written), shown)
    return drawn
