"""From value vectors to edited weights: the part of a run that knows neither trainer nor files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError
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
from lightning_edit.values.memory import few_at_once
from lightning_edit.values.optimize import optimize_values
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values


@dataclass(frozen=True)
class Written:
    """One update as it was written.

    Args:
        factors: For each layer what was added to its weight.
        keys: For each layer the edits' keys ``(d_in, n)`` at that time.
        figures: See `Editor.write`.
    """

    factors: dict[int, Factors]
    keys: dict[int, Tensor]
    figures: dict[str, float]


@dataclass
class Editor:
    """Finds values and writes updates into one model, with the settings of one run.

    Args:
        weights: The edited weights of the model.
        tokenizer: Its fast tokenizer.
        solver: Which member of the family writes.
        layers: The edited layers, ascending.
        templates: The contexts of keys and values.
        values: How values are optimized.
        moments: For each layer C ``(d_in, d_in)`` in float64.
        distribution: How the residual is shared between layers.
        post_processing: What becomes of an update before it is added, in this order.
        previous_keys: For each layer the keys of earlier edits, which are preserved too and grow in number with every
            update; None where earlier edits are not preserved.
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

    def write(self, requests: Sequence[EditRequest], z: Tensor, measured: bool = True) -> Written:
        """Solves layer by layer, each on the model with the layers below already written (MEMIT, algorithm 1).

        Args:
            requests: The n edits.
            z: ``(n, d_model)``, their value vectors.
            measured: Whether to measure the update.

        Returns:
            The update, with figures of each layer: ``layer_L/update_norm`` (Frobenius), ``update_norm_per_edit`` (over
            sqrt(n), which compares updates of different sizes), ``relative_update_norm`` (to the unedited weight),
            ``weight_norm`` and ``weight_growth`` (|W| / |W0|) with the update in it,
            ``preservation_error`` and ``memorization_error`` (see `EditProblem`), and the condition numbers
            ``preservation_condition`` and ``keys_condition``.

        Raises:
            EditError: If a system is singular; the weights are then as they were.
        """
        written = Written({}, {}, {})
        with self.weights.undone_on_error():
            for index, layer in enumerate(self.layers):
                share = residual_share(index, len(self.layers), self.distribution)
                if not share:
                    continue
                self._write_layer(self._problem(requests, z, layer, share), layer, measured, written)
        self._preserve(written.keys)
        return written

    def _write_layer(self, problem: EditProblem, layer: int, measured: bool, written: Written) -> None:
        update, conditions = self._solve(problem, layer, measured)
        factors = self._post_processed(update, layer)
        errors = self._errors(problem, factors, layer) if measured else {}
        written.factors[layer], written.keys[layer] = factors, problem.keys
        # With it, where little memory is to be used, goes C.
        del problem
        self.weights.add(layer, factors)
        if measured:
            written.figures.update({**self._norms(factors, written.keys[layer], layer), **errors, **conditions})

    def _problem(self, requests: Sequence[EditRequest], z: Tensor, layer: int, share: float) -> EditProblem:
        decoder, highest = self.weights.decoder, self.layers[-1]
        keys = compute_keys(decoder, self.tokenizer, requests, self.templates, layer)
        current = current_values(decoder, self.tokenizer, requests, self.templates, highest, self.values.site)
        self._check_keys(keys.mean, requests, layer)
        device = keys.mean.device
        if layer not in self._layer_solvers:
            self._layer_solvers[layer] = LayerSolver(self.solver, self.moments[layer].to(device))
        return EditProblem(
            # Kept for later updates; their products must not round differently in a run that reads them from a file.
            keys=keys.mean.clone(memory_format=torch.contiguous_format),
            residual=(z.T.double().to(device) - current.to(device)) * share,
            second_moment=self._layer_solvers[layer].second_moment,
            bare_keys=keys.bare,
        )

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
        return {
            f"layer_{layer}/preservation_error": problem.preservation_error(factors),
            f"layer_{layer}/memorization_error": problem.memorization_error(factors),
        }

    def _norms(self, factors: Factors, keys: Tensor, layer: int) -> dict[str, float]:
        norm, base = float(factors.dense().norm()), float(self.weights.base[layer].double().norm())
        edited = float(self.weights.decoder.weight(layer).detach().double().norm())
        return {
            f"layer_{layer}/update_norm": norm,
            f"layer_{layer}/update_norm_per_edit": norm / math.sqrt(keys.shape[1]),
            f"layer_{layer}/relative_update_norm": norm / base,
            f"layer_{layer}/weight_norm": edited,
            f"layer_{layer}/weight_growth": edited / base,
        }

    def _solve(self, problem: EditProblem, layer: int, measured: bool) -> tuple[Factors, dict[str, float]]:
        previous = None if self.previous_keys is None else self.previous_keys.get(layer, PreviousKeys())
        try:
            solution, preserved = self._layer_solvers[layer].solve(problem, previous)
        except SingularError as error:
            if error.what == "preservation":
                check_second_moments({layer: problem.second_moment}, self.solver)
            raise EditError(
                f"Layer {layer}: the keys of the {problem.keys.shape[1]} edits of one update depend on each other, so "
                "they cannot all be written exactly. Likely causes, most probable first: edits of the same subject in "
                "one update; more edits than the layer's input has dimensions "
                f"({problem.keys.shape[0]}). Raise the solver's lambda or ridge, or make smaller updates."
            ) from error
        if self.previous_keys is not None and preserved is not None and preserved is not previous:
            self.previous_keys = self.previous_keys | {layer: preserved}
        # The solution ends here, because its matrices are as large as C.
        conditions = solution.condition_numbers() if measured else {}
        if self.weights.decoder.memory == "low":
            # It is made anew for the next update, from C and the previous keys alone.
            del self._layer_solvers[layer]
        return solution.update, {f"layer_{layer}/{name}_condition": value for name, value in conditions.items()}

    def describe(self) -> dict[str, Any]:
        """The settings that an update's file tells of itself."""
        model = self.weights.decoder.model
        return {
            "model": getattr(model, "name_or_path", ""),
            "dtype": str(model.dtype).removeprefix("torch."),
            "solver": repr(self.solver),
            "layers": self.layers,
            "context_templates": list(self.templates.texts),
        }


def check_written(edits: int, stopped: str | None = None) -> None:
    """Refuses a run in which nothing could be written.

    Args:
        edits: Number of edits written.
        stopped: Why no more were written.

    Raises:
        EditError: If it is 0.
    """
    if not edits and stopped:
        raise EditError(f"The first update was refused, so the model is unedited: {stopped}")
    if not edits:
        raise EditError("No edit has a finite loss. Lower `values.lr`, or load the model in float32 or bfloat16.")


def batches_of(requests: Sequence[EditRequest], size: int | None) -> list[Sequence[EditRequest]]:
    """The requests in groups of at most ``size`` (all in one for None), in their order."""
    size = size or max(len(requests), 1)
    return [requests[i : i + size] for i in range(0, len(requests), size)]
