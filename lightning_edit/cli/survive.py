"""The command line's ``survive``: whether a run's edits are still there after what happens to deployed models."""

import logging
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal, updates_were
from lightning_edit.storage.own_outputs import FIGURE, check_replaced
from lightning_edit.storage.user.files import check_text
from lightning_edit.survival.settings import VARIANTS, SurvivalSettings

if TYPE_CHECKING:
    from lightning_edit.cli.measured_run import MeasuredRun
    from lightning_edit.requests import EditRequest
    from lightning_edit.survival.bench import Bench
    from lightning_edit.survival.measuring import Measures
    from lightning_edit.survival.results import Result, SurvivalFile
    from lightning_edit.survival.text import OrdinaryText
    from lightning_edit.survival.variants import Variant
    from lightning_edit.updates.files.saved import Saved

DEVICES, FIGURES = ("auto", "cpu", "gpu"), (".png", ".svg", ".pdf")
NAME = "survival.json"
DESCRIPTION = """Measures the edits of a finished run again, on its own records: in the edited model, in the
unedited one, and after what happens to models that are deployed: quantization to 8 and 4
bits, a LoRA fine-tuning on ordinary text, and merging with the unedited model. Each result
is kept as soon as it is there, so a command that was stopped goes on where it was."""

# Of `SurvivalSettings`, with what they are.
NUMBERS = {
    "steps": (int, "steps of the fine-tuning (100)"),
    "rank": (int, "rank of its adapters, on all linear maps of the blocks (8)"),
    "alpha": (float, "by alpha / rank the adapters are scaled (16)"),
    "lr": (float, "its learning rate (2e-4)"),
    "batch_size": (int, "rows of text in a step (8)"),
    "length": (int, "tokens of a row (128)"),
    "text_tokens": (int, "tokens of ordinary text that are read for it (20000)"),
    "perplexity_tokens": (int, "tokens of other text for perplexity; 0 leaves it out (2000)"),
    "seed": (int, "seed of adapters, order and own text (0)"),
}


def main(words: list[str]) -> None:
    """Runs ``survive``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If there is no such run, its edits are in no weights, or an argument makes no sense.
    """
    given = _parser().parse_args(words)
    run = _check(given)
    names = ("variants", "weights", *NUMBERS, "about_edits")
    chosen = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    settings = SurvivalSettings(**chosen)
    # They take seconds to import; a mistake is answered without them.
    from lightning_edit.progress import ProgressBars
    from lightning_edit.survival.variants import variants_of

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    variants = variants_of(settings)
    with ProgressBars() as report:
        results, path = _survive(run, given, settings, variants, report)
    _show(results, path, _figure(given, path))


def _parser() -> CommandParser:
    parser = CommandParser(prog="lightning-edit survive", description=DESCRIPTION)
    add = parser.add_argument
    add("run", metavar="RUN", help="the folder of a finished run, its update.safetensors, its model/, or a checkpoint")
    add("--variants", type=_words, metavar="LIST", help=f"what is measured ({','.join(VARIANTS)})")
    add("--weights", type=_numbers, metavar="LIST", help="weights of the edited model in merges (0.25,0.5,0.75)")
    add("--text", metavar="FILE", help="ordinary text, a text a line (the run's, or the model's own)")
    for name, (kind, help_text) in NUMBERS.items():
        add(f"--{name}", type=kind, metavar="X" if kind is float else "N", help=help_text)
    add("--about_edits", action="store_true", default=None, help="also read text that names an edited subject")
    add("--output", metavar="FILE", help=f"where results are kept ({NAME} in the run's folder)")
    add("--figure", metavar="FILE", help="the figure: .png, .svg or .pdf (a .png beside the results)")
    add("--model", metavar="NAME", help="the base model, if it has moved since the run")
    add("--device", choices=DEVICES, default="auto", help="where models run (auto)")
    add("--trust_config", action="store_true", help="import classes that the run's config.yaml names")
    add("--trust_remote_code", action="store_true", help="run code that comes with the base model")
    return parser


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise ArgumentTypeError(f"numbers with commas between them are needed, got {text}") from error


