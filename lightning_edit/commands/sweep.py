"""A sweep: settings and the values to try for each, every combination one run."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user_yaml import read_yaml


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says.

    Args:
        vary: For each setting, by its name on the command line, the values to try.
        fixed: Settings of all runs.
        metric: The figure by which the runs are compared.
    """

    vary: dict[str, list[Any]]
    fixed: dict[str, Any] = field(default_factory=dict)
    metric: str = "S"

    @staticmethod
    def load(path: str) -> "Sweep":
        """Reads a sweep file.

        Args:
            path: A YAML file with ``vary``, and perhaps ``fixed`` and ``metric``.

        Raises:
            EditError: If it is not there, no YAML, or says something else.
        """
        content = read_yaml(Path(path).expanduser(), "sweep: ")
        if not isinstance(content, dict) or not {"vary"} <= set(content) <= {"vary", "fixed", "metric"}:
            raise EditError(f"{path}: expected the keys vary (needed), fixed and metric, got {quoted(content)}.")
        vary = content["vary"]
        if not isinstance(vary, dict) or not all(isinstance(values, list) and values for values in vary.values()):
            raise EditError(f"{path}: `vary` must give a list of values for each setting, got {quoted(vary)}.")
        fixed = content.get("fixed") or {}
        if not isinstance(fixed, dict):
            raise EditError(f"{path}: `fixed` must give a value for each setting, got {quoted(fixed)}.")
        return Sweep(vary, fixed, content.get("metric", "S"))

    def combinations(self) -> list[dict[str, Any]]:
        """The settings in which the runs differ, one dictionary a run."""
        return [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]

    def arguments(self, combination: dict[str, Any]) -> list[str]:
        """The command line of one run.

        Args:
            combination: One of `combinations`.
        """
        # JSON is YAML, and keeps what is a text and what is a number.
        return [
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in {**self.fixed, **combination}.items()
        ]


def describe(combination: dict[str, Any]) -> str:
    """A combination in short: the last parts of the names, and the values.

    Args:
        combination: One of `Sweep.combinations`.
    """
    return " ".join(f"{name.rpartition('.')[2]}={json.dumps(value)}" for name, value in combination.items())
