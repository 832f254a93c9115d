"""One model, on which trials are made one after the other; what several of them need is found once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lightning_edit.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.decoder import Decoder
from lightning_edit.tuning.judge import Favor, Score, judge
from lightning_edit.tuning.material import Material
from lightning_edit.tuning.points import Point
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values


@dataclass(frozen=True)
class Trial:
    """A point that was tried with some edits.

    Args:
        point: The settings.
        edits: How many edits were written.
        score: What the edited model said.
        growth: The largest ratio of an edited weight's norm to that of the unedited one.
        nll: Mean negative log-likelihood of the new answers with their value vectors, in nats.
        seconds: How long it took.
        failed: Why nothing could be written; empty where it could.
    """

    point: Point
    edits: int
    score: Score
    growth: float = 1.0
    nll: float = 0.0
    seconds: float = 0.0
    failed: str = ""

    def rank(self, favor: Favor) -> tuple[float, float]:
        """The larger the better: the mean of shares, and of equal ones the smaller change of weights.

        Args:
            favor: See `Score.mean`.
        """
        return self.score.mean(favor), -self.growth


class Bench:
    """A model with what trials share: value vectors and second moments, which weight and solver do not change.

    Args:
        decoder: The model; each trial leaves it as it was.
        tokenizer: Its fast tokenizer.
        templates: Contexts of keys and values.
        moments: For each layer that may be edited C ``(d_in, d_in)`` in float64.
        material: Edits and questions.
        values: How values are optimized, but for what points say.
        tokens: How many tokens the model may write to each prompt.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        templates: ContextTemplates,
        moments: Mapping[int, Tensor],
        material: Material,
        values: ValueSettings,
        tokens: int,
    ) -> None:
        self.decoder, self.tokenizer, self.templates, self.moments = decoder, tokenizer, templates, moments
        self.material, self.settings, self.tokens = material, values, tokens
        self._weights = EditedWeights(decoder, sorted(moments))
        self._values: dict[tuple[int, float, float], Values] = {}

    def run(self, point: Point, edits: int) -> Trial:
        """Makes the first edits with a point's settings, asks the model, and takes them out again.

        Args:
            point: The settings.
            edits: How many.
        """
        start, material = time.perf_counter(), self.material.first(edits)
        editor = self._editor(point)
        values = self._values_of(point, editor, material)
        chosen = values.finite.tolist()
        kept = [request for request, finite in zip(material.requests, chosen, strict=True) if finite]
        nll = float(values.nll[values.finite].mean()) if kept else 0.0
        with self._weights.restored():
            try:
                if not kept:
                    raise EditError("No value vector is finite.")
                written = editor.write(kept, values.z[values.finite])
            except EditError as error:
                return Trial(point, edits, Score(0.0), nll=nll, seconds=time.perf_counter() - start, failed=str(error))
            score = judge(self.decoder, self.tokenizer, material, self.tokens)
        growth = max(value for name, value in written.figures.items() if name.endswith("/weight_growth"))
        return Trial(point, edits, score, growth, nll, time.perf_counter() - start)

    def _editor(self, point: Point) -> Editor:
        settings = replace(self.settings, lr=point.lr, clamp_norm_factor=point.clamp)
        moments = {layer: self.moments[layer] for layer in point.layers}
        layers = list(point.layers)
        return Editor(self._weights, self.tokenizer, point.solver, layers, self.templates, settings, moments)

    def _values_of(self, point: Point, editor: Editor, material: Material) -> Values:
        """The value vectors of the first edits, of which only those are found that are not known yet."""
        known: Sequence[Values] = [self._values[point.values_key]] if point.values_key in self._values else []
        missing = material.requests[sum(map(len, known)) :]
        if missing:
            self._values[point.values_key] = Values.join([*known, editor.find_values(missing)])
        return self._values[point.values_key].where(slice(len(material.requests)))  # type: ignore[arg-type]
