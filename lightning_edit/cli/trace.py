"""The command line's ``trace``: which states of a model carry a fact, as a heat map, a table and JSON."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted, terminal
from lightning_edit.storage.atomic import atomic_path, check_outputs
from lightning_edit.storage.own_outputs import FIGURE, METADATA, check_replaced
from lightning_edit.storage.user.files import check_model_name
from lightning_edit.tracing.settings import KINDS, Kind, TracingSettings

if TYPE_CHECKING:
    from lightning_edit.models.decoder import Decoder
    from lightning_edit.tracing.average import AverageTrace
    from lightning_edit.tracing.facts import Fact
    from lightning_edit.tracing.trace import Trace

DEVICES = ("auto", "cpu", "gpu")
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
# Samples of noise: of one fact as published, of each of many enough for their mean.
SAMPLES, SAMPLES_OF_MANY, FACTS = 10, 3, 50
DESCRIPTION = """Causal tracing: makes the subject noisy, puts back one part of the clean run at a
time, and shows how much of the answer each brings back. Without a prompt it is the average over facts
that the model knows."""


def main(words: list[str]) -> None:
    """Runs ``trace``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If an argument makes no sense, or the model cannot be traced.
    """
    given = _parser().parse_args(words)
    out = _check(given)
    samples = given.samples or (SAMPLES if given.prompt is not None else SAMPLES_OF_MANY)
    settings = TracingSettings(samples, given.noise, given.window, given.seed)
    # They take seconds to import; a mistake is answered without them.
    from lightning_edit.cli.loaded import decoder_on
    from lightning_edit.progress import ProgressBars

    facts = _facts(given)
    decoder, tokenizer = decoder_on(given.model, given.device, given.dtype, given.chat)
    with ProgressBars() as report:
        trace, std, notes = _trace(decoder, tokenizer, facts, given, settings, report)
    _write(out, trace, decoder, settings, std, notes)


def _parser() -> CommandParser:
    parser = CommandParser(prog="lightning-edit trace", description=DESCRIPTION)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or hub name of a transformers model")
    add("prompt", metavar="PROMPT", nargs="?", help="a text that the answer follows (the average over known facts)")
    add("--subject", metavar="TEXT", help="what the fact is about, as it stands in the prompt")
    add("--answer", metavar="TEXT", help="the answer whose probability is traced (the model's next token)")
    add("--data", metavar="FILE", help="facts to average over: subject, prompt and answer (public ones)")
    add("--limit", type=int, default=FACTS, metavar="N", help=f"average over the first N known facts ({FACTS})")
    add("--out", default="trace.png", metavar="FILE", help="the heat map; the figures go to a .json beside it")
    add("--kind", action="append", choices=KINDS, help="what is put back; may be given several times (all)")
    add("--samples", type=int, metavar="N", help=f"draws of noise for a fact ({SAMPLES}; {SAMPLES_OF_MANY} of many)")
    add("--noise", type=float, default=3.0, metavar="X", help="noise in standard deviations of the embeddings (3)")
    add("--window", type=int, metavar="N", help="MLPs or attentions put back at once (10, fewer in small models)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the noise (0)")
    add("--chat", action="store_true", help="ask in a chat, by the tokenizer's template")
    add("--device", choices=DEVICES, default="auto", help="where the model runs (auto)")
    add("--dtype", choices=DTYPES, default="auto", help="precision of the weights (that of the files)")
    return parser


def _check(given: Namespace) -> Path:
    """Refuses what surely makes no sense; returns where the figure goes."""
    check_model_name(given.model)
    if given.prompt is None and (given.subject is not None or given.answer is not None):
        raise EditError(
            "`--subject` and `--answer` belong to a prompt: lightning-edit trace MODEL PROMPT --subject TEXT."
        )
    if given.prompt is not None and given.subject is None:
        raise EditError("`--subject` is missing: give the part of the prompt that the fact is about.")
    if given.prompt is not None and given.data is not None:
        raise EditError("Give a prompt, or `--data` for the average over many facts, not both.")
    for name in ("limit", "samples", "window"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise EditError(f"`--{name}` must be a whole number of 1 or more, got {value}.")
    out = Path(given.out).expanduser()
    if out.suffix.lower() != ".png" or out.is_dir():
        raise EditError(f"`--out` must be a file whose name ends in .png, got {given.out}.")
    check_outputs(out, [".json"], given.data)
    check_replaced("--out", out, FIGURE)
    check_replaced("--out", out.with_suffix(".json"), b'"embedding_std"')
    return out


def _facts(given: Namespace) -> "list[Fact]":
    from lightning_edit.datamodules.known_facts import read_facts
    from lightning_edit.datamodules.subjects import cut_out
    from lightning_edit.tracing.facts import Fact, public_facts

    if given.prompt is None:
        return public_facts(given.chat) if given.data is None else read_facts(given.data, given.chat)
    place = cut_out(given.prompt, given.subject)
    if place is None:
        raise EditError(
            f"The subject {quoted(given.subject)} does not stand in the prompt {quoted(given.prompt)}. Give it as it "
            "stands there, or put {} in its place."
        )
    return [Fact(place[1].strip(), place[0], given.answer)]


def _trace(
    decoder: "Decoder",
    tokenizer: Any,
    facts: "Sequence[Fact]",
    given: Namespace,
    settings: TracingSettings,
    report: Any,
) -> "tuple[Trace | AverageTrace, float, list[str]]":
    """The trace, the standard deviation of embeddings, and what is to be said of it."""
    from lightning_edit.tracing import trace as tracing
    from lightning_edit.tracing.average import average
    from lightning_edit.tracing.facts import public_facts
    from lightning_edit.tracing.noise import embedding_std

    # One subject has few tokens to tell how far embeddings lie apart.
    subjects = [fact.subject for fact in (facts if given.prompt is None else public_facts())]
    std = embedding_std(decoder, tokenizer, subjects)
    kinds, notes = _kinds(given.kind or KINDS, decoder)
    if given.prompt is not None:
        return tracing.trace_fact(decoder, tokenizer, facts[0], std, settings, kinds, report=report), std, notes
    chosen, more = _known(decoder, tokenizer, facts, given.limit, report)
    traces = []
    try:
        for number, fact in enumerate(chosen, start=1):
            traces.append(tracing.trace_fact(decoder, tokenizer, fact, std, settings, kinds))
            report("trace (facts)", number, len(chosen))
    except KeyboardInterrupt:
        if not traces:
            raise
        more.append(f"Stopped: the average is over the first {counted(len(traces), 'fact')} of {len(chosen)}.")
    return average(traces), std, [*notes, *more]


def _kinds(wanted: Sequence[Kind], decoder: "Decoder") -> tuple[list[Kind], list[str]]:
    kinds = [kind for kind in KINDS if kind in wanted]
    if "mlp" not in kinds or not decoder.refusals or kinds == ["mlp"]:
        return kinds, []
    layer, reason = next(iter(decoder.refusals.items()))
    return [kind for kind in kinds if kind != "mlp"], [f"MLPs are left out, because of layer {layer}: {reason}"]


def _known(
    decoder: "Decoder", tokenizer: Any, facts: "Sequence[Fact]", limit: int, report: Any
) -> "tuple[list[Fact], list[str]]":
    from lightning_edit.tracing.facts import known_facts

    known, unknown = known_facts(decoder, tokenizer, facts, report)
    if not known:
        raise EditError(
            f"The model knows none of {counted(len(facts), 'answer')}, and what it does not know cannot be traced. "
            "Give `--data` with facts that it knows."
        )
    left_out = "it is left out" if unknown == 1 else "they are left out"
    note = f"The model does not know {unknown:,} of {counted(len(facts), 'fact')}; {left_out}."
    return known[:limit], [note] if unknown else []


def _write(
    out: Path,
    trace: "Trace | AverageTrace",
    decoder: "Decoder",
    settings: TracingSettings,
    std: float,
    notes: Sequence[str],
) -> None:
    from lightning_edit.tracing import report
    from lightning_edit.tracing.average import AverageTrace
    from lightning_edit.tracing.figure import draw_average, draw_trace

    suggested = report.suggestion(trace, decoder)
    figure = draw_average(trace, settings) if isinstance(trace, AverageTrace) else draw_trace(trace, settings)
    with atomic_path(out) as scratch:
        figure.savefig(scratch, format="png", metadata=METADATA["png"])
    figures = out.with_suffix(".json")
    with atomic_path(figures) as scratch:
        scratch.write_text(json.dumps(report.described(trace, settings, std, suggested), indent=1) + "\n")
    console = terminal()
    answer = "the answers" if isinstance(trace, AverageTrace) else quoted(trace.answer)
    console.print(f"Probability of {answer}: {trace.clean:.3f}, with a noisy subject {trace.corrupted:.3f}.")
    console.print(report.table_of(trace))
    for note in notes:
        console.print(f"! {note}", style="yellow", soft_wrap=True)
    where = f"one layer {suggested['layer']}, several {report.layer_words(suggested['layers'])}"
    console.print(
        f"Layers to try first ({suggested['from']} at the subject's last token): {where}. `lightning-edit tune` "
        "compares layers by real edits.",
        soft_wrap=True,
    )
    console.print(f"Written: {out}, {figures}", soft_wrap=True)
