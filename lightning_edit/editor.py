"""From value vectors to edited weights: the part of a run that knows neither trainer nor files."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.gradients.source import AtPlace, Source
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.edit_keys import check_keys, compute_keys, current_values
from lightning_edit.keys.token_keys import token_keys
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.searching import Searching
from lightning_edit.solvers import (
    Anchor,
    EditProblem,
    Factors,
    LayerSolver,
    PostProcessor,
    PreviousKeys,
    SimIE,
    SingularError,
    Solver,
)
from lightning_edit.solvers.anchors import Memory, Standing
from lightning_edit.solvers.checks import check_second_moments, dependent_keys
from lightning_edit.solvers.layer_distribution import LayerDistribution, residual_share
from lightning_edit.updates.distance import NO_WRITER
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.post_processed import post_processed, process_sum
from lightning_edit.updates.update_figures import errors_of, measured_again, norms_of
from lightning_edit.updates.written import Written
from lightning_edit.values.replay import replayed
from lightning_edit.values.settings import ValueSettings


@dataclass
class Editor(Searching):
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
        anchor: What holds updates to what came before them, None for nothing.
        anchored: For each layer what the anchor remembers.
        output_moments: For each layer B ``(d_out, d_out)``, for a solver that needs it.
        finishes_each: Whether each update stays by itself, and is to be post-processed as the sum that it is.
        elsewhere: Shows the model without what other edits have changed in other places than `layers`.
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
    anchor: Anchor | None = None
    anchored: dict[int, Memory] = field(default_factory=dict)
    output_moments: Mapping[int, Tensor] = field(default_factory=dict)
    finishes_each: bool = False
    elsewhere: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __post_init__(self) -> None:
        self._layer_solvers: dict[int, LayerSolver] = {}

    def write(
        self, requests: Sequence[EditRequest], z: Tensor, measured: bool = True, report: Report = silent
    ) -> Written:
        """Solves layer by layer, each on the model with the layers below already written (MEMIT, algorithm 1).

        The values of a source are found before, on the model as it is.

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
            `EditProblem`), and the condition numbers ``preservation_condition`` and ``keys_condition``; an anchor adds
            its own.

        Raises:
            EditError: If a system is singular; the weights are then as they were.
        """
        if self.source is not None:
            return self._write_pairs(self.source, requests, measured, report)
        written = Written()
        with self.weights.undone_on_error():
            if isinstance(self.anchor, SimIE):
                self._write_blended(self.anchor, requests, z, measured, written)
            else:
                self._write_layers(requests, z, measured, written)
            self._finish_each(written)
        self._preserve(written.keys)
        self.anchored = self.anchored | written.anchored
        return written

    def _write_pairs(self, source: Source, requests: Sequence[EditRequest], measured: bool, report: Report) -> Written:
        start = time.perf_counter()
        pairs = self.find_pairs(source, requests, report)
        written = Written(owners=pairs.owners, values_seconds=time.perf_counter() - start)
        with self.weights.undone_on_error():
            for index, layer in enumerate(self.layers):
                share = residual_share(index, len(self.layers), self.distribution) if source.searches else 1.0
                if share:
                    self._write_layer(self._problem_of(pairs.at(layer), layer, share), layer, measured, written)
            self._finish_each(written)
        self._preserve(written.keys)
        self.statistics, self.anchored = pairs.statistics, self.anchored | written.anchored
        return written

    def _problem_of(self, pairs: AtPlace, layer: int, share: float) -> EditProblem:
        moment = self._solver_of(layer, pairs.keys.device).second_moment
        return EditProblem(pairs.keys, pairs.residual * share, moment, text_keys=pairs.text_keys)

    def _write_layers(self, requests: Sequence[EditRequest], z: Tensor, measured: bool, written: Written) -> None:
        targets, highest = dict.fromkeys(self.layers, z), self.layers[-1]
        if self.distribution == "replay":
            with self.searched():
                how = (self.weights.decoder, self.tokenizer, requests, self.templates, self.layers)
                targets = replayed(*how, z)
        for index, layer in enumerate(self.layers):
            if share := residual_share(index, len(self.layers), self.distribution):
                at = layer if self.distribution == "replay" else highest
                self._write_layer(self._problem(requests, targets[layer], layer, at, share), layer, measured, written)

    def _write_layer(self, problem: EditProblem, layer: int, measured: bool, written: Written) -> None:
        standing = self._standing(layer, problem.keys.device)
        factors, conditions = self._solve(problem, layer, measured, standing, written)
        blended = isinstance(self.anchor, SimIE)
        if not blended:
            factors = post_processed(factors, layer, self.weights, self.post_processing)
        label, of_text = self.weights.decoder.label(layer), self.solver.needs_second_moment
        figures = errors_of(problem, factors, label, of_text) if measured else {}
        if self.anchor is not None:
            how = (written.anchored[layer], problem, factors, standing)
            written.anchored[layer], own = self.anchor.written(*how)
            figures |= {f"{label}/{name}": value for name, value in own.items()}
        written.factors[layer], written.keys[layer] = factors, problem.keys
        if measured and (blended or self.finishes_each):
            written.problems[layer] = problem
        # With it, where little memory is to be used, goes C.
        del problem
        self.weights.add(layer, factors)
        if measured:
            norms = norms_of(self.weights, factors, written.edits(layer), layer)
            written.figures.update({**norms, **figures, **conditions})

    def _write_blended(
        self, anchor: SimIE, requests: Sequence[EditRequest], z: Tensor, measured: bool, written: Written
    ) -> None:
        """Writes an update into the unedited weights, and of that what the anchor takes into the edited ones."""
        before = dict(self.weights.added)
        self.weights.set({})
        tokens = token_keys(self.weights.decoder, self.tokenizer, requests, self.templates, self.layers)
        self._write_layers(requests, z, measured, written)
        self.weights.set(before)
        for layer, factors in written.factors.items():
            standing = self._standing(layer, tokens[layer].device)
            change, written.anchored[layer] = anchor.blended(factors.dense(), tokens[layer], standing)
            written.factors[layer] = post_processed(Factors(change), layer, self.weights, self.post_processing)
            self.weights.add(layer, written.factors[layer])
        measured_again(self.weights, written, self.solver.needs_second_moment, sums=True)

    def _standing(self, layer: int, device: torch.device) -> Standing:
        previous = None if self.previous_keys is None else self.previous_keys.get(layer, PreviousKeys())
        if self.anchor is None or layer not in self.weights.added:
            return Standing(None, previous)
        added = self.weights.added[layer].dense().to(device)
        return Standing(added, previous, self.anchored.get(layer, {}))

    def _problem(self, requests: Sequence[EditRequest], z: Tensor, layer: int, at: int, share: float) -> EditProblem:
        decoder = self.weights.decoder
        keys = compute_keys(decoder, self.tokenizer, requests, self.templates, layer)
        current = current_values(decoder, self.tokenizer, requests, self.templates, at, self.values.site)
        check_keys(keys.mean, requests, layer)
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
            outputs = self.output_moments.get(layer)
            given = (self.moments[layer].to(device), None if outputs is None else outputs.to(device))
            self._layer_solvers[layer] = LayerSolver(self.solver, *given)
        return self._layer_solvers[layer]

    def _finish_each(self, written: Written) -> None:
        """Post-processes an update that stays by itself as the sum that it is, see `finish`."""
        if not self.finishes_each:
            return
        for layer, added in self.finish().items():
            written.factors[layer] = Factors(written.factors[layer].dense() + added.dense())
        measured_again(self.weights, written, self.solver.needs_second_moment)

    def finish(self) -> dict[int, Factors]:
        """Post-processes the sum of all updates, which is done once, after the last; see `process_sum`."""
        return process_sum(self.weights, self.post_processing)

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

    def _solve(
        self, problem: EditProblem, layer: int, measured: bool, standing: Standing, written: Written
    ) -> tuple[Factors, dict[str, float]]:
        previous, solver, decoder = standing.previous, self._layer_solvers[layer], self.weights.decoder
        try:
            if self.anchor is None:
                solution, preserved = solver.solve(problem, previous)
            else:
                anchored = self.anchor.solve(solver, problem, standing)
                solution, preserved, written.anchored[layer] = anchored.solution, anchored.previous, anchored.memory
        except SingularError as error:
            if error.what == "preservation":
                check_second_moments({decoder.shown(layer): problem.second_moment}, self.solver)
            raise dependent_keys(decoder.shown(layer), problem.keys) from error
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
            **({} if self.solver.one_writer else {NO_WRITER: type(self.solver).__name__}),
            "context_templates": list(self.templates.texts),
        }