def _check(given: Namespace) -> Path:
    """Refuses what surely makes no sense; returns what is opened."""
    run = Path(given.run).expanduser()
    if not run.exists():
        raise EditError(
            f"RUN: there is nothing at {given.run}. Give the folder of a finished run such as runs/version_0, its "
            "update.safetensors or a checkpoint (.ckpt)."
        )
    output, figure = (None if name is None else Path(name).expanduser() for name in (given.output, given.figure))
    if output is not None and (output.suffix.lower() != ".json" or output.is_dir()):
        raise EditError(f"`--output` must be a file whose name ends in .json, got {given.output}.")
    if figure is not None and (figure.suffix.lower() not in FIGURES or figure.is_dir()):
        raise EditError(f"`--figure` must be a file whose name ends in .png, .svg or .pdf, got {given.figure}.")
    if given.text is not None:
        check_text(given.text, "--text")
    return run


def _survive(
    run: Path, given: Namespace, settings: "SurvivalSettings", variants: "list[Variant]", report: Any
) -> "tuple[list[Result], Path]":
    from lightning_edit.cli.measured_run import measured_run
    from lightning_edit.storage.run_lock import RunLock
    from lightning_edit.survival.bench import run_folder_of
    from lightning_edit.survival.refusals import refuse_without_weights
    from lightning_edit.survival.results import check_results
    from lightning_edit.updates.files.saved import run_of, update_of

    run = run_folder_of(run)
    refuse_without_weights(run)
    # Before anything is loaded.
    folder = run_of(update_of(run) if run.is_dir() else run)
    output = Path(given.output).expanduser() if given.output else (folder or run.parent) / NAME
    check_replaced("--figure", _figure(given, output), FIGURE)
    measured = measured_run(folder, _checkpoint(run, folder), given.trust_config)
    # Two commands on one file would write over each other's results.
    with RunLock.of_file(output):
        check_results(output)
        measured.data.setup("test")
        bench = _bench(run, given, measured)
        measures, text = _prepared(bench, measured, settings, given.text, report)
        variants = [_on_text(variant, text) for variant in variants]
        return _measured(bench, variants, measures, text, settings, folder, output, report), output


def _figure(given: Namespace, output: Path) -> Path:
    return Path(given.figure).expanduser() if given.figure else output.with_suffix(".png")


def _measured(
    bench: "Bench",
    variants: "list[Variant]",
    measures: "Measures",
    text: "OrdinaryText",
    settings: "SurvivalSettings",
    folder: Path | None,
    output: Path,
    report: Any,
) -> "list[Result]":
    from lightning_edit.survival.identity import identity_of
    from lightning_edit.survival.results import SurvivalFile
    from lightning_edit.survival.survive import survive

    kept = SurvivalFile(output, identity_of(bench.update, measures))
    _note(folder, measures, kept, variants)
    try:
        return survive(bench, variants, measures, text, settings, kept, report)
    except KeyboardInterrupt:
        terminal(stderr=True).print(f"The results so far are in {output}; the same command goes on.", soft_wrap=True)
        raise


def _checkpoint(run: Path, folder: Path | None) -> Path | None:
    """A checkpoint that says what the run measured, if there is one."""
    if run.suffix == ".ckpt":
        return run
    edited = None if folder is None else folder / "edited.ckpt"
    return edited if edited is not None and edited.is_file() else None


def _bench(run: Path, given: Namespace, measured: "MeasuredRun") -> "Bench":
    import torch

    from lightning_edit.survival.bench import Bench
    from lightning_edit.updates.files.saved import open_saved

    there = torch.accelerator.is_available()
    if given.device == "gpu" and not there:
        raise EditError("`--device gpu`: there is no GPU that torch can use. Give --device cpu.")
    device = torch.accelerator.current_accelerator() if there and given.device != "cpu" else None
    return Bench(lambda: open_saved(run, given.model, given.trust_remote_code), device, measured.down_projection)


