"""Training within both second moments: gradients are projected onto what ordinary text hardly feels (CrispEdit)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.gradients.passes import gradients_at_answers
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.output_moment import compute_both_moments
from lightning_edit.keys.text_moments import Moments
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.sites import oriented
from lightning_edit.models.hooks import frozen
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.run.methods.fine_tuning import encode_answer, target_nll
from lightning_edit.solvers import Factors, PreviousKeys
from lightning_edit.solvers.anchors import Memory
from lightning_edit.solvers.projection import OF_TEXT, Projection
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.update_figures import norms_of
from lightning_edit.updates.written import Written

DIVERGED = "Training diverged: its weights, or what the model gives with them, are no finite numbers. Lower `model.lr`."


@dataclass(frozen=True)
class TrainingSettings:
    """How an update is trained.

    Args:
        lr: Learning rate of Adam.
        epochs: Most passes over the edits of an update.
        mini_batch: Edits of a step.
        energy: See `Projection.of`.
        refresh: The relative change of a weight from which on the moments of ordinary text are counted again.
        early_stop_loss: In nats a token; a mini-batch below it makes no step, and an epoch below it is the last.
        train_end: Whether answers end, see `encode_answer`.
    """

    lr: float
    epochs: int
    mini_batch: int
    energy: float
    refresh: float
    early_stop_loss: float
    train_end: bool


class ProjectedAdam(torch.optim.Adam):
    """Adam whose gradients are projected before each step, layer by layer.

    Args:
        decoder: The model.
        projections: For each trained layer its projection.
        lr: Learning rate.
    """

    def __init__(self, decoder: Decoder, projections: Mapping[int, Projection], lr: float) -> None:
        self._decoder, self._projections = decoder, projections
        super().__init__([decoder.parameter(layer) for layer in projections], lr=lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step along the projected gradients."""
        for layer in self._projections:
            weight = self._decoder.parameter(layer)
            if weight.grad is not None:
                weight.grad = self._projected(layer, weight.grad)
        return super().step(closure)

    @torch.no_grad()
    def project_by(self, projections: Mapping[int, Projection]) -> None:
        """Takes other projections, also for the momentum that there is.

        Args:
            projections: For each trained layer its projection.
        """
        self._projections = projections
        for layer in projections:
            state = self.state[self._decoder.parameter(layer)]
            if "exp_avg" in state:
                state["exp_avg"].copy_(self._projected(layer, state["exp_avg"]))

    def _projected(self, layer: int, tensor: Tensor) -> Tensor:
        module = self._decoder.down_projection(layer)
        wide = oriented(module, tensor).to(torch.promote_types(tensor.dtype, torch.float32))
        return oriented(module, self._projections[layer](wide)).to(tensor.dtype).contiguous()


