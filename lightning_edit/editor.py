"""From value vectors to edited weights: the part of a run that knows neither trainer nor files."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Pairs, Source
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.edit_keys import compute_keys, current_values
from lightning_edit.messages import listed
from lightning_edit.models.out_of_memory import halving
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import (
    EditProblem,
    Factors,
    LayerSolver,
    PostProcessor,
    PreviousKeys,
    SingularError,
    Solver,
)
from lightning_edit.solvers.checks import check_second_moments
from lightning_edit.solvers.layer_distribution import LayerDistribution, residual_share
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.written import Written
from lightning_edit.values.memory import few_at_once
from lightning_edit.values.optimize import optimize_values
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values


@dataclass
class Editor:
    """Finds values and writes updates into one model, with the settings of one run.

    Args:
        weights: The edited weights of the model.
        tokenizer: Its fast tokenizer.
        solver: Which member of the family writes.
        layers: The edited layers, ascending; with a source the edited places, see `places`.
        templates: The contexts of keys and values.
        values: How values are optimized.
        moments: For each layer C ``(d_in, d_in)`` in float64.
        distribution: How the residual is shared between layers.
        post_processing: What becomes of an update before it is added, in this order.
        previous_keys: For each layer the keys of earlier edits, which are preserved too and grow in number with every
            update; None where earlier edits are not preserved.
        source: Where keys and residuals come from, if not from a search for values.
        statistics: What the source has seen so far.
    """

    weights: EditedWeights
    tokenizer: Any
    solver: Solver
    layers: list[int]
    templates: ContextTemplates
    values: ValueSettings
    moments: Mapping[int, Tensor]
    distribution: LayerDistribution = "uniform"
    post_processing: Sequence[PostProcessor] = ()
    previous_keys: dict[int, PreviousKeys] | None = None
    source: Source | None = None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layer_solvers: dict[int, LayerSolver] = {}

    def find_values(self, requests: Sequence[EditRequest], report: Report = silent) -> Values:
        """The value vectors of the edits on the model as it is now; see `optimize_values`.

        Where there is no room for so many, those of one half are found after those of the other.
        """
        decoder, layer = self.weights.decoder, self.layers[-1]
        parts: list[Values] = []
        shares = few_at_once(decoder, self.tokenizer, requests, self.templates, layer, self.values)

        def find(part: Sequence[EditRequest]) -> Values:
            before = sum(map(len, parts))

            def show(stage: str, done: float, total: float, **figures: float) -> None:
                report(stage, before + done, len(requests), **figures)

            return optimize_values(decoder, self.tokenizer, part, self.templates, layer, self.values, show)

        for share in shares:
            for part in halving(find, share, decoder.model):
                parts.append(part)
        return Values.join(parts)

    def write(
        self, requests: Sequence[EditRequest], z: Tensor, measured: bool = True, report: Report = silent
    ) -> Written:
        """Solves layer by layer, each on the model with the layers below already written (MEMIT, algorithm 1).

        The pairs of a source are all found before, on the model as it is.

        Args:
            requests: The n edits.
            z: ``(n, d_model)``, their value vectors; with a source ``(n, 0)``.
            measured: Whether to measure the update.
            report: Told how far a source is.

        Returns:
            The update, with figures of each layer, named by `Decoder.label`: ``layer_L/update_norm`` (Frobenius),
            ``update_norm_per_edit`` (over sqrt(n), which compares updates of different sizes),
            ``relative_update_norm`` (to the unedited weight), ``weight_norm`` and ``weight_growth`` (|W| / |W0|) with
            the update in it, ``preservation_error``, for solvers that look at C, and ``memorization_error`` (see
            `EditProblem`), and the condition numbers ``preservation_condition`` and ``keys_condition``.

        Raises:
            EditError: If a system is singular; the weights are then as they were.
        """
        if self.source is not None:
            return self._write_pairs(self.source, requests, measured, report)
        written = Written()
        with self.weights.undone_on_error():
            for index, layer in enumerate(self.layers):
                share = residual_share(index, len(self.layers), self.distribution)
                if not share:
                    continue
                self._write_layer(self._problem(requests, z, layer, share), layer, measured, written)
        self._preserve(written.keys)
        return written

    def _write_pairs(self, source: Source, requests: Sequence[EditRequest], measured: bool, report: Report) -> Written:
        start = time.perf_counter()
        pairs = self.find_pairs(source, requests, report)
        written = Written(owners=pairs.owners, values_seconds=time.perf_counter() - start)
        with self.weights.undone_on_error():
            for layer in self.layers:
                keys, residual = pairs.keys.pop(layer), pairs.residuals.pop(layer)
                moment = self._solver_of(layer, keys.device).second_moment
                self._write_layer(EditProblem(keys, residual, moment), layer, measured, written)
        self._preserve(written.keys)
        self.statistics = pairs.statistics
        return written

    def find_pairs(self, source: Source, requests: Sequence[EditRequest], report: Report = silent) -> Pairs:
        """The pairs of some edits on the model as it is now, see `Source.find`; what it has seen is not kept."""
        how = (self.weights.decoder, self.tokenizer, requests, self.templates, self.layers, self.statistics)
        return source.find(*how, report)

    def _write_layer(self, problem: EditProblem, layer: int, measured: bool, written: Written) -> None:
        update, conditions = self._solve(problem, layer, measured)
        factors = self._post_processed(update, layer)
        errors = self._errors(problem, factors, layer) if measured else {}
        written.factors[layer], written.keys[layer] = factors, problem.keys
        # With it, where little memory is to be used, goes C.
        del problem
        self.weights.add(layer, factors)
        if measured:
            edits = len(set(written.owners)) if written.owners is not None else written.keys[layer].shape[1]
            written.figures.update({**self._norms(factors, edits, layer), **errors, **conditions})

    def _problem(self, requests: Sequence[EditRequest], z: Tensor, layer: int, share: float) -> EditProblem:
        decoder, highest = self.weights.decoder, self.layers[-1]
        keys = compute_keys(decoder, self.tokenizer, requests, self.templates, layer)
        current = current_values(decoder, self.tokenizer, requests, self.templates, highest, self.values.site)
        self._check_keys(keys.mean, requests, layer)
        device = keys.mean.device
        return EditProblem(
            # Kept for later updates; their products must not round differently in a run that reads them from a file.
            keys=keys.mean.clone(memory_format=torch.contiguous_format),
            residual=(z.T.double().to(device) - current.to(device)) * share,
            second_moment=self._solver_of(layer, device).second_moment,
            bare_keys=keys.bare,
        )

    def _solver_of(self, layer: int, device: torch.device) -> LayerSolver:
        if layer not in self._layer_solvers:
            self._layer_solvers[layer] = LayerSolver(self.solver, self.moments[layer].to(device))
        return self._layer_solvers[layer]

    def _check_keys(self, keys: Tensor, requests: Sequence[EditRequest], layer: int) -> None:
        """Refuses edits that have no key."""
        if missing := [request.name for request, key in zip(requests, keys.T, strict=True) if not bool(key.any())]:
            raise EditError(
                f"Layer {layer}: the key of {listed(missing)} is all zeros, so nothing can be written for it there: "
                "what enters the edited map is 0, or the subject's token visits no expert. Edit another layer, or "
                "another site of it (`sites`)."
            )

    def _post_processed(self, factors: Factors, layer: int) -> Factors:
        for process in self.post_processing:
            if not process.of_sum:
                factors = Factors(process(factors.dense(), self.weights.decoder.weight(layer).detach().double()))
        return factors

    def finish(self) -> dict[int, Factors]:
        """Post-processes the sum of all updates, which is done once, after the last.

        Returns:
            For each layer what was added to its weight for that; empty where there is nothing to do.
        """
        corrections: dict[int, Factors] = {}
        last = [process for process in self.post_processing if process.of_sum]
        for layer, factors in dict(self.weights.added).items() if last else ():
            before = after = factors.dense()
            for process in last:
                after = process(after, self.weights.base[layer].double().to(after.device))
            corrections[layer] = Factors(after - before)
            self.weights.add(layer, corrections[layer])
        return corrections

    def _preserve(self, keys: dict[int, Tensor]) -> None:
        if self.previous_keys is not None:
            longer = {
                layer: self.previous_keys.get(layer, PreviousKeys()).extended(added, self.weights.has_experts(layer))
                for layer, added in keys.items()
            }
            # One assignment: whoever looks in between sees the old keys or the new ones.
            self.previous_keys = self.previous_keys | longer

    def release(self, keys: dict[int, Tensor]) -> None:
        """Stops preserving earlier edits, because later ones are to replace them.

        Args:
            keys: For each layer their keys ``(d_in, n)`` as they were written.
        """
        if self.previous_keys is not None:
            previous = {layer: self.previous_keys.get(layer, PreviousKeys()) for layer in keys}
            fewer = {layer: previous[layer].without(block.double()) for layer, block in keys.items()}
            self.previous_keys = self.previous_keys | fewer

    def _errors(self, problem: EditProblem, factors: Factors, layer: int) -> dict[str, float]:
        label, of_text = self.weights.decoder.label(layer), self.solver.needs_second_moment
        return {
            **({f"{label}/preservation_error": problem.preservation_error(factors)} if of_text else {}),
            f"{label}/memorization_error": problem.memorization_error(factors),
        }

    def _norms(self, factors: Factors, edits: int, layer: int) -> dict[str, float]:
        label = self.weights.decoder.label(layer)
        norm, base = float(factors.dense().norm()), float(self.weights.base[layer].double().norm())
        edited = float(self.weights.decoder.weight(layer).detach().double().norm())
        return {
            f"{label}/update_norm": norm,
            f"{label}/update_norm_per_edit": norm / math.sqrt(edits),
            f"{label}/relative_update_norm": norm / base,
            f"{label}/weight_norm": edited,
            f"{label}/weight_growth": edited / base,
        }

    def _solve(self, problem: EditProblem, layer: int, measured: bool) -> tuple[Factors, dict[str, float]]:
        previous = None if self.previous_keys is None else self.previous_keys.get(layer, PreviousKeys())
        decoder = self.weights.decoder
        try:
            solution, preserved = self._layer_solvers[layer].solve(problem, previous)
        except SingularError as error:
            if error.what == "preservation":
                check_second_moments({layer: problem.second_moment}, self.solver)
            raise EditError(
                f"Layer {decoder.shown(layer)}: the {problem.keys.shape[1]} keys of one update depend on each other, "
                "so they cannot all be written exactly. Likely causes, most probable first: edits of the same subject "
                "in one update; more edits than the layer's input has dimensions "
                f"({problem.keys.shape[0]}). Raise the solver's lambda or ridge, or make smaller updates."
            ) from error
        if self.previous_keys is not None and preserved is not None and preserved is not previous:
            self.previous_keys = self.previous_keys | {layer: preserved}
        # The solution ends here, because its matrices are as large as C.
        conditions = solution.condition_numbers() if measured else {}
        if decoder.memory == "low":
            # It is made anew for the next update, from C and the previous keys alone.
            del self._layer_solvers[layer]
        return solution.update, {
            f"{decoder.label(layer)}/{name}_condition": value for name, value in conditions.items()
        }

    def describe(self) -> dict[str, Any]:
        """The settings that an update's file tells of itself."""
        decoder, model = self.weights.decoder, self.weights.decoder.model
        return {
            "model": getattr(model, "name_or_path", ""),
            "dtype": str(model.dtype).removeprefix("torch."),
            "solver": repr(self.solver),
            "layers": [layer if layer < len(decoder.blocks) else decoder.shown(layer) for layer in self.layers],
            **({} if self.source is None else {"source": repr(self.source)}),
            "context_templates": list(self.templates.texts),
        }