def _prepared(
    bench: "Bench", measured: "MeasuredRun", settings: "SurvivalSettings", text_file: str | None, report: Any
) -> "tuple[Measures, OrdinaryText]":
    """What is measured, and ordinary text."""
    from lightning_edit.asking.chat import chat_of, settle_chat
    from lightning_edit.datamodules.preservation import TextFile
    from lightning_edit.loading.pretrained import load_tokenizer
    from lightning_edit.survival.measuring import Measures
    from lightning_edit.survival.text import ordinary_text

    tokenizer = load_tokenizer(bench.source.name, bench.source.trust_remote_code)
    tokenizer = settle_chat(tokenizer, measured.chat, measured.chat_settings)
    requests = _kept(bench.saved, measured.requests(chat_of(tokenizer) is not None))
    source = measured.data.preservation_texts() if text_file is None else TextFile(text_file).texts()
    subjects = [request.subject for request in requests if request.subject]
    text = ordinary_text(bench.decoder, tokenizer, source, subjects, settings, report)
    how = (measured.evaluation, measured.chat_settings, measured.data.eval_batch_size, text.held_out)
    measures = Measures(tokenizer, requests, *how)
    measures.check(bench.decoder.context)
    return measures, text


def _kept(saved: "Saved", requests: "Sequence[EditRequest]") -> "Sequence[EditRequest]":
    """The records whose edits are in the model; says which are not, as their updates were removed from the run."""
    from lightning_edit.metrics.edit_metrics import name_of

    console = terminal(stderr=True)
    if saved.removed is not None:
        console.print(f"! {saved.removed.note}", style="yellow", soft_wrap=True)
    numbers, edits = saved.taken_out
    if not numbers:
        return _made(saved, requests)
    # What was written again is in a kept update too.
    out = set(map(name_of, edits)) - set(map(name_of, saved.edits))
    kept = [request for request in requests if name_of(vars(request)) not in out]
    if not kept:
        raise EditError(
            f"RUN: {updates_were(numbers)} removed from {saved.folder}, and with them all of its edits. "
            f"`lightning-edit updates apply {saved.folder} N` puts one back."
        )
    were = counted(len(requests) - len(kept), "record is", "records are")
    said = f"! After the run {updates_were(numbers)} removed: {were} left out."
    console.print(said, style="yellow", soft_wrap=True)
    return kept


def _made(saved: "Saved", requests: "Sequence[EditRequest]") -> "Sequence[EditRequest]":
    """The records whose edits were made when the run or its checkpoint ended; says which are left out."""
    from lightning_edit.metrics.edit_metrics import name_of

    if saved.removed is not None or len(saved.edits) != saved.update.info.get("edits"):
        # Which edits there are is not known of all of them.
        return requests
    made = set(map(name_of, saved.edits))
    kept = [request for request in requests if name_of(vars(request)) in made]
    if not kept or len(kept) == len(requests):
        return requests
    were = counted(len(requests) - len(kept), "record is", "records are")
    terminal(stderr=True).print(
        f"! {were} left out: their edits are not in the model, which holds {counted(len(saved.edits), 'edit')}.",
        style="yellow",
        soft_wrap=True,
    )
    return kept


def _on_text(variant: "Variant", text: "OrdinaryText") -> "Variant":
    """A variant that is trained on text is told from others by it."""
    from lightning_edit.storage.fingerprint import fingerprint

    trained = {"text": fingerprint(*text.trained)}
    return replace(variant, settings={**variant.settings, **trained}) if variant.kind == "lora" else variant


def _note(folder: Path | None, measures: "Measures", kept: "SurvivalFile", variants: "list[Variant]") -> None:
    """Says what a user should know before it begins."""
    from lightning_edit.cli.measured_run import other_records

    console = terminal(stderr=True)
    if others := other_records(folder, measures.requests):
        console.print(
            f"! {others} of {counted(len(measures.requests), 'record')} are not among those that the run measured: its "
            "data has changed since.",
            style="yellow",
            soft_wrap=True,
        )
    if known := sum(kept.get(variant) is not None for variant in variants):
        said = f"{counted(known, 'model was', 'models were')} measured before; the results are read from {kept.path}."
        console.print(said, soft_wrap=True)


def _show(results: "list[Result]", path: Path, figure: Path) -> None:
    from lightning_edit.survival.figure import write_figure
    from lightning_edit.survival.table import not_run, table

    console = terminal()
    measured = [result for result in results if result.answers]
    if measured:
        console.print(table(results))
    for line in not_run(results):
        console.print(f"! {line}", style="yellow", soft_wrap=True)
    if not measured:
        raise EditError("No model could be measured.")
    write_figure(figure, results)
    console.print(f"Written: {path}, {figure}.", soft_wrap=True)
