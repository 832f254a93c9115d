"""The command line's ``tune``: the settings by which a model is edited best, found by small real edits."""

import json
import shlex
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.commands.layer_words import layer_list
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal
from lightning_edit.storage.atomic import atomic_path, check_outputs
from lightning_edit.storage.own_outputs import FIGURE, METADATA, check_replaced
from lightning_edit.storage.user.files import check_model_name, check_text

if TYPE_CHECKING:
    from lightning_edit.models.decoder import Decoder
    from lightning_edit.progress import ProgressBars
    from lightning_edit.requests import EditRequest
    from lightning_edit.tuning.tune import Outcome, TuneSettings

FAVORS, DEVICES = ("efficacy", "balance", "locality"), ("auto", "cpu", "gpu")
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
CHAT = {"auto": "auto", "true": True, "false": False}
EDITS = 32
# What is written beside the preset.
BESIDE = (".png", ".trials.json", ".trials.jsonl")
# What the files hold that are replaced; that of the trials is added to.
PRESET, TRIALS = b"source: lightning-edit tune", b'"favor"'
DESCRIPTION = """Finds layers, learning rate, clamp, weight and solver for a model: a trace ranks its
layers, then small real edits compete, the better ones with more edits. A tuning that was stopped goes on
where it was when it is started again."""


def main(words: list[str]) -> None:
    """Runs ``tune``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If an argument makes no sense, or the model cannot be tuned.
    """
    given = _parser().parse_args(words)
    out, layers = _check(given)
    # They take seconds to import; a mistake is answered without them.
    from lightning_edit.cli.loaded import decoder_on
    from lightning_edit.loading.pretrained import check_stated_layers
    from lightning_edit.progress import ProgressBars
    from lightning_edit.tuning.tune import TuneSettings

    if layers is not None:
        check_stated_layers(given.model, sorted(set(layers)))
    settings = TuneSettings(given.edits, given.favor, seed=given.seed)
    requests = None if given.data is None else read_requests(given.data)
    chat: Any = CHAT[given.chat]
    decoder, tokenizer = decoder_on(given.model, given.device, given.dtype, chat)
    log = out.with_suffix(".trials.jsonl")
    try:
        with ProgressBars() as report:
            outcome = _tune(decoder, tokenizer, settings, requests, layers, given, log, report)
    except KeyboardInterrupt:
        if log.exists():
            terminal(stderr=True).print(f"The trials so far are in {log}; the same command goes on.", soft_wrap=True)
        raise
    _write(out, outcome, decoder, given)


def _parser() -> CommandParser:
    parser = CommandParser(prog="lightning-edit tune", description=DESCRIPTION)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or hub name of a transformers model")
    add("--data", metavar="FILE", help="edits like yours, as `edit` reads them (public facts that the model knows)")
    add("--out", default="preset.yaml", metavar="FILE", help="the preset; figure and trials go beside it (preset.yaml)")
    add("--favor", choices=FAVORS, default="balance", help="what counts for more (balance)")
    add("--edits", type=int, default=EDITS, metavar="N", help=f"facts edited in the last trials ({EDITS})")
    add("--layers", metavar="LIST", help="layers that may be edited, e.g. 3-12 (all but the last)")
    add("--preserve", metavar="FILE", help="ordinary text to preserve (text from the model itself)")
    add("--tokens", type=int, metavar="N", help="how much of that text to read (10 x the width of the MLP)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the facts, the templates and the trace (0)")
    add("--chat", choices=CHAT, default="auto", help="whether edits are asked in a chat (where there is a template)")
    add("--device", choices=DEVICES, default="auto", help="where the model runs (auto)")
    add("--dtype", choices=DTYPES, default="auto", help="precision of the weights (that of the files)")
    return parser


