"""The command line's ``sweep``: a fit for every combination of settings, then a comparison, the best first."""

import io
import math
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from rich.console import Console

from lightning_edit.asking.chat import settle_chat
from lightning_edit.cli.fit import EditCLI, lightning_errors, run
from lightning_edit.commands.arguments import CommandParser
from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.quantities import quantity
from lightning_edit.commands.failure import causes
from lightning_edit.commands.sweep import LAYERS, Sweep, describe, describe_but_seeds
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import depth_of, load_tokenizer
from lightning_edit.messages import listed, terminal
from lightning_edit.metrics.ways import Way, way_of, ways_of
from lightning_edit.models.out_of_memory import is_out_of_memory
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.storage.run_folder import run_folder

# What a setting out of its range raises, whoever finds it; the parser wraps what a class says of its settings.
REFUSALS = (AttributeError, KeyError, MemoryError, MisconfigurationException, RuntimeError, TypeError, ValueError)


class Preview(EditCLI):
    """Makes what a run is made of, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing."""

    def _take_name(self) -> None:
        """Does nothing: the folder is the run's that follows, and loggers may begin a run of theirs for it."""

    def _set_seed(self) -> None:
        """Does nothing: the run sets it, and says so."""


def main(words: list[str]) -> None:
    """Runs ``sweep``.

    Args:
        words: The file, and settings of all fits.

    Raises:
        EditError: If the file is not a sweep, its figure was not measured, or no combination could be run.
    """
    parser = CommandParser(
        prog="lightning-edit sweep", description="Makes a fit for every combination of settings and compares them."
    )
    parser.add_argument("file", help="a YAML file with `vary`, see configs/sweeps/; settings for all fits may follow")
    given, settings = parser.parse_known_args(words)
    with lightning_errors():
        _run(Sweep.load(given.file), settings, f"{Path(given.file).stem}.png")


def _run(plan: Sweep, settings: list[str], figure: str) -> None:
    console = terminal(stderr=True)
    plan = _fitted(plan, settings, console)
    combinations, finished = _accepted(plan, settings, console), []
    for number, combination in enumerate(combinations, start=1):
        name = describe(combination)
        console.rule(f"{number} of {len(combinations)}: {name}")
        # What is left of the model before, or the next one might not fit beside it.
        garbage_collection_cuda()
        try:
            figures, folder = _fit(["fit", *settings, *plan.arguments(combination)])
        except (*REFUSALS, SystemExit) as error:
            # One impossible combination must not cost the others.
            if (why := _refusal(error)) is None:
                raise
            _leave_out(name, why, console)
            continue
        if plan.metric in figures:
            finished.append((describe_but_seeds(combination), figures[plan.metric], folder))
            continue
        why = f"`metric`: {plan.metric} was not measured, only {', '.join(figures)}."
        if not finished:
            raise EditError(why)
        _leave_out(name, why, console)
    if not finished:
        raise EditError("No combination of the sweep could be run.")
    _compare(plan.metric, finished, figure)


def _leave_out(name: str, why: str, console: Console) -> None:
    console.print(f"left out: {name}: {why}", style="red", soft_wrap=True)


def _refusal(error: BaseException) -> str | None:
    """Why settings cannot be used or do not fit the memory; None for a failure that is none of the settings'."""
    if isinstance(error, SystemExit):
        # Refused by the parser, which has said why.
        return "see above" if error.code == 2 else None
    told = next((one for one in causes(error) if isinstance(one, EditError | MisconfigurationException)), None)
    if told is not None:
        return str(told)
    return str(error) or "out of memory" if is_out_of_memory(error) else None


def _preview(words: list[str]) -> tuple[Any, str]:
    """What a run is made of, or None and why it cannot be made; the run says again what is said while it is made."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return run(["fit", *words], Preview), ""
    except (*REFUSALS, SystemExit) as error:
        if (why := _refusal(error)) is None:
            raise
        return None, said.getvalue().strip().removeprefix("error: ") if isinstance(error, SystemExit) else why


def _accepted(plan: Sweep, settings: list[str], console: Console) -> list[dict[str, Any]]:
    """The combinations that can be run as far as can be told without a model; says at once which cannot, and why."""
    accepted = []
    for combination in plan.combinations():
        made, why = _preview([*settings, *plan.arguments(combination)])
        if made is None:
            _leave_out(describe(combination), why, console)
        else:
            accepted.append(combination)
    return accepted


def _compare(metric: str, finished: Sequence[tuple[str, float, str]], figure: str) -> None:
    """Compares fits, those that differ in their seeds alone as one, the best first."""
    by_name: dict[str, list[tuple[float, str]]] = {}
    for name, value, folder in finished:
        by_name.setdefault(name, []).append((value, folder))
    sign = 1 if quantity(metric).lower_is_better else -1

    def place(runs: tuple[str, Sequence[tuple[float, str]]]) -> tuple[bool, float]:
        """What is no number is compared with none, and comes last."""
        mean = fmean(value for value, _ in runs[1])
        return math.isnan(mean), 0.0 if math.isnan(mean) else sign * mean

    best_first = sorted(by_name.items(), key=place)
    labels = {folder: name for name, runs in best_first for _, folder in runs}
    compare(list(labels), metric, x="batch_size", output=str(Path(finished[0][2]).parent / figure), labels=labels)


def _fit(words: list[str]) -> tuple[dict[str, float], str]:
    """The figures and the folder of a fit, nothing of which is held afterwards."""
    cli = run(words)
    return cli.model.results["after"], str(run_folder(cli.trainer))


def _asking(plan: Sweep, module: MeasuredModule) -> tuple[Any, Sequence[Way]]:
    """The tokenizer and the further ways to ask of the runs, where their figure depends on these."""
    if not (way_of(plan.metric)[0] or plan.metric.endswith(("_nll", "_rouge_l"))):
        return None, ()
    plain = load_tokenizer(module.model_name, module.trust_remote_code)
    tokenizer = settle_chat(plain, module.chat, module.chat_settings)
    return tokenizer, ways_of(tokenizer, module.evaluation, module.chat_settings)


def _fitted(plan: Sweep, settings: list[str], console: Console) -> Sweep:
    """The sweep for its model and its records, read before the first run."""
    made = _first_made(plan, settings)
    plan, note = plan.for_records(made.datamodule.requests, made.model.evaluation, *_asking(plan, made.model))
    if note is not None:
        console.print(note, style="yellow")
    relative = any(isinstance(value, str) for value in plan.vary.get(LAYERS, ()))
    return plan.for_depth(depth_of(made.model.model_name, made.model.trust_remote_code)) if relative else plan


def _first_made(plan: Sweep, settings: list[str]) -> Any:
    """What the first combination is made of that can be made, its layers left out: they may depend on the model.

    Raises:
        EditError: If none can be made; at once where it is not the varied settings that are refused.
    """
    rest = replace(plan, vary={name: values for name, values in plan.vary.items() if name != LAYERS})
    refused: list[str] = []
    for combination in rest.combinations():
        made, why = _preview([*settings, *plan.arguments(combination)])
        if made is not None:
            return made
        if not refused and _preview([*settings, *plan.arguments({})])[1] == why:
            raise EditError(why)
        refused.append(f"{describe(combination)}: {why}")
    raise EditError(f"No combination of the sweep could be run. {listed(refused)}")
