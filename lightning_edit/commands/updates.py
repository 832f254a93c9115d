"""``lightning-edit updates``: the updates of a run listed, shown, taken out and put back."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.messages import cells, counted, listed, printable, readable, terminal
from lightning_edit.requests import complete
from lightning_edit.updates.files.update_list import UpdateList, left_out, open_updates
from lightning_edit.updates.files.update_record import DamagedUpdateError, UpdateRecord

if TYPE_CHECKING:
    from lightning_edit.updates.undo import Change

SUBJECTS = 2
STALE = {
    "edited.ckpt": "still holds all updates",
    "checkpoints": "still hold all updates; a run resumed from there contains them again",
    "metrics.json": "was measured before this",
    "report.html": "was written before this",
    "survival.json": "was measured before this",
    "export-lora": "still holds all updates",
    "export-model": "still holds all updates",
    "export-gguf": "still holds all updates",
    "export-gguf-lora": "still holds all updates",
}
# Once nothing is removed any more, what was made in between.
LACKING = {name: "may lack updates that are in the run again" for name in STALE if name.startswith("export-")}
# Columns that have a line for each layer: heading, and the figures of which the largest is shown.
PER_LAYER = {
    "|update|": ("update_norm",),
    "memor.\nerror": ("memorization_error",),
    "preserv.\nerror": ("preservation_error",),
    "cond.\nnumber": ("preservation_condition", "keys_condition"),
}


def main(args: list[str]) -> None:
    """Runs ``updates``.

    Args:
        args: The arguments after the command.

    Raises:
        EditError: If the run or a number is not there, or cannot be changed.
    """
    given = _parser().parse_args(args)
    console = terminal()
    if given.action == "list":
        show_list(open_updates(given.run, UpdateList), console)
    elif given.action == "show":
        show_update(open_updates(given.run, UpdateList), given.number, console)
    else:
        # The weights are made again, with torch and the base model.
        from lightning_edit.updates.undo import change_updates

        change = change_updates(given.run, given.action, given.numbers, given.model, given.trust_remote_code)
        show_change(Path(given.run).expanduser(), change, console)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-edit updates", description="Lists, removes and re-applies the updates of a run."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all updates: when, which edits, norms and errors")
    showing = actions.add_parser("show", help="the edits of one update")
    removing = actions.add_parser("remove", help="rewrite the run's weights without some updates")
    applying = actions.add_parser("apply", help="re-apply removed updates")
    for action in (listing, showing, removing, applying):
        action.add_argument("run", metavar="RUN", help="the run's folder, e.g. runs/version_0")
    showing.add_argument("number", metavar="N", type=int, help="the number of the update")
    for action in (removing, applying):
        action.add_argument("numbers", metavar="N", type=int, nargs="+", help="numbers of updates")
        action.add_argument("--model", help="the base model, if it has moved since the run")
        action.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the base model")
    return parser


def show_list(history: UpdateList, console: Console) -> None:
    """Draws a row for each update.

    Args:
        history: The updates.
        console: Where to.
    """
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    drawn.add_column("no.", justify="right", no_wrap=True)
    drawn.add_column("when", min_width=10)
    drawn.add_column("edits", min_width=12, overflow="fold")
    for heading in ("layer", *PER_LAYER):
        drawn.add_column(heading, justify="right", no_wrap=True)
    drawn.add_column("state", no_wrap=True)
    removed = left_out(history.folder.parent, history)
    for number in history.numbers():
        state = Text("removed", style="yellow") if number in removed else Text("kept")
        try:
            record = history.record(number)
        except DamagedUpdateError:
            drawn.add_row(str(number), *[""] * (3 + len(PER_LAYER)), Text("damaged", style="red"))
            continue
        layers = [entry.get("name", str(layer)) for layer, entry in sorted(record.layers.items())]
        columns = ["\n".join(_figure(record, layer, names) for layer in layers) for names in PER_LAYER.values()]
        drawn.add_row(str(number), _when(record), _edits(record), "\n".join(layers), *columns, state)
    console.print(drawn)


def show_update(history: UpdateList, number: int, console: Console) -> None:
    """Draws the edits of one update.

    Args:
        history: The updates.
        number: Which.
        console: Where to.

    Raises:
        EditError: If there is no such update, or its file is damaged.
    """
    record = history.record(number)
    state = "removed" if number in left_out(history.folder.parent, history) else "kept"
    console.print(f"update {number}, {_when(record)}, {counted(len(record.edits), 'edit')}, {state}")
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("record", "prompt", "new answer"):
        drawn.add_column(heading, overflow="fold")
    for edit in record.edits:
        prompt = complete(edit["prompt"], edit["subject"])
        drawn.add_row(*cells([str(edit["case_id"]), prompt, edit["target_new"]]))
    console.print(drawn)


def show_change(run: Path, change: "Change", console: Console) -> None:
    """Says what became of a run.

    Args:
        run: The run's folder.
        change: What was done.
        console: Where to.
    """
    stale = STALE if change.removed else LACKING
    lines = [
        f"Rewritten: {', '.join(map(str, change.written))}, with {counted(change.edits, 'edit')} in "
        f"{counted(len(change.kept), 'update')}"
        f"{', on top of those of the run it was built on' if change.on_top else ''}."
        f" Removed: {_numbers(change.removed)}.",
        _likeness(change),
        *change.notes,
        *(f"{run / name} {what}." for name, what in stale.items() if (run / name).exists()),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)


def _likeness(change: "Change") -> str:
    if not change.kept and change.on_top:
        return "The weights are those of the run it was built on, exactly: the base model with the edits of that run."
    if not change.kept:
        return "The weights are those of the base model, exactly."
    if change.exact:
        last = change.kept[-1]
        if change.checked is False:
            return (
                f"The weights are those after update {last} up to rounding, not bit for bit: the run added them up on "
                "another device or with another number of threads."
            )
        return f"The weights are exactly those after update {last}{' (checked bit for bit)' if change.checked else ''}."
    first, last = change.removed[0], change.kept[-1]
    later = f"Updates after {first}, up to {last}, were computed on a model that contained the removed ones."
    exact = "Only a new run without the removed edits is exact."
    if change.distance is None:
        return f"{later} Because a file is damaged, the distance from a run without them cannot be computed. {exact}"
    shares = "; ".join(f"layer {layer}: {_share(value)}" for layer, value in change.distance.items())
    told = any(not isinstance(value, str) for value in change.distance.values())
    assumed = " This assumes the same value vectors; those of a new run would differ, too." if told else ""
    return (
        f"{later} To first order, the sum of the updates differs from that of a run without the removed ones by this "
        f"share of its norm: {shares}.{assumed} {exact}"
    )


def _share(value: float | str) -> str:
    return f"unknown for {value}" if isinstance(value, str) else f"{value:.1%}"


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _when(record: UpdateRecord) -> str:
    return record.when[:19].replace("T", " ")


def _edits(record: UpdateRecord) -> Text:
    if not record.edits:
        return Text("0: post-processing of the sum")
    subjects = list(dict.fromkeys(edit["subject"] for edit in record.edits))
    return Text(f"{len(record.edits)}: {printable(listed(subjects, SUBJECTS))}")


def _figure(record: UpdateRecord, layer: str, names: Iterable[str]) -> str:
    values = [record.figures.get(f"layer_{layer}/{name}") for name in names]
    measured = [value for value in values if value is not None]
    return readable(max(measured)) if measured else ""