def _check(given: Namespace) -> tuple[Path, list[int] | None]:
    """Refuses what surely makes no sense; returns where the preset goes, and the layers."""
    check_model_name(given.model)
    out = Path(given.out).expanduser()
    if out.suffix.lower() not in (".yaml", ".yml") or out.is_dir():
        raise EditError(f"`--out` must be a file whose name ends in .yaml, got {given.out}.")
    if given.preserve is not None:
        check_text(given.preserve, "--preserve")
    check_outputs(out, BESIDE, given.data, given.preserve)
    for suffix, sign in {out.suffix: PRESET, ".png": FIGURE, ".trials.json": TRIALS}.items():
        check_replaced("--out", out.with_suffix(suffix), sign)
    for name in ("edits", "tokens"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise EditError(f"`--{name}` must be a whole number of 1 or more, got {value}.")
    return out, None if given.layers is None else layer_list(given.layers)


def read_requests(path: str, **chosen: Any) -> "list[EditRequest]":
    """The edits in a file of any format that a data module reads.

    Args:
        path: The file.
        **chosen: Which of them, see `EditDataModule`; if nothing is said, the first of each subject.

    Raises:
        EditError: If it is not there or holds no edits.
    """
    from lightning_edit.datamodules import OwnEdits
    from lightning_edit.datamodules.record_module import reader_of
    from lightning_edit.datamodules.records import read_records

    try:
        first: Any = next(iter(read_records(path)), ({}, ""))[0]
        reader: Any = (reader_of(first) if isinstance(first, dict) else None) or OwnEdits
        return list(reader(path=path, **(chosen or {"unique_subjects": True})).requests)
    except EditError as error:
        # As the option is called here.
        raise EditError(str(error).replace("`data.path`", "`--data`")) from error


def _tune(
    decoder: "Decoder",
    tokenizer: Any,
    settings: "TuneSettings",
    requests: "list[EditRequest] | None",
    layers: list[int] | None,
    given: Namespace,
    log: Path,
    report: "ProgressBars",
) -> "Outcome":
    from lightning_edit.datamodules.preservation import TextFile
    from lightning_edit.keys.layer_stats import SecondMomentSettings
    from lightning_edit.tuning.tune import bench_for, hash_of, log_for, make_plan, tune

    plan = make_plan(decoder, tokenizer, settings, requests, layers, report=report)
    file = None if given.preserve is None else TextFile(given.preserve)
    texts = None if file is None else file.texts()
    # Second moments read only as many texts as they need, the hash all of them.
    preserved = hash_of(None if file is None else file.texts())
    moments = SecondMomentSettings(given.tokens)
    bench = bench_for(decoder, tokenizer, plan, settings, texts, moments, report)
    kept = log_for(log, bench, plan, settings, f"{preserved} {given.tokens}")
    if kept.known:
        terminal(stderr=True).print(
            f"{counted(len(kept.known), 'trial was', 'trials were')} made before and read from {log}."
        )
    return tune(bench, plan, settings, kept, report)


def _write(out: Path, outcome: "Outcome", decoder: "Decoder", given: Namespace) -> None:
    from lightning_edit.tracing.report import layer_words
    from lightning_edit.tuning.figure import draw
    from lightning_edit.tuning.preset import figures, preset, settings_of
    from lightning_edit.tuning.report import solver_words, table_of
    from lightning_edit.tuning.tune import described

    chosen, names = outcome.chosen, {layers: layer_words(layers) for layers in outcome.plan.space.layer_sets}
    console = terminal()
    console.print(table_of(outcome.trials, given.favor, names))
    if not chosen.score.efficacy:
        reason = f": {chosen.failed}" if chosen.failed else ", whatever was tried."
        raise EditError(f"The edited model says none of the new answers{reason} Try other `--layers` or `--data`.")
    settings = settings_of(given.model, chosen, outcome.plan, given.dtype, given.tokens)
    text = preset(decoder, settings, chosen, len(outcome.trials), given.favor, given.preserve)
    with atomic_path(out) as scratch:
        scratch.write_text(text, encoding="utf-8")
    legend = {layers: f"layers {name}" if len(layers) > 1 else f"layer {name}" for layers, name in names.items()}
    with atomic_path(out.with_suffix(".png")) as scratch:
        draw(outcome.trials, chosen, legend).savefig(scratch, format="png", metadata=METADATA["png"])
    with atomic_path(out.with_suffix(".trials.json")) as scratch:
        scratch.write_text(json.dumps(described(outcome, given.favor), indent=1) + "\n", encoding="utf-8")
    point = chosen.point
    where = f"{legend[point.layers]}, {solver_words(point)}, lr {point.lr:g}, clamp {point.clamp:g}"
    console.print(f"Chosen of {counted(len(outcome.trials), 'trial')}: {where}: {figures(chosen)}.", soft_wrap=True)
    beside = ", ".join(str(out.with_suffix(suffix)) for suffix in BESIDE)
    use = f"lightning-edit fit --config {shlex.quote(str(out))} ..."
    console.print(f"Written: {out}, {beside}. Use it: {use}", soft_wrap=True)
