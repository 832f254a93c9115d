"""Trials on the disk, one line each, from which a tuning that was stopped goes on."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.loop.same_run import EARLIER_VALUES
from lightning_edit.storage.user.json import json_lines
from lightning_edit.tuning.bench import Trial
from lightning_edit.tuning.judge import Score
from lightning_edit.tuning.points import Point


class TrialLog:
    """The trials of one tuning, in a file of JSON lines whose first says what they depend on.

    Args:
        path: The file; one of the same tuning is gone on with.
        identity: What the trials depend on.

    Raises:
        EditError: If the file is of another tuning, or is none.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.known: dict[tuple[Point, int], Trial] = {}
        if path.exists():
            self._read(dict(identity))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(dict(identity))

    def add(self, trial: Trial) -> None:
        """Keeps a trial, before the next one begins."""
        self.known[trial.point, trial.edits] = trial
        self._append(as_json(trial))

    def get(self, point: Point, edits: int) -> Trial | None:
        """The trial that was made before, if any."""
        return self.known.get((point, edits))

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, identity: Mapping[str, Any]) -> None:
        unfinished: list[str] = []
        lines = list(json_lines(self.path, on_unfinished=unfinished.append))
        if not lines or _settled(lines[0][0]) != json.loads(json.dumps(identity)):
            raise EditError(
                f"{self.path} holds trials of another tuning (another model, other edits, text or settings). Delete "
                "it, or give another `--out`."
            )
        for line, where in lines[1:]:
            trial = _from_json(line, where)
            self.known[trial.point, trial.edits] = trial
        whole = self.path.read_text(encoding="utf-8")
        if unfinished:
            # The trial that was being written when the tuning was killed is made again.
            self.path.write_text(whole[: whole.rindex("\n") + 1], encoding="utf-8")
        elif not whole.endswith("\n"):
            self.path.write_text(f"{whole}\n", encoding="utf-8")


def _settled(identity: Any) -> Any:
    """The first line of a file with the settings that came after it was begun, as it was made without them."""
    if not isinstance(identity, dict) or not isinstance(identity.get("values"), dict):
        return identity
    return {**identity, "values": {**EARLIER_VALUES, **identity["values"]}}


def as_json(trial: Trial) -> dict[str, Any]:
    """A trial as JSON holds it.

    Args:
        trial: The trial.
    """
    return {**asdict(trial), "point": {**asdict(trial.point), "layers": list(trial.point.layers)}}


def _from_json(line: Any, where: str) -> Trial:
    try:
        point = Point(**{**line["point"], "layers": tuple(line["point"]["layers"])})
        return Trial(**{**line, "point": point, "score": Score(**line["score"])})
    except (TypeError, KeyError) as error:
        raise EditError(f"{where}: no trial of a tuning. Delete the file to begin anew.") from error
