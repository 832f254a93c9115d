"""A sweep: settings and the values to try for each, every combination one run."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_edit.commands.comparison.seeds import is_seed
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.metrics.measurable import measurable
from lightning_edit.metrics.settings import EvaluationSettings
from lightning_edit.metrics.ways import Way
from lightning_edit.requests import EditRequest
from lightning_edit.storage.user.yaml import read_yaml

LAYERS = "model.layers"
MOST_RUNS = 10_000
INSTEAD_OF_S = ("efficacy_score", "efficacy_accuracy")


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
        if not vary:
            raise EditError(f"{path}: `vary` is empty: give a setting with a list of values, or use `fit` for one run.")
        if (runs := math.prod(map(len, vary.values()))) > MOST_RUNS:
            raise EditError(
                f"{path}: `vary` asks for {runs:,} runs, more than {MOST_RUNS:,}. Vary fewer settings at once."
            )
        fixed = content.get("fixed") or {}
        if not isinstance(fixed, dict):
            raise EditError(f"{path}: `fixed` must give a value for each setting, got {quoted(fixed)}.")
        metric = content.get("metric", "S")
        if not isinstance(metric, str):
            raise EditError(f"{path}: `metric` must be the name of one figure, such as S, got {quoted(metric)}.")
        return Sweep(vary, fixed, metric)

    def for_depth(self, depth: int) -> "Sweep":
        """The sweep for a model, with layers given in percent of its depth as numbers.

        ``25%`` is the layer a quarter of the way up, ``10%-25%`` all layers between the two. The last block, which
        cannot be edited, is never among them, and what comes to the same layers is tried once.

        Args:
            depth: The number of the model's blocks.
        """
        if LAYERS not in self.vary:
            return self
        distinct: list[Any] = []
        for value in self.vary[LAYERS]:
            layers = _layers(value, depth) if isinstance(value, str) and value != "auto" else value
            distinct += [] if layers in distinct else [layers]
        return replace(self, vary={**self.vary, LAYERS: distinct})

    def for_records(
        self,
        requests: Sequence[EditRequest],
        evaluation: EvaluationSettings,
        tokenizer: Any = None,
        ways: Sequence[Way] = (),
    ) -> tuple["Sweep", str | None]:
        """The sweep for some edits, with a figure that can be measured on them.

        Args:
            requests: The edits of all runs.
            evaluation: What is measured of them.
            tokenizer: The model's, which tells long answers; None takes for long what might be.
            ways: In which other ways they are asked.

        Returns:
            The sweep, and what to say where it compares by another figure than it was to.

        Raises:
            EditError: If its figure cannot be measured, and is not S, for which others can stand in.
        """
        figures = measurable(requests, evaluation, tokenizer, ways)
        if self.metric in figures:
            return self, None
        if self.metric != "S":
            raise EditError(f"`metric`: {self.metric} cannot be measured on these records, only {', '.join(figures)}.")
        metric = next(name for name in INSTEAD_OF_S if name in figures)
        return replace(self, metric=metric), (
            "S cannot be measured on these records: it needs `target_true`, `paraphrase_prompts` and "
            f"`neighborhood_prompts`. The runs are compared by {metric}, which does not measure side effects."
        )

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


def _layers(value: str, depth: int) -> list[int]:
    bounds = [part.strip() for part in value.split("-")]
    if len(bounds) > 2 or not all(bound.endswith("%") and bound[:-1].strip().isdecimal() for bound in bounds):
        raise EditError(f"`vary`: {LAYERS}: expected a list of layers, 25% or 10%-25% of the depth, got {value!r}.")
    places = [min(depth * int(bound[:-1]) // 100, max(depth - 2, 0)) for bound in bounds]
    return list(range(places[0], places[-1] + 1)) or places[:1]


def describe(combination: dict[str, Any]) -> str:
    """A combination in short: the last parts of the names, and the values.

    Args:
        combination: One of `Sweep.combinations`.
    """
    return " ".join(f"{name.rpartition('.')[2]}={json.dumps(value)}" for name, value in combination.items())


def describe_but_seeds(combination: dict[str, Any]) -> str:
    """A combination in short, without its seeds: runs that differ in these alone are compared as one.

    Args:
        combination: One of `Sweep.combinations`.
    """
    rest = {name: value for name, value in combination.items() if not (is_seed(name) or name == "seed_everything")}
    return describe(rest) or "all seeds"
