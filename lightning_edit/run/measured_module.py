"""The LightningModule under all editing methods: it loads the model, measures it, and keeps what was edited."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from lightning_edit.asking.chat import ChatSettings, World, check_chat, check_template, settle_chat
from lightning_edit.distributed.process_group import in_a_group, is_sharded
from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Source
from lightning_edit.keys.named_prompts import Prompts
from lightning_edit.loading.editable import Loaded, ModelSource, check_quantized, load_editable
from lightning_edit.loading.fingerprints import sample_of
from lightning_edit.loading.gguf_reader import read_once
from lightning_edit.loading.loaded_weights import check_vocabulary
from lightning_edit.loading.offloading import DeviceMap, check_device_map, is_offloaded, keep_in_memory
from lightning_edit.loading.pretrained import check_stated_layers, load_tokenizer
from lightning_edit.loading.sharding import load_sharded
from lightning_edit.loading.weight_forms import Precision, Quantization, Write
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.same_run import RunIdentity
from lightning_edit.metrics import EditMetrics, EvaluationSettings, check_evaluation, check_records
from lightning_edit.metrics.ripples.measuring import RippleMetrics
from lightning_edit.metrics.ways import WayMetrics
from lightning_edit.metrics.wild.measuring import WildMetrics
from lightning_edit.models.auto_layers import settle_places
from lightning_edit.models.decoder import Decoder, Memory
from lightning_edit.models.finding.places import blocks_of
from lightning_edit.models.finding.probe import check_projections
from lightning_edit.models.finding.sites import SiteKind
from lightning_edit.requests import EditRequest, replaced_by
from lightning_edit.run.checkpointing import load_run, save_run
from lightning_edit.run.measuring import Measuring
from lightning_edit.run.settled import Settled
from lightning_edit.run.trainer_check import check_trainer
from lightning_edit.settings import NO_EFFECT, Checked, Layers, Seed
from lightning_edit.solvers import Anchor, PostProcessor, Solver
from lightning_edit.storage.checkpoints.known_classes import SafelyLoaded
from lightning_edit.stored_requests import some_of
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.updates.model_update import ModelUpdate


class MeasuredModule(Checked, SafelyLoaded, Settled, Measuring, ABC):
    """A language model whose facts are edited in a fit and measured in a test.

    ``trainer.test`` before ``trainer.fit`` measures the unedited model, after it the edited one. A method of editing is
    a subclass, which sets `loop`.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is an embedded one,
            ``tiny-moe`` another, with experts.
        layers: The layers to edit, the lowest is 0; ``auto``: see `settle_layers`.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        quantization: How all linear maps but the edited ones are quantized; null leaves them as the files have them.
        write: Where updates of a quantized model are kept: ``merged``, in plain matrices, or ``beside`` their codes.
        down_projection: Name of the edited modules with ``{}`` for the layer, where they cannot be found by structure.
        sites: What of a layer is edited: its ``experts``, the ``shared`` expert, a ``dense`` MLP, or ``auto``.
        seed: Of all that is drawn.
        device_map: Spreads the model over the devices of this machine by accelerate: ``auto``, or a device for each
            part, also ``cpu`` or ``disk``; null keeps it on the trainer's device. What is on ``cpu`` or ``disk`` is
            brought when it is run.
        offload_folder: Where weights are kept that are on ``disk`` and cannot be read from the model's own files.
        memory: With ``low`` a fit takes little more memory than the model, and more time; results differ by rounding.
        trust_remote_code: Whether Python code that comes with the model may be run, which can do anything that you can.
            A checkpoint does not remember it: each command that needs it has to say so.
        chat: Whether prompts are asked in a chat; ``auto`` does so where the tokenizer has a template for it.
        chat_settings: How a chat model is asked.
    """

    section, kind = "model", "searched"
    by_updates = single_epoch = adds_to_weights = True
    many_processes = False
    # Why no edit of a method can replace another, where that is so.
    unreplaceable: str | None = None
    layers_for: tuple[str | None, bool] = (None, True)
    weights_kind: type[EditedWeights] = EditedWeights
    memory: Memory = "normal"
    on_top_of: str | None = None
    own_answers: list[str | None] | None = None
    idle: frozenset[str] = frozenset()
    # Set by the command line: a trainer knows of the checkpoint of a test only after `setup`.
    measured_again = False

    def __init__(
        self,
        model: str,
        layers: Layers = "auto",
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008  (frozen; the default shows in --help)
        dtype: Precision = "auto",
        quantization: Quantization | None = None,
        write: Write = "merged",
        down_projection: str | None = None,
        sites: SiteKind = "auto",
        seed: Seed = 0,
        device_map: Annotated[DeviceMap | None, NO_EFFECT] = None,
        offload_folder: Annotated[str | None, NO_EFFECT] = None,
        trust_remote_code: bool = False,
        chat: bool | Literal["auto"] = "auto",
        chat_settings: ChatSettings = ChatSettings(),  # noqa: B008
    ) -> None:
        super().__init__()
        check_chat(chat, chat_settings)
        self.chat, self.chat_settings, self.trust_remote_code = chat, chat_settings, trust_remote_code
        self.model_name, self.down_projection, self.device_map = model, down_projection, device_map
        where = (device_map, offload_folder, trust_remote_code)
        self.source = ModelSource(model, dtype, *where, quantization, down_projection, sites, write == "beside")
        self.codes: Mapping[str, torch.nn.Module] = {}
        self.layers: list[int] = []
        self.seed, self.evaluation, self.strict_loading = seed, evaluation, False
        # Every process knows what all of them measured, so there is nothing to add up between them.
        self.metrics, self.way_metrics, self.wild = EditMetrics(sync_on_compute=False), WayMetrics(), WildMetrics()
        self.ripple_metrics = RippleMetrics(evaluation)
        self.model: Any = None
        self.update: ModelUpdate | None = None
        self.results: dict[str, dict[str, float]] = {}
        self.curves: list[dict[str, Any]] = []
        self.sections: dict[str, Any] = {}
        self.preserved: Mapping[World, Prompts] = {}
        self.identity = RunIdentity()
        self._checked = False

    # -- setting up ----------------------------------------------------------------------------------------------------

    @classmethod
    def named_kinds(cls) -> tuple[type, ...]:
        """The classes whose subclasses a checkpoint may name."""
        return MeasuredModule, Solver, Anchor, PostProcessor, Source

    def setup(self, stage: str) -> None:
        """Refuses a trainer, or an evaluation, that does not suit.

        Raises:
            EditError: See `check_trainer`, `check_edits` and `check_evaluation`.
        """
        self.check_trainer(self.trainer, stage == "fit")
        if not self._checked:
            self.check_edits()
        self.configure_model()
        if not self._checked:
            if self.chat:
                # As questions, edits may be alike that are not in plain text.
                self.check_edits()
            if not is_sharded(self.model):
                # Where Lightning would move it next; some models run on one kind of device only.
                self.to(self.trainer.strategy.root_device)
            self.check_model()
        if is_sharded(self.model):
            # Weights that are gathered in inference mode could not be used for gradients later.
            self.trainer.test_loop.inference_mode = False
        if not self._checked:
            check_evaluation(self.evaluation, self.requests, self.tokenizer, self.decoder.context)
            self.check_measures()
            self.check_requests()
            self._checked = True

    def check_model(self) -> None:
        """Refuses a model in which an edit would not do what was computed, found by running a few tokens.

        Raises:
            EditError: See `check_projections` and `check_quantized`.
        """
        check_quantized(self.decoder, self.layers)
        check_projections(self.decoder, self.layers)

    def check_edits(self) -> None:
        """Refuses edits that could be made or measured with no model, before one is loaded.

        Raises:
            EditError: If one replaces another and cannot, and see `check_records`.
        """
        if self.unreplaceable is not None and replaced_by(self.requests):
            raise EditError(self.unreplaceable)
        check_records(self.evaluation, self.requests)

    def check_requests(self) -> None:
        """Refuses edits that could not be made with this model, before anything expensive."""

    def check_trainer(self, trainer: Any, fit: bool) -> None:
        """Refuses a trainer that cannot edit; see `trainer_check.check_trainer`."""
        check_device_map(self.device_map, trainer.world_size)
        check_trainer(trainer, fit, self.single_epoch, self.many_processes)

    def configure_model(self) -> None:
        """Loads the model once, and refuses a layer or a model that cannot be edited."""
        if self.model is None:
            with self.timed("load"), read_once(self.model_name):
                self._load()
        if self._trainer is not None:
            self.trainer.datamodule.ask_questions(self.chat_settings if self.chat else None)

    def _load(self) -> None:
        if isinstance(layers := self.hparams.get("layers"), int | Sequence) and not isinstance(layers, str):
            check_stated_layers(self.model_name, layers, self.trust_remote_code)
        plain: Any = load_tokenizer(self.model_name, self.trust_remote_code)
        check_template(plain, self.chat, self.chat_settings)
        self.tokenizer = settle_chat(plain, self.chat, self.chat_settings)
        self.chat = self.tokenizer is not plain
        self.settle(chat=self.chat)
        self.settle_measures()
        mesh = self.device_mesh
        loaded = (
            Loaded(load_sharded(self.source, mesh.device_type))
            if mesh
            else load_editable(self.source, self.settle_layers)
        )
        self.model, self.codes = loaded.model, loaded.codes
        self.sections |= {} if loaded.maps is None else {"quantization": asdict(loaded.maps)}
        check_vocabulary(self.model, self.tokenizer)
        self.decoder = replace(self.source.find_decoder(self.model), memory=self.memory)
        self.layers = self.settle_layers(self.decoder) if loaded.layers is None else loaded.layers
        if isinstance(self.hparams.get("layers"), int | str):
            # One way to say it, by which runs are compared.
            self.settle(layers=blocks_of(self.decoder, self.layers))
        for module in (self.model.get_input_embeddings(), *map(self.decoder.down_projection, self.layers)):
            keep_in_memory(self.model, module)
        self.weights = self.loop.weights = self.weights_kind(self.decoder, self.layers)
        self.weights.sample = sample_of(self.model)
        if in_a_group() and not is_sharded(self.model):
            # DistributedDataParallel refuses a module without a trained parameter; nothing is ever done with this one.
            self.anchor = torch.nn.Parameter(torch.zeros(()))

    def settle_layers(self, decoder: Decoder) -> list[int]:
        """The edited places of a model, or of its modules without weights."""
        return settle_places(self.hparams.layers, decoder, *self.layers_for, maps=self.source.maps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MeasuredModule":
        """Moves or casts all but a model that is spread over devices, whose parts stay where they are."""
        if not is_offloaded(self.model):
            return super()._apply(fn, recurse)
        model = self._modules.pop("model")
        try:
            return super()._apply(fn, recurse)
        finally:
            self._modules["model"] = model

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The edited weights alone: a checkpoint keeps no others, and all would first be gathered for it."""
        layers, decoder = self.layers if self.model is not None else [], self.decoder
        return {f"model.{decoder.parameter_name(layer)}": decoder.parameter(layer).detach() for layer in layers}

    @property
    def levers(self) -> dict[str, float]:
        """Settings of the method by which it writes more or does less harm, see `RunFigures`."""
        return {}

    @property
    def positions_so_far(self) -> Sequence[int]:
        """The positions of the edits that the model has learned by now, those that wait for their update included."""
        return self.loop.queue.so_far(len(self.requests))

    @property
    def requests_so_far(self) -> Sequence[EditRequest]:
        """The edits that the model has learned by now, see `positions_so_far`."""
        return some_of(self.requests, self.positions_so_far)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Requests are texts; what the model needs of them is made on its device."""
        return batch

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the edited weights and where the run is; see `save_run`."""
        save_run(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from there, or measures it; see `load_run`."""
        load_run(self, checkpoint)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint and ``metrics.json`` hold beside the settings: the answers that the model was asked for."""
        return {} if self.own_answers is None else {"own_answers": self.own_answers}

    def restore(self, state: RunState, described: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written.

        Args:
            state: That of the run.
            described: What `describe` returned then.
        """
        self.own_answers = described.get("own_answers")
        self.loop.restore(state, self.requests)
        self.curves = list(state.curves)

    @abstractmethod
    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> Any:
        """Makes the edits of a batch, or takes them up for an update."""
