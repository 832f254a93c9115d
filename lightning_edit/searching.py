"""What is found for edits before they are written: values by a search, or pairs of keys and residuals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor

from lightning_edit.gradients.source import Asked, Pairs, Source
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.edit_keys import current_values
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.values.memory import values_in_parts
from lightning_edit.values.norm_anchor import with_norm
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values


class Searching:
    """The part of an `Editor` that finds what it then writes, and on which weights; see there for its fields."""

    weights: EditedWeights
    tokenizer: Any
    layers: list[int]
    templates: ContextTemplates
    values: ValueSettings
    distribution: LayerDistribution
    statistics: Mapping[str, Statistics]
    elsewhere: Callable[[], AbstractContextManager[Any]]

    @property
    def value_layer(self) -> int:
        """The layer at which values are found."""
        return self.layers[0] if self.distribution == "replay" else self.layers[-1]

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """The model without any edit, inside a ``with`` block."""
        with self.elsewhere(), self.weights.unedited():
            yield

    def searched(self) -> AbstractContextManager[None]:
        """The model on which values are found, inside a ``with`` block."""
        edited = self.weights.added or self.elsewhere is not nullcontext
        return self.unedited() if self.values.weights == "unedited" and edited else nullcontext()

    def mlp_outputs(self, requests: Sequence[EditRequest]) -> Tensor:
        """What the MLP gives at the edits' subjects where values are found, ``(n, d_model)`` in float64."""
        how = (self.weights.decoder, self.tokenizer, requests, self.templates, self.value_layer)
        return current_values(*how, "mlp").T

    def find_values(self, requests: Sequence[EditRequest], report: Report = silent) -> Values:
        """The value vectors of the edits, see `optimize_values`, on the weights that the settings name.

        Where there is no room for so many, those of one half are found after those of the other. Of several processes
        each may find others.
        """
        how = (self.weights.decoder, self.tokenizer, requests, self.templates, self.value_layer, self.values)
        with self.searched():
            return values_in_parts(*how, report)

    def with_norm(self, requests: Sequence[EditRequest], values: Values) -> Values:
        """The values with the norm that the settings name, see `with_norm`; all processes must ask for the same.

        Args:
            requests: The n edits.
            values: What `find_values` gave for them.
        """
        mu = self.values.norm_anchor
        if not isinstance(mu, int | float):
            return values
        with self.searched():
            return with_norm(values, self.mlp_outputs(requests), mu, requests)

    def find_pairs(self, source: Source, requests: Sequence[EditRequest], report: Report = silent) -> Pairs:
        """The pairs of some edits on the model as it is now, see `Source.find`; what it has seen is not kept."""
        with self.searched() if source.searches else nullcontext():
            return source.find(self.asked(requests), self.statistics, report)

    def asked(self, requests: Sequence[EditRequest]) -> Asked:
        """Edits whose pairs are to be found, or will be."""
        return Asked(self.weights.decoder, self.tokenizer, requests, self.templates, self.layers, self.values)
