"""The command line's ``export``: what a run has edited as a LoRA adapter or a model folder, with a model card."""

from argparse import Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal

if TYPE_CHECKING:
    from lightning_edit.export.adapter import Adapter
    from lightning_edit.export.card import CardFacts
    from lightning_edit.updates.saved import Saved

FORMS = ("lora", "model")
ASKED = 100
DESCRIPTION = """Writes the edits of a run as a LoRA adapter (adapter_model.safetensors and
adapter_config.json, as PEFT and vLLM read them) or as the edited model, with a model card.

An adapter is exact: it has the rank of the update, at most the number of edits.
--rank and --max_error make it smaller, and what that costs is reported."""


def main(words: list[str]) -> None:
    """Runs ``export``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If there is nothing to export, or it cannot be exported like that; nothing is written then.
    """
    given = _parser().parse_args(words)
    run = Path(given.run).expanduser()
    out = Path(given.out).expanduser() if given.out else (run if run.is_dir() else run.parent) / f"export-{given.to}"
    if not run.exists():
        raise EditError(
            f"RUN: there is nothing at {given.run}. Give the folder of a finished run such as runs/version_0, a saved "
            "update (update.safetensors) or a checkpoint (.ckpt)."
        )
    pad = _check(given)
    # They take seconds to import; a mistake is answered without them.
    from lightning_edit.export.folder import check_new
    from lightning_edit.export.ranks import RankSettings
    from lightning_edit.updates.saved import open_saved

    settings = RankSettings(given.rank, given.max_error, pad)
    check_new(out)
    saved = open_saved(run, given.model, given.trust_remote_code)
    if given.to == "model":
        _model(saved, out, given.all_edits)
    else:
        _lora(saved, out, settings, given)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-edit export", description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run, its update.safetensors, or a checkpoint")
    add("--to", choices=FORMS, default=FORMS[0], help="a LoRA adapter or the edited model (lora)")
    add("--out", metavar="DIR", help="a new folder (export-lora or export-model in the run's)")
    add("--rank", type=int, metavar="R", help="largest rank of a matrix, truncated by SVD (that of the update)")
    add("--max_error", type=float, metavar="X", help="smallest rank whose error, relative to the update, is at most X")
    add(
        "--pad_rank",
        default="auto",
        metavar="R",
        help="one rank for all, filled up by zeros: a number, none, or auto",
    )
    add("--check", type=int, default=ASKED, metavar="N", help=f"ask N edits of a truncated update again ({ASKED})")
    add("--all_edits", action="store_true", help="list all edits in the model card, not a sample")
    add("--model", metavar="NAME", help="the base model, if it has moved since the run")
    add("--trust_remote_code", action="store_true", help="run code that comes with the base model")
    return parser


def _check(given: Namespace) -> Any:
    """Refuses what makes no sense; returns what ranks are filled up to."""
    for name, least in (("rank", 1), ("check", 0)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise EditError(f"`--{name}` must be a whole number of {least} or more, got {value}.")
    if given.max_error is not None and not 0 <= given.max_error <= 1:
        raise EditError(f"`--max_error` is a share of the update's norm, from 0 to 1, got {given.max_error}.")
    if given.to == "model" and (given.rank, given.max_error, given.pad_rank) != (None, None, "auto"):
        raise EditError("`--rank`, `--max_error` and `--pad_rank` are for --to lora. Leave them out.")
    if given.pad_rank in ("auto", "none"):
        return given.pad_rank
    if not given.pad_rank.isdecimal() or int(given.pad_rank) < 1:
        raise EditError(f"`--pad_rank` must be a whole number of 1 or more, none, or auto, got {given.pad_rank}.")
    return int(given.pad_rank)


def _lora(saved: "Saved", out: Path, settings: Any, given: Namespace) -> None:
    from lightning_edit.cli.export_facts import with_run
    from lightning_edit.export.adapter import make_adapter
    from lightning_edit.export.folder import hub_revision, lora_facts, write_lora

    console, model = terminal(), saved.base.model
    updates = {layer.module: layer.factors for layer in saved.update.layers.values()}
    adapter = make_adapter(model, updates, settings)
    console.print(_table(adapter))
    facts = lora_facts(adapter, saved.source.name, hub_revision(model), saved.update.info, saved.edits)
    facts = with_run(facts, saved, given.all_edits)
    if not adapter.exact and given.check:
        facts = _asked_again(saved, adapter, facts, given.check)
    write_lora(out, adapter, facts)
    console.print(f"The adapter is in {out}. It is put on {facts.base}, unedited.", soft_wrap=True)


def _model(saved: "Saved", out: Path, all_edits: bool) -> None:
    from lightning_edit.cli.export_facts import with_run
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
        shown = f"{ranks.error:.2g}" if ranks.error else "none"
        drawn.add_row(adapter.targets[name], str(ranks.full), str(ranks.kept), str(ranks.written), shown)
    return drawn


def _asked_again(saved: "Saved", adapter: "Adapter", facts: "CardFacts", most: int) -> "CardFacts":
    """Asks for the edits before and after truncation, says how many answers are left, and notes it for the card."""
    from lightning_edit.cli.export_facts import answers_left

    counts = answers_left(saved, adapter.truncated(), most)
    if counts is None:
        line = "How many edits the truncated update still has was not measured: the run keeps none of their prompts"
    else:
        asked, whole, left = counts
        line = (
            f"Answers: of {counted(asked, 'edit')} asked again the whole update says {whole}, the truncated one {left}"
        )
    terminal().print(f"{line}.", soft_wrap=True)
    return replace(facts, form=[*facts.form, f"{line}."])
