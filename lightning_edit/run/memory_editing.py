"""Memory editors: edits that are kept beside a layer, while no weight changes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.asking.tokenization import check_lengths
from lightning_edit.errors import EditError
from lightning_edit.loading.weight_forms import Precision, Quantization
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.memories.background import background
from lightning_edit.memories.folder import save_memories
from lightning_edit.memories.grace import Grace
from lightning_edit.memories.learning import Descent, find_outputs, look, train_memory
from lightning_edit.memories.memoir import Memoir, MemoirClosed
from lightning_edit.memories.memory import Entry
from lightning_edit.memories.memory_weights import MemoryWeights
from lightning_edit.memories.wrapped import Memories
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.decoder import Decoder, check_layers
from lightning_edit.models.hooks import frozen
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.sites import SiteKind
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import call_hooks
from lightning_edit.run.fine_tuning import encode_answer, target_nll
from lightning_edit.run.learned_answers import find_answers
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.settings import NO_EFFECT, Count, Layers, NotNegative, Positive, Seed, Share
from lightning_edit.storage.fingerprint import fingerprint

# What each method's own settings are where they are left out; top_k is 4096 of the 14336 columns of Llama 3 8B.
OWN: Mapping[str, Mapping[str, Any]] = {
    "grace": {"lr": 1.0, "radius": 1.0, "start": "cold"},
    "memoir": {"lr": 1.0, "top_k": None, "threshold": 0.4, "clip": 1.0},
    "memoir_closed": {"lr": 0.1, "top_k": None, "threshold": 0.4, "ridge": 1e-3},
}
COLUMNS, HEIGHT = 2 / 7, 0.85


class MemoryEditing(MeasuredModule):
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
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        quantization: How all linear maps but that of the layer are quantized; null leaves them as the files have them.
        down_projection: Name of the layers' modules with ``{}`` for the layer, where they cannot be found by structure.
        sites: Which map of a layer the memory is beside: the ``shared`` expert, a ``dense`` MLP, or ``auto``.
        seed: Of all that is drawn.
        trust_remote_code: See `MeasuredModule`.
    """

    kind = "remembered"
    by_updates = False
    stages = ("memories",)
    unreplaceable = "A memory keeps all its edits, so none can replace another: set `data.conflicts` to keep_first."
    weights_kind = MemoryWeights
    weights: MemoryWeights

    def __init__(
        self,
        model: str,
        method: Literal["grace", "memoir", "memoir_closed"] = "grace",
        layers: Layers = "auto",
        lr: Positive | None = None,
        steps: Count = 50,
        early_stop_loss: NotNegative = 0.01,
        radius: Positive | None = None,
        start: Literal["cold", "warm"] | None = None,
        top_k: Count | None = None,
        threshold: Share | None = None,
        clip: Positive | None = None,
        ridge: Positive | None = None,
        evaluation: Annotated[EvaluationSettings, NO_EFFECT] = EvaluationSettings(),  # noqa: B008  (frozen; the default shows in --help)
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
        self.method, self.loop = method, UpdateLoop(EditQueue(None))
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
    def requests_so_far(self) -> list[EditRequest]:
        """The edits that were made once the fit is over, none before."""
        return self.requests[: self.loop.edits_written]

    @property
    def memories(self) -> Memories | None:
        """The edits, once the model is loaded."""
        return self.weights.memories if self.model is not None else None

    def configure_optimizers(self) -> None:
        """None: what is learned has optimizers of its own."""

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context.

        Raises:
            EditError: See `check_lengths`.
        """
        encoded = [self._encoded(request)[0] for request in self.requests]
        check_lengths([len(ids) - 1 for ids in encoded], [r.name for r in self.requests], self.decoder.context)

    def on_fit_start(self) -> None:
        """Puts an empty memory on the model."""
        find_answers(self)
        (layer,) = self.layers
        memory: Grace | Memoir
        if self.method == "grace":
            memory = Grace(self.own["radius"])
        else:
            mean, columns = background(self.decoder, self.tokenizer, layer), self.own["top_k"]
            size = len(mean)
            if columns is not None and columns > size:
                raise EditError(f"`top_k` is at most the {size} columns of layer {layer}, got {columns}.")
            order = torch.randperm(size, generator=torch.Generator().manual_seed(self.seed)).to(mean.device)
            chosen = max(round(COLUMNS * size), 1) if columns is None else columns
            given = (mean, order, chosen, self.own["threshold"])
            memory = Memoir(*given) if self.method == "memoir" else MemoirClosed(*given, self.own["ridge"])
        self.weights.memories = Memories(self.model, self.decoder.names[layer], memory)

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Learns the edits of a batch."""
        assert self.memories is not None
        one_by_one = self.method == "memoir"
        with self.timed("memories"):
            for part in [[request] for request in batch] if one_by_one else [batch]:
                for entries in halving(self._train if one_by_one else self._learn_outputs, part, self.model):
                    self.memories.memory.add(entries)
                self.report("memories (edits)", len(self.memories), len(self.requests))

    def on_fit_end(self) -> None:
        """From here on the edits count as made.

        Raises:
            EditError: If no edit had its turn.
        """
        self.to(self.trainer.strategy.root_device)
        assert self.memories is not None
        if left := len(self.requests) - len(self.memories):
            ended = f"The trainer ended the fit before {left} of {len(self.requests)} edits had their turn"
            if not len(self.memories):
                raise EditError(f"{ended}, so nothing is edited. Raise or leave out `trainer.max_time`.")
            rank_zero_warn(f"{ended}. Raise or leave out `trainer.max_time` to make all of them.")
        self.loop.edits_written, self.loop.updates_written = len(self.memories), 1
        call_hooks(self, "on_edits_written")
        call_hooks(self, "on_edits_done")

    def save_memories(self, folder: Path) -> None:
        """Writes the edits into a folder.

        Args:
            folder: Which.
        """
        assert self.memories is not None
        info = {"model": self.model_name, "method": self.method}
        save_memories(self.memories, folder, self.weights.base_fingerprint(self.layers[0]), info)

    # -- learning ------------------------------------------------------------------------------------------------------

    def _encoded(self, request: EditRequest) -> tuple[list[int], int]:
        return encode_answer(self.tokenizer, request, self.chat_settings.train_end)

    def _learn_outputs(self, requests: Sequence[EditRequest]) -> list[Entry]:
        """What the layer should give at the last token of each prompt; for MEMOIR also 0 at the edit's other tokens."""
        assert self.memories is not None
        (layer,), memory = self.layers, self.memories.memory
        encoded = [self._encoded(request) for request in requests]
        last = [start - 1 for _, start in encoded]
        loss = partial(target_nll, self.decoder, self.tokenizer, requests, self.chat_settings.train_end)
        with self.memories.paused(), frozen(self.model):
            seen = look(self.decoder, layer, loss, len(requests))
            now = seen.output[range(len(last)), last]
            start = torch.stack([self._drawn(request) for request in requests]).to(now) if self._cold else now
            found, _ = find_outputs(self.decoder, layer, loss, last, start, self.how)
        entries = []
        for row, (request, (ids, _), place) in enumerate(zip(requests, encoded, last, strict=True)):
            tensors = {"key": seen.keys[row, place], "value": found[row]}
            if isinstance(memory, Memoir):
                tensors = _missing(memory, seen.keys[row, : len(ids) - 1], place, found[row] - now[row])
            entries.append(_entry(request, tensors))
        return entries

    @property
    def _cold(self) -> bool:
        return bool(self.own.get("start") == "cold")

    def _drawn(self, request: EditRequest) -> Tensor:
        """Where a value begins; the edit alone decides, not what else is learned with it."""
        name = fingerprint(str(self.seed), request.rewrite_prompt, request.learned)
        generator = torch.Generator().manual_seed(int(name[:15], 16))
        return torch.rand(len(self.decoder.weight(self.layers[0])), generator=generator)

    def _train(self, requests: Sequence[EditRequest]) -> list[Entry]:
        """The next part of W_m, for one edit after all earlier ones."""
        assert self.memories is not None and isinstance(self.memories.memory, Memoir)
        (layer,), memory, (request,) = self.layers, self.memories.memory, requests
        _, start = self._encoded(request)
        loss = partial(target_nll, self.decoder, self.tokenizer, requests, self.chat_settings.train_end)
        with self.memories.paused(), frozen(self.model):
            mask = memory.mask(look(self.decoder, layer, loss, 1).keys[0, start - 1])
            tensors, _ = train_memory(self.decoder, layer, loss, memory, mask, self.how)
        return [_entry(request, tensors)]


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


def _missing(memory: Memoir, keys: Tensor, last: int, offset: Tensor) -> dict[str, Tensor]:
    """What W_m should give for the keys of an edit: ``offset`` at the prompt's last token, nothing at the others."""
    values = offset.new_zeros(len(keys), len(offset))
    values[last] = offset
    return {"mask": memory.mask(keys[last]), "keys": keys, "values": values}


def _entry(request: EditRequest, tensors: Mapping[str, Tensor]) -> Entry:
    on_cpu = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return Entry(request.case_id or request.rewrite_prompt, request.target_new, on_cpu)
