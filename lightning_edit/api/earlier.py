"""Edits that earlier calls left in a model: later ones are written beside them, and preserve them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Source
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.messages import counted, listed
from lightning_edit.models.decoder import Decoder
from lightning_edit.requests import EditRequest, fact_of
from lightning_edit.solvers import PreviousKeys
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.levels import Level, edited_modules, levels_of, weight_of
from lightning_edit.updates.shown import Added, added_now

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """What earlier calls left in a model.

    Args:
        levels: For each layer that is to be edited and holds updates already, the level of these.
        there: What is in all weights of the model, see `added_now`.
    """

    levels: Mapping[int, Level] = field(default_factory=dict)
    there: Mapping[str, Added] = field(default_factory=dict)

    @staticmethod
    def of(decoder: Decoder, layers: Sequence[int]) -> "Earlier":
        """Looks at a model; what was changed over its edits by something else is taken as it is, with a warning.

        What is known of such a weight stays beside it, and holds again once the weight is again what it was.

        Args:
            decoder: The model.
            layers: The layers that are to be edited.
        """
        changed = {}
        for name, (module, levels) in edited_modules(decoder.model).items():
            weight = weight_of(module)
            levels.forget_undone(weight)
            if levels.top is not None and not levels.top.holds(weight):
                changed[name] = Added(fingerprint(weight))
        unchanged = [layer for layer in layers if decoder.names[layer] not in changed]
        tops = {layer: levels_of(decoder.down_projection(layer)).top for layer in unchanged}
        known = {layer: level for layer, level in tops.items() if level is not None}
        if changed:
            logger.warning(
                "%s: changed by something else since it was edited. Earlier edits are not known in it any more: they "
                "are not preserved, and can only be removed once it has the weights again that it had.",
                listed(changed),
            )
        return Earlier(known, {**added_now(decoder.model), **changed})

    @property
    def unedited(self) -> dict[str, Added]:
        """The same weights without updates."""
        return {name: Added(added.base) for name, added in self.there.items()}

    def keys(self, weights: EditedWeights, requests: Sequence[EditRequest]) -> dict[int, PreviousKeys]:
        """For each layer the keys to preserve: those of all earlier edits that no later one replaces.

        Args:
            weights: Those that are to be edited.
            requests: The edits to be made.
        """
        found, unknown = {}, set()
        for layer, level in self.levels.items():
            replaced, kept = {fact_of(request.original or request) for request in requests}, []
            for identity, part in reversed(level.parts.items()):
                if part.keys is None:
                    unknown.add(identity)
                    continue
                columns = [column for column, fact in enumerate(part.facts) if fact not in replaced]
                replaced |= set(part.facts)
                if columns:
                    kept.append(part.keys if len(columns) == len(part.facts) else part.keys[:, columns])
            previous = PreviousKeys()
            for keys in reversed(kept):
                previous = previous.extended(keys.double(), weights.has_experts(layer))
            found[layer] = previous
        if unknown:
            logger.warning(
                "The model holds %s that a file or a fit brought: its edits stay in the weights, but their keys are "
                "not known, so they are not preserved.",
                counted(len(unknown), "update"),
            )
        return found

    def statistics(self, source: Source | None, decoder: Decoder, layers: Sequence[int]) -> Mapping[str, Statistics]:
        """What a source had seen once all earlier edits were made; nothing where it is of no use to this one.

        Each call goes on with what was seen before it, so of each shape the statistics of the most tokens are the last.

        Args:
            source: Where keys and residuals come from.
            decoder: The model.
            layers: The edited places.
        """
        seen: dict[str, Statistics] = {}
        for level in self.levels.values():
            for part in level.parts.values():
                for shape, own in part.statistics.items():
                    if shape not in seen or own.tokens > seen[shape].tokens:
                        seen[shape] = own
        if source is None or not seen:
            return {}
        try:
            source.check_places(decoder, layers, seen)
        except EditError as error:
            logger.warning("What was seen of earlier edits does not count: %s", error)
            return {}
        return seen
