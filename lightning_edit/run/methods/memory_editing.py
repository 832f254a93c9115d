"""Memory editors: edits that are kept beside a layer, while no weight changes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_edit.asking.chat import ChatSettings, chat_of
from lightning_edit.errors import EditError
from lightning_edit.loading.weight_forms import Precision, Quantization
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.sourced import waiting
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.memories.background import background
from lightning_edit.memories.entries import memory_of
from lightning_edit.memories.folder import save_memories
from lightning_edit.memories.grace import Grace
from lightning_edit.memories.learning import Descent
from lightning_edit.memories.memoir import Memoir, MemoirClosed
from lightning_edit.memories.memory import Memory
from lightning_edit.memories.memory_weights import MemoryWeights
from lightning_edit.memories.wrapped import MadeFor, Memories
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.decoder import Decoder, check_layers
from lightning_edit.models.finding.sites import SiteKind
from lightning_edit.requests import EditRequest
from lightning_edit.run.learned_answers import find_answers
from lightning_edit.run.methods.fine_tuning import check_answers
from lightning_edit.run.methods.remembering import Remembering, named
from lightning_edit.run.updating_module import UpdatingModule
from lightning_edit.settings import Count, Layers, NotNegative, Positive, Rate, Seed, Share
from lightning_edit.storage.form import WrongFormError
from lightning_edit.values.vectors import Values

logger = logging.getLogger(__name__)

ALIKE = (
    "%s tells edits apart by the last token of their prompts, which in a chat is the same for all, so an edit may "
    "answer any question. GRACE (`model.method: grace`) holds in a chat, and so do edits of weights."
)
# What each method's own settings are where they are left out; top_k is 4096 of the 14336 columns of Llama 3 8B.
OWN: Mapping[str, Mapping[str, Any]] = {
    "grace": {"lr": 1.0, "radius": 1.0, "start": "cold"},
    "memoir": {"lr": 1.0, "top_k": None, "threshold": 0.4, "clip": 1.0},
    "memoir_closed": {"lr": 0.1, "top_k": None, "threshold": 0.4, "ridge": 1e-3},
}
COLUMNS, HEIGHT = 2 / 7, 0.85


class MemoryEditing(UpdatingModule):
    """GRACE and MEMOIR: edits in a memory beside one layer, each of which can be taken out again exactly.

    No weight changes: the model needs `load_memories` to answer with the edits, and the run's folder has ``memories/``
    for it in place of a model. Whether an edit applies is decided token by token, by what enters the down-projection.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is an embedded one,
            ``tiny-moe`` another, with experts.
        method: ``grace`` (arXiv 2211.11031), ``memoir`` (arXiv 2506.07899), or ``memoir_closed``: its matrix as a
            least-squares solution for the masked keys.
        layers: The layer that the memory is beside, the lowest is 0; ``auto`` takes one near the top.
        lr: Learning rate, of Adam for an output and of plain steps for ``memoir``; null is 1, for ``memoir_closed``
            0.1.
        steps: Most steps of an edit.
        early_stop_loss: In nats a token; an edit whose loss is at most that is learned.
        radius: Of ``grace``: how far a new key reaches; null is 1.
        start: Of ``grace``: where a value begins, ``cold``, at random in [0, 1), or ``warm``, at the layer's own
            output; null is cold.
        top_k: Of ``memoir`` and ``memoir_closed``: columns of an edit; null is two of seven, 4,096 of Llama 3.
        threshold: Of the same: the least share of an edit's features that a token must have; null is 0.4.
        clip: Of ``memoir``: the largest norm of a gradient; null is 1.
        ridge: Of ``memoir_closed``: l2 of the least squares; null is 0.001.
        edits_per_update: Edits after which the run is measured and can go on if it is stopped; null is
            `data.batch_size`. What is learned does not depend on it.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        quantization: How all linear maps but that of the layer are quantized; null leaves them as the files have them.
        down_projection: Name of the layers' modules with ``{}`` for the layer, where they cannot be found by structure.
        sites: Which map of a layer the memory is beside: the ``shared`` expert, a ``dense`` MLP, or ``auto``.
        seed: Of all that is drawn.
        trust_remote_code: See `MeasuredModule`.
    """

    kind = "remembered"
    adds_to_weights = False
    stages = ("memories", "checkpoints")
    work = ("memories",)
    unreplaceable = "A memory keeps all its edits, so none can replace another: set `data.conflicts` to keep_first."
    weights_kind = MemoryWeights
    weights: MemoryWeights

    def __init__(
        self,
        model: str,
        method: Literal["grace", "memoir", "memoir_closed"] = "grace",
        layers: Layers = "auto",
        lr: Rate | None = None,
        steps: Count = 50,
        early_stop_loss: NotNegative = 0.01,
        radius: Positive | None = None,
        start: Literal["cold", "warm"] | None = None,
        top_k: Count | None = None,
        threshold: Share | None = None,
        clip: Positive | None = None,
        ridge: Positive | None = None,
        edits_per_update: Count | None = None,
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008  (frozen; the default shows in --help)
        dtype: Precision = "auto",
        quantization: Quantization | None = None,
        down_projection: str | None = None,
        sites: SiteKind = "auto",
        seed: Seed = 0,
        trust_remote_code: bool = False,
        chat: bool | Literal["auto"] = "auto",
        chat_settings: ChatSettings = ChatSettings(),  # noqa: B008
    ) -> None:
        more: dict[str, Any] = {"sites": sites, "seed": seed, "trust_remote_code": trust_remote_code, "chat": chat}
        more |= {"down_projection": down_projection, "chat_settings": chat_settings}
        super().__init__(model, layers, evaluation, dtype, quantization, **more)
        self.save_hyperparameters(ignore="trust_remote_code")
        given = {"lr": lr, "radius": radius, "start": start, "top_k": top_k}
        given |= {"threshold": threshold, "clip": clip, "ridge": ridge}
        self.own = _own(method, {name: value for name, value in given.items() if value is not None})
        self._given_size = edits_per_update
        self.method, self.loop = method, UpdateLoop(EditQueue(edits_per_update))
        self.how = Descent(self.own["lr"], steps, early_stop_loss, self.own.get("clip", 1.0))
        self.automatic_optimization = False

    def settle_layers(self, decoder: Decoder) -> list[int]:
        """The one layer that the memory is beside.

        Raises:
            EditError: If there are several, or its site is experts.
        """
        chosen = self.hparams.layers
        if chosen == "auto":
            depth = len(decoder.blocks)
            near = max(min(int(HEIGHT * depth), depth - 2), 0)
            plain = [layer for layer in range(depth) if layer not in decoder.refusals and not decoder.experts(layer)]
            chosen = min(plain, key=lambda layer: abs(layer - near), default=near)
        layers = check_layers(decoder, chosen)
        if len(layers) > 1:
            raise EditError(f"`layers`: a memory is put beside one layer, got {layers}. Name one of them.")
        if decoder.experts(layers[0]):
            raise EditError(
                f"Layer {layers[0]}: a memory is put beside one linear map, and here {decoder.experts(layers[0])} "
                "experts share the tokens. Set `sites` to shared or dense where the model has such a map, or edit the "
                "experts by EditingModule."
            )
        return layers

    @property
    def memories(self) -> Memories | None:
        """The edits, once the model is loaded."""
        return self.weights.memories if self.model is not None else None

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context.

        Raises:
            EditError: See `check_answers`.
        """
        check_answers(self.decoder, self.tokenizer, self.requests, self.chat_settings.train_end)
        chat = chat_of(self.tokenizer)
        ends_alike = chat is not None and not chat("?").endswith("?")
        if ends_alike and self.method != "grace" and not self.measured_again:
            logger.warning(ALIKE, self.method)

    def setup(self, stage: str) -> None:
        """Settles how many edits are an update; see `MeasuredModule.setup`."""
        # One way to say it, by which runs are compared.
        self.settle(edits_per_update=self._given_size or self.trainer.datamodule.batch_size)
        self.loop.queue.size = self.hparams.edits_per_update
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Puts an empty memory on the model, or that of a run that goes on."""
        with self.weights.unedited():
            find_answers(self)
        if self.memories is None:
            self.weights.memories = Memories(self.model, self._made_for, self._empty())
        assert self.memories is not None
        if self.loop.editor is None:
            self.loop.editor = self._writer(self.memories)
        if not self.loop.kept.updates_written:
            self._keep()

    def _empty(self) -> Memory:
        """A memory without edits."""
        if self.method == "grace":
            return Grace(self.own["radius"])
        mean, columns = background(self.decoder, self.tokenizer, self.layers[0]), self.own["top_k"]
        size = len(mean)
        if columns is not None and columns > size:
            raise EditError(f"`top_k` is at most the {size} columns of layer {self.layers[0]}, got {columns}.")
        order = torch.randperm(size, generator=torch.Generator().manual_seed(self.seed)).to(mean.device)
        given = (mean, order, self._columns(size), self.own["threshold"])
        return Memoir(*given) if self.method == "memoir" else MemoirClosed(*given, self.own["ridge"])

    @property
    def _made_for(self) -> MadeFor:
        """The unedited model."""
        (layer,), weights = self.layers, self.weights
        return MadeFor(self.decoder.names[layer], weights.base_fingerprint(layer), weights.sample, self.model_name)

    def _columns(self, size: int) -> int:
        return int(self.own["top_k"] or max(round(COLUMNS * size), 1))

    def _writer(self, memories: Memories) -> Remembering:
        return Remembering(
            memories,
            self.decoder,
            self.tokenizer,
            self.layers[0],
            self.how,
            cold=self.own.get("start") == "cold",
            seed=self.seed,
            train_end=self.chat_settings.train_end,
            at_once=self.trainer.datamodule.batch_size,
            info={"model": self.model_name, "method": self.method},
        )

    def _find_values(self, part: Sequence[EditRequest]) -> Values:
        """None: edits are learned when their update is complete."""
        return waiting(len(part))

    def _whole_update(self) -> None:
        """None, as no weight changes."""

    def restore(self, state: RunState, described: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written, with its memory on the model.

        Args:
            state: That of the run.
            described: What `describe` returned then.

        Raises:
            EditError: If there are other tensors in it than the memory's.
        """
        super().restore(state, described)
        (layer,) = self.layers
        if self.memories is not None:
            # Of a module that made edits before.
            self.memories.take_off()
            self.weights.memories = self.loop.editor = None
        if not (tensors := state.anchored.get(layer)):
            return
        weight = self.decoder.weight(layer)
        sizes = {"d_out": weight.shape[0], "d_in": weight.shape[1]}
        settings: dict[str, Any] = {
            name: self.own[name] for name in ("radius", "threshold", "ridge") if name in self.own
        }
        settings |= {} if self.method == "grace" else {"top_k": self._columns(sizes["d_in"])}
        written = [request for place, request in enumerate(self.requests) if place not in state.left_out]
        edits = [named(request) for request in written[: state.edits_written]]
        try:
            memory = memory_of(self.method, settings, tensors, edits, sizes, weight.device)
        except WrongFormError as error:
            raise EditError(f"The checkpoint cannot be used: {error}. Take an earlier one of the run.") from error
        self.weights.memories = Memories(self.model, self._made_for, memory)

    def save_memories(self, folder: Path) -> None:
        """Writes the edits into a folder.

        Args:
            folder: Which.
        """
        assert self.memories is not None
        save_memories(self.memories, folder, self._writer(self.memories).info)


def _own(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method.

    Raises:
        EditError: If one is given that it has not.
    """
    for name in given:
        if name not in OWN[method]:
            having = [other for other, own in OWN.items() if name in own]
            raise EditError(f"`{name}` means nothing with `method: {method}`, only with {' or '.join(having)}.")
    return {**OWN[method], **given}