@dataclass
class ProjectedTraining:
    """Writes updates by training; what later ones may not change is remembered from each.

    The moments of a layer are those of ordinary text on the unedited model, averaged by tokens with those of all edits
    so far, and counted again once a weight has drifted by `TrainingSettings.refresh`.

    Args:
        weights: The edited weights of the model.
        tokenizer: Its fast tokenizer.
        layers: The edited layers, ascending.
        how: How an update is trained.
        rows: Token ids of the ordinary text.
        moments: Its second moments on the unedited model.
        info: What an update's file tells of the run.
        anchored: For each layer what is remembered of it.
    """

    weights: EditedWeights
    tokenizer: Any
    layers: list[int]
    how: TrainingSettings
    rows: Sequence[Sequence[int]]
    moments: Moments
    info: dict[str, Any]
    anchored: dict[int, Memory] = field(default_factory=dict)
    previous_keys: dict[int, PreviousKeys] | None = None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)

    def write(
        self, requests: Sequence[EditRequest], z: Tensor, measured: bool = True, report: Report = silent
    ) -> Written:
        """Trains the weights on the edits of an update.

        Args:
            requests: The n edits.
            z: Not looked at.
            measured: Whether to measure the update.
            report: Called with the number of epochs done.

        Returns:
            The update, with the norms of each layer as `Editor.write` gives them, ``free_share`` of its directions, and
            ``training/nll``, the mean loss of the last epoch.

        Raises:
            EditError: If training diverges; the weights are then as they were.
        """
        decoder = self.weights.decoder
        encoded = [encode_answer(self.tokenizer, request, self.how.train_end) for request in requests]
        owners = tuple(edit for edit, (ids, start) in enumerate(encoded) for _ in ids[start:])
        found = gradients_at_answers(decoder, encoded, self.layers)
        written = Written(keys={layer: h.T.contiguous() for layer, (h, _) in found.items()}, owners=owners)
        before = dict(self.weights.added)
        with self.weights.undone_on_error():
            memory, figures = self._train(requests, report)
            changes = {layer: self._change(layer) for layer in self.layers}
            if not all(bool(change.isfinite().all()) for change in changes.values()):
                raise EditError(DIVERGED)
            self.weights.set(before)
            for layer, change in changes.items():
                written.factors[layer] = Factors(change)
                self.weights.add(layer, written.factors[layer])
            written.anchored.update(self._remembered(memory, [ids for ids, _ in encoded]))
        if measured:
            written.figures.update(figures)
            for layer, factors in written.factors.items():
                written.figures.update(norms_of(self.weights, factors, len(requests), layer))
        self.anchored = self.anchored | written.anchored
        return written

    def finish(self) -> dict[int, Factors]:
        """Nothing is added after the last update."""
        return {}

    def release(self, keys: dict[int, Tensor]) -> None:
        """No single edit can be taken out of the sums."""

    def describe(self) -> dict[str, Any]:
        """The settings that an update's file tells of itself."""
        return self.info

    # -- training ------------------------------------------------------------------------------------------------------

    def _train(self, requests: Sequence[EditRequest], report: Report) -> tuple[dict[int, Memory], dict[str, float]]:
        """Trains the weights in place; what is remembered of ordinary text then, and figures."""
        decoder, how = self.weights.decoder, self.how
        memory = self._refreshed(dict(self.anchored))
        projections = self._projections(memory)
        batches = [requests[i : i + how.mini_batch] for i in range(0, len(requests), how.mini_batch)]
        with torch.enable_grad(), frozen(decoder.model):
            for layer in self.layers:
                decoder.parameter(layer).requires_grad_(True)
            optimizer = ProjectedAdam(decoder, projections, how.lr)
            for epoch in range(how.epochs):
                loss = sum(self._step(optimizer, batch) * len(batch) for batch in batches) / len(requests)
                report("fine-tuning (epochs)", epoch + 1, how.epochs, nll=loss)
                if not loss >= how.early_stop_loss:
                    break
                if (fresh := self._refreshed(memory)) is not memory:
                    memory, projections = fresh, self._projections(fresh)
                    optimizer.project_by(projections)
            optimizer.zero_grad()
        shares = {f"{decoder.label(layer)}/free_share": found.free_share for layer, found in projections.items()}
        return memory, {"training/nll": loss, **shares}

    def _step(self, optimizer: ProjectedAdam, batch: Sequence[EditRequest]) -> float:
        """The mean loss of a mini-batch, which is trained on unless it is learned."""
        optimizer.zero_grad()
        loss = target_nll(self.weights.decoder, self.tokenizer, batch, self.how.train_end).mean()
        if not float(loss.detach()) < self.how.early_stop_loss:
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    def _change(self, layer: int) -> Tensor:
        """What must be added to the sum of all updates so that the weight is what it is now."""
        change = self._moved(layer)
        return change - self.weights.added[layer].dense().to(change) if layer in self.weights.added else change

    def _moved(self, layer: int) -> Tensor:
        """W - W0 ``(d_out, d_in)`` in float64."""
        weight = self.weights.decoder.weight(layer).detach().double()
        return weight - self.weights.base[layer].to(weight)

    # -- what later updates may not change -----------------------------------------------------------------------------

    def _refreshed(self, memory: dict[int, Memory]) -> dict[int, Memory]:
        """The same memory, or one with new moments of ordinary text where a weight has drifted since the last ones."""
        if not any(self._drift(layer, memory) > self.how.refresh for layer in self.layers):
            return memory
        fresh: dict[int, Memory] = {}
        for layer, (keys, outputs) in compute_both_moments(self.weights.decoder, self.rows, self.layers).items():
            if not bool(keys.isfinite().all() and outputs.isfinite().all()):
                raise EditError(DIVERGED)
            counted = {"text_keys": keys, "text_outputs": outputs, "reference": self._moved(layer)}
            fresh[layer] = {**memory.get(layer, {}), **counted}
        return fresh

    def _drift(self, layer: int, memory: Mapping[int, Memory]) -> float:
        """|W - W_ref| / |W_ref| since the moments of ordinary text were counted."""
        moved = self._moved(layer)
        base, reference = self.weights.base[layer].to(moved), memory.get(layer, {}).get("reference")
        if reference is None:
            return float(moved.norm() / base.norm())
        reference = reference.to(moved)
        return float((moved - reference).norm() / (base + reference).norm())

    def _projections(self, memory: Mapping[int, Memory]) -> dict[int, Projection]:
        tokens = sum(map(len, self.rows))
        found = {}
        for layer in self.layers:
            weight, own = self.weights.decoder.weight(layer), memory.get(layer, {})
            keys = own.get("text_keys", self.moments[layer]).to(weight.device)
            outputs = own.get("text_outputs", self.moments.outputs[layer]).to(weight.device)
            keys = _averaged(keys, tokens, own.get("keys"), own.get("key_tokens"))
            outputs = _averaged(outputs, tokens - len(self.rows), own.get("outputs"), own.get("output_tokens"))
            try:
                projection = Projection.of(keys, outputs, self.how.energy)
            except ValueError as error:
                raise EditError(f"Layer {self.weights.decoder.shown(layer)}: {error}") from error
            found[layer] = projection.to(torch.promote_types(weight.dtype, torch.float32))
        return found

    def _remembered(self, memory: Mapping[int, Memory], texts: Sequence[Sequence[int]]) -> dict[int, Memory]:
        """What is remembered of ordinary text, with the sums over the tokens of all edits, these included."""
        tokens, followed = sum(map(len, texts)), sum(len(ids) - 1 for ids in texts)
        remembered: dict[int, Memory] = {}
        for layer, (keys, outputs) in compute_both_moments(self.weights.decoder, texts, self.layers).items():
            own = memory.get(layer, {})
            sums = {"keys": keys * tokens, "outputs": outputs * followed}
            sums |= {"key_tokens": keys.new_tensor([[tokens]]), "output_tokens": keys.new_tensor([[followed]])}
            sums = {name: own[name].to(value) + value if name in own else value for name, value in sums.items()}
            remembered[layer] = sums | {name: own[name] for name in sorted(OF_TEXT) if name in own}
        return remembered


def _averaged(mean: Tensor, tokens: int, total: Tensor | None, more: Tensor | None) -> Tensor:
    """The mean over so many tokens and over those of a sum, if there is one."""
    if total is None or more is None:
        return mean
    return (mean * tokens + total.to(mean)) / (tokens + float(more))
