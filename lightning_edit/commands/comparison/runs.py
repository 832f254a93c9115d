"""Reading what runs have left behind."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_edit.commands.comparison.settings import (
    BEFORE_NOTED,
    METHOD,
    edits_of_update,
    flat_protocol,
    flat_settings,
)
from lightning_edit.commands.method_file import METHOD_FILE
from lightning_edit.commands.run_name import is_name
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted, updates_were
from lightning_edit.storage.run_files import UPDATES
from lightning_edit.storage.unfinished import has_begun, is_only_measured, to_go_on
from lightning_edit.storage.user.json import json_lines, read_json
from lightning_edit.updates.files.update_list import UpdateList, left_out

MOST_EDITS = 10**12

Figures = dict[str, float]
FILE = "metrics.json"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Where it lies.
        edits: Number of edits it wrote.
        batch_size: Number of edits in one update.
        measured: Figures by the number of edits at which they were measured, in rising order: 0 is the unedited model,
            ``edits`` the finished one.
        seconds: Of each stage.
        left_out: Number of edits that could not be made.
        not_made: Number of edits that had no turn, as the run ended before; they are measured all the same.
        settings: See `flat_settings`.
        wild: How free answers were asked and marked, flat; empty where none were.
        name: What the user called it, if anything.
        seeds: Of how many runs that differ in their seeds alone this is the mean, see `joined_seeds`.
        folders: Where all of these lie.
    """

    folder: Path
    edits: int
    batch_size: int
    measured: dict[int, Figures]
    seconds: Figures
    left_out: int
    settings: dict[str, str]
    wild: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    seeds: int = 1
    folders: tuple[Path, ...] = ()
    not_made: int = 0

    @property
    def before(self) -> Figures:
        """Figures of the unedited model, as far as it was measured."""
        return self.measured.get(0, {})

    @property
    def after(self) -> Figures:
        """Figures of the edited model."""
        return self.measured[self.edits]

    @property
    def has_curve(self) -> bool:
        """Whether something was measured in the middle of the run."""
        return any(0 < edits < self.edits for edits in self.measured)

    def metrics(self, finished: bool = False) -> set[str]:
        """The names of what was measured.

        Args:
            finished: Whether only what was measured on the finished model counts.
        """
        names = {name for figures in ([self.after] if finished else self.measured.values()) for name in figures}
        return {name for name in names if not name.endswith(("_stderr", "_n"))}


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Reads runs, and all runs below folders that are none themselves.

    Args:
        paths: Folders of runs, or of such folders.

    Returns:
        The runs, each once, in the order of the paths and then of their names; and notes on what was passed over.

    Raises:
        EditError: If a path leads to no run, or a file cannot be read.
    """
    runs: dict[Path, Run] = {}
    notes: list[str] = []
    for path in paths:
        if (path / FILE).is_file():
            runs.setdefault(path.resolve(), _read_run(path, notes))
            continue
        below = sorted((file.parent for file in path.rglob(FILE)), key=_natural)
        reasons = {folder: _left_out(folder) for folder in below}
        finished = [folder for folder, reason in reasons.items() if reason is None]
        if not finished:
            raise EditError(f"`runs`: {_nothing(path, below)} Give the folder of a finished run, or a folder of some.")
        notes += [f"{folder} {reason} and is left out." for folder, reason in reasons.items() if reason is not None]
        for folder in finished:
            runs.setdefault(folder.resolve(), _read_run(folder, notes))
    return list(runs.values()), [*notes, *(note for run in runs.values() for note in _removed(run.folder))]


def _removed(folder: Path) -> list[str]:
    """A note on updates that were taken out of a run since it was measured."""
    removed = sorted(left_out(folder, UpdateList(folder / UPDATES)))
    note = "taken out since; these figures are from before."
    return [f"{folder}: {updates_were(removed)} {note}"] if removed else []


def _nothing(path: Path, below: Sequence[Path]) -> str:
    if not path.is_dir():
        return f"{path} is a file, no folder." if path.exists() else f"there is no folder {path}."
    return f"no run below {path} is finished." if below else f"{path} holds no {FILE} and no folder with one."


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts version_2 before version_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _left_out(folder: Path) -> str | None:
    """Why a folder with figures is no run to compare, None if it is one."""
    content = _read_json(folder / FILE)
    if is_only_measured(folder, content):
        return "holds what `test` measured of another run"
    if content.get("after"):
        return None
    return f"was not finished (`{to_go_on(folder)}` resumes it)" if has_begun(folder) else "was not finished"


def _read_run(folder: Path, notes: list[str]) -> Run:
    content = _read_json(folder / FILE)
    if not content.get("after"):
        stopped = f", resume it if it was stopped (`{to_go_on(folder)}`)," if has_begun(folder) else ","
        raise EditError(
            f"{folder / FILE} holds no figures `after` editing, so there is nothing to compare. "
            f"Wait for the end of the run{stopped} or leave it out of `runs`."
        )
    edits = _number_of_edits(content.get("edits"), folder / FILE, least=1)
    left_out = content.get("left_out") or []
    if not isinstance(left_out, list):
        raise EditError(f"{folder / FILE}: `left_out` must be a list, got {quoted(left_out)}.")
    measured = _read_curve(folder / "curves.jsonl", notes)
    for at, stage in ((0, "before"), (edits, "after")):
        if content.get(stage):
            measured.setdefault(at, {}).update(_figures(content[stage], f"{folder / FILE}, `{stage}`"))
    without_effect = content.get("settings_without_effect", BEFORE_NOTED)
    settings = flat_settings(content.get("config") or {}, without_effect, content.get(METHOD_FILE))
    settings[METHOD] = settings[METHOD] or folder.name
    return Run(
        folder=folder,
        edits=edits,
        batch_size=min(edits, edits_of_update(settings) or edits),
        measured=dict(sorted(measured.items())),
        seconds=_figures(content.get("seconds") or {}, f"{folder / FILE}, `seconds`"),
        left_out=len(left_out),
        settings=settings,
        wild=flat_protocol(content.get("wild")),
        name=content["name"] if is_name(content.get("name")) else None,
        folders=(folder,),
        not_made=_number_of_edits(content.get("not_made", 0), folder / FILE, least=0, name="not_made"),
    )


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, hint=" Restore it, or leave the run out of `runs`.")
    config = content.get("config") or {} if isinstance(content, dict) else None
    parts = [config, *((config.get(part) or {} for part in ("model", "data")) if isinstance(config, dict) else ())]
    if not all(isinstance(part, dict) for part in parts):
        raise EditError(f"{path}: expected an object with `before`, `after` and `config`, got {quoted(content)}.")
    return content


def _read_curve(path: Path, notes: list[str]) -> dict[int, Figures]:
    """Figures by number of edits; a last line that is still being written is passed over."""
    curve: dict[int, Figures] = {}
    if not path.is_file() or not path.stat().st_size:
        return curve

    def pass_over(where: str) -> None:
        notes.append(f"{where} is not complete and is left out.")

    for entry, where in json_lines(path, on_unfinished=pass_over):
        if not isinstance(entry, dict):
            raise EditError(f"{where}: expected an object with `edits` and `figures`, got {quoted(entry)}.")
        edits = _number_of_edits(entry.get("edits"), where, least=0)
        curve.setdefault(edits, {}).update(_figures(entry.get("figures"), where))
    return curve


def _number_of_edits(value: Any, where: str | Path, least: int, name: str = "edits") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_EDITS:
        expected = f"a whole number from {least} to {MOST_EDITS:,}"
        raise EditError(f"{where}: `{name}` must be {expected}, got {quoted(value)}.")
    return value


def _figures(value: Any, where: str) -> Figures:
    """Numbers under their names; what could not be measured (null) is left out."""
    if not isinstance(value, dict):
        raise EditError(f"{where}: expected figures as an object of names and numbers, got {quoted(value)}.")
    for name, figure in value.items():
        if figure is not None and (isinstance(figure, bool) or not isinstance(figure, int | float)):
            raise EditError(f"{where}: expected a number as {name}, got {quoted(figure)}.")
        if isinstance(figure, int) and abs(figure) > sys.float_info.max:
            raise EditError(f"{where}: {name} is too large a number.")
    return {name: float(figure) for name, figure in value.items() if figure is not None}
