"""All that the page says of one finished run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_edit.commands.comparison.methods import published
from lightning_edit.commands.comparison.runs import FILE, Run, read_runs
from lightning_edit.commands.comparison.settings import LAYERS, METHOD
from lightning_edit.errors import EditError
from lightning_edit.messages import counted
from lightning_edit.report.charts import Panel
from lightning_edit.report.curves import panels_of, read_rows
from lightning_edit.report.examples import Answer, chosen, rule, shown
from lightning_edit.report.figures import Shown, certainty, groups_of, percent
from lightning_edit.report.losses import PERPLEXITY, Ability, Changed, Counted, abilities_of, collateral_of
from lightning_edit.report.records import Edit, Loss, Records, read_records
from lightning_edit.report.settings import (
    all_settings,
    changes_model,
    model_of,
    seconds_of,
    settings_of,
    undo_of,
    warnings_of,
    way_of_working,
)
from lightning_edit.storage.run_files import UPDATES
from lightning_edit.storage.unfinished import is_only_measured, to_go_on
from lightning_edit.storage.user.json import read_json
from lightning_edit.updates.files.update_list import UpdateList, left_out
from lightning_edit.updates.files.update_record import DamagedUpdateError

MOST_LOSSES = 10


@dataclass(frozen=True)
class Example:
    """One edit of the table of examples.

    Args:
        edit: The edit.
        before: What the unedited model wrote, None if it was not asked to write.
        after: What the edited one writes.
    """

    edit: Edit
    before: Answer | None
    after: Answer | None


@dataclass(frozen=True)
class Tile:
    """One of the few numbers that everybody should see.

    Args:
        value: The number with its unit.
        label: What it is of.
        note: What it was before, or how sure it is.
    """

    value: str
    label: str
    note: str


@dataclass(frozen=True)
class Facts:
    """What the page says of one run; see the template for where it stands."""

    run: Run
    sentence: str
    tiles: list[Tile]
    warnings: list[str]
    examples: list[Example]
    rule: str
    groups: dict[str, list[Shown]]
    certainty: str | None
    panels: list[Panel]
    counts: list[Counted]
    worse: list[Changed]
    unsaid: list[Changed]
    changed: list[Changed]
    losses: Sequence[Loss]
    all_losses: int
    others: int
    abilities: list[Ability]
    settings: list[tuple[str, str]]
    all_settings: list[tuple[str, str]]
    seconds: list[tuple[str, float]]
    undo: list[str]
    commands: list[tuple[str, str]]

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.run.folder.resolve().name

    @property
    def method(self) -> str:
        """The method as people know it."""
        return published(self.run.settings[METHOD])

    @property
    def model(self) -> str:
        """The edited model."""
        return model_of(self.run)

    @property
    def title(self) -> str:
        """What the page is about."""
        if changes_model(self.run):
            return f"{counted(self.run.edits, 'changed fact')} in {self.model}"
        return f"{counted(self.run.edits, 'fact')} given to {self.model}"

    @property
    def total_seconds(self) -> float:
        """Of all stages together."""
        return sum(seconds for _, seconds in self.seconds)


def read_facts(paths: Sequence[Path]) -> tuple[list[Facts], list[str]]:
    """Reads finished runs, and all of those below folders that are none themselves.

    Args:
        paths: Their folders.

    Returns:
        What is known of each, and notes on what was passed over.

    Raises:
        EditError: If there is no finished run, or a file of one is not what a run writes.
    """
    for path in paths:
        _check(path)
    runs, notes = read_runs(paths)
    return [facts_of(run) for run in runs], notes


def _check(path: Path) -> None:
    """Refuses what is no finished run, in words that say what to do."""
    give = "Give the folder of a finished run such as runs/version_0, or a folder of some."
    if not path.is_dir():
        what = f"{path} is a file, no folder." if path.exists() else f"there is no folder {path}."
        raise EditError(f"RUN: {what} {give}")
    if not (path / FILE).is_file():
        if any((path / name).exists() for name in ("config.yaml", "checkpoints", UPDATES)):
            raise EditError(f"RUN: {path} holds no {FILE}: {_unfinished(path)}")
        if not any(path.rglob(FILE)):
            raise EditError(f"RUN: {path} holds no {FILE} and no folder with one, so it is no run. {give}")
        return
    content = read_json(path / FILE)
    if isinstance(content, dict) and is_only_measured(path, content):
        raise EditError(f"RUN: {path} holds what `test` measured of another run. Give the folder of the fit.")
    if isinstance(content, dict) and not content.get("after"):
        raise EditError(f"RUN: {path / FILE} holds no figures `after` editing: {_unfinished(path)}")


def _unfinished(path: Path) -> str:
    return f"the run is not finished. Wait for its end, or if it was stopped, let it go on with `{to_go_on(path)}`."


def facts_of(run: Run) -> Facts:
    """What the page says of a run.

    Args:
        run: The run.

    Raises:
        EditError: If one of its files is not what a run writes.
    """
    content, records, rows = read_json(run.folder / FILE), read_records(run.folder), read_rows(run.folder)
    figures, counts, changes = collateral_of(content, str(run.folder / FILE))
    groups, abilities = groups_of(run, figures), abilities_of(run, rows, figures)
    updates, removed, when = _updates(run.folder)
    undo, commands = undo_of(run, updates)
    return Facts(
        run=run,
        sentence=_sentence(run),
        tiles=_tiles(groups, counts, abilities),
        warnings=warnings_of(run, content, removed),
        examples=[_example(edit) for edit in chosen(records.edits)],
        rule=rule(records.edits),
        groups=groups,
        certainty=certainty(groups),
        panels=panels_of(run, rows),
        counts=counts,
        worse=[one for one in changes if one.reason and not one.reworded],
        unsaid=[one for one in changes if one.reason and one.reworded],
        changed=[one for one in changes if not one.reason],
        **_lost(records),
        abilities=abilities,
        settings=settings_of(run, content, when),
        all_settings=all_settings(run),
        seconds=seconds_of(run),
        undo=undo,
        commands=commands,
    )


def _lost(records: Records) -> dict[str, Any]:
    return {"losses": records.losses[:MOST_LOSSES], "all_losses": len(records.losses), "others": records.others}


def _updates(folder: Path) -> tuple[int, list[int], str | None]:
    """How many updates a run has kept, which of them are removed, and when the last one was written."""
    updates = UpdateList(folder / UPDATES)
    numbers = updates.numbers()
    if not numbers:
        return 0, [], None
    try:
        when = updates.record(numbers[-1]).when[:16].replace("T", " ")
    except DamagedUpdateError:
        when = None
    return len(numbers), sorted(left_out(folder, updates)), when


def _sentence(run: Run) -> str:
    layers = run.settings.get(LAYERS, "").strip("[]")
    where = f", in layer {layers}" if layers.isdecimal() else ""
    times = -(-run.edits // run.batch_size)
    once = "in one go" if times == 1 else f"in {times:,} steps"
    facts, model = counted(run.edits, "fact"), f"the language model {model_of(run)}"
    were = "was" if run.edits == 1 else "were"
    what = f"{facts} in {model} {were} changed {once}" if changes_model(run) else f"{facts} {were} given to {model}"
    return f"{what} with the method {published(run.settings[METHOD])}, {way_of_working(run)}{where}."


def _example(edit: Edit) -> Example:
    before = None if edit.before is None else shown(edit.before, "")
    return Example(edit, before, None if edit.after is None else shown(edit.after, edit.new))


# -- the few numbers at the top ----------------------------------------------------------------------------------------


def _tiles(groups: dict[str, list[Shown]], counts: Sequence[Counted], abilities: Sequence[Ability]) -> list[Tile]:
    known = {one.name: one for shown in groups.values() for one in shown}
    long = "generated_rouge_l" in known
    tiles = [
        _tile(known, ("generated_rouge_l",), "of the words of the new answers are written")
        if long
        else _tile(known, ("generated_match", "efficacy_accuracy", "efficacy_score"), "of the new facts are there"),
        _tile(known, ("generated_paraphrase", "reworded_said", "paraphrase_score"), "are there in other words, too"),
        _tile(known, ("neighborhood_score", "locality_unchanged"), "of similar facts about others are still right"),
    ]
    if counts:
        worse, asked = sum(one.worse for one in counts), sum(one.asked for one in counts)
        note = "answers that only changed do not count"
        tiles.append(Tile(f"{worse:,} of {asked:,}", "other answers got worse", note))
    for one in abilities:
        name, _, figure = one.title.partition(": ")
        if figure == PERPLEXITY and one.worse is not None:
            tiles.append(Tile(one.after, f"perplexity of {name}", f"{one.before} before; lower is better"))
    return [tile for tile in tiles if tile is not None]


def _tile(known: dict[str, Shown], names: Sequence[str], label: str) -> Tile | None:
    one = next((known[name] for name in names if name in known), None)
    if one is None:
        return None
    whole = one.name in ("generated_match", "efficacy_accuracy") and one.count is not None
    value = f"{round(one.after * (one.count or 0)):,} of {one.count:,}" if whole else percent(one.after)
    notes = [] if whole or not one.error else [f"± {100 * one.error:.1f}"]
    if one.before is not None:
        notes.append(f"{round(one.before * (one.count or 0)):,} before" if whole else f"{percent(one.before)} before")
    return Tile(value, label, "; ".join(notes))
