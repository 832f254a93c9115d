"""How edits are made, as one call says it."""

from dataclasses import dataclass

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.gradients.source import Source
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.solvers import Solver
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.values.settings import ValueSettings


@dataclass(frozen=True)
class How:
    """The settings of one call, defaults in their place; see `edit`."""

    solver: Solver
    values: ValueSettings
    second_moment: SecondMomentSettings
    source: Source | None
    distribution: LayerDistribution
    micro_batch: int
    seed: int
    previous_keys: bool
    asking: ChatSettings = ChatSettings()  # noqa: RUF009  (frozen)
