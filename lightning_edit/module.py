"""The LightningModule: when things happen in a run. What happens is in `editing`, `values` and `metrics`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.architectures import check_layers, find_decoder
from lightning_edit.context_templates import ContextTemplates, generate_templates
from lightning_edit.editing import EditedWeights, Editor, check_site, check_written
from lightning_edit.errors import EditError
from lightning_edit.fingerprint import fingerprint
from lightning_edit.layer_distribution import LayerDistribution
from lightning_edit.loading import Precision, load_model, load_tokenizer
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.plain_settings import plain
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.second_moment import SecondMomentSettings, check_solver, prepare_second_moments
from lightning_edit.solvers import EMMET, Solver
from lightning_edit.trainer_check import check_trainer
from lightning_edit.updates import ModelUpdate
from lightning_edit.value_settings import ValueSettings
from lightning_edit.values import Values, encode_texts


class EditingModule(LightningModule):
    """Edits facts in a language model: values in `training_step`, the least squares in `on_fit_end`, metrics in test.

    ``trainer.test`` before ``trainer.fit`` measures the unedited model, after it the edited one.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is the embedded one.
        layers: The layers to edit, the lowest block is 0.
        solver: Which member of the family writes the update.
        values: How value vectors are optimized.
        second_moment: How much ordinary text is used, and the cache.
        layer_distribution: How the residual is shared between several layers.
        context_templates: Texts with one ``{}`` each, the first bare; None lets the model write five from ``seed``.
        key_average: ``nested`` gives the bare prompt half of the mean key, ``flat`` gives all texts the same.
        edits_per_update: None writes all edits at the end of the fit; a number writes an update whenever so many edits
            have values, and later values are found on the model as it is then. A solver may allow fewer.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        down_projection: Name of the edited modules with ``{}`` for the layer, where they cannot be found by structure.
        seed: Of generated templates and texts.
    """

    def __init__(
        self,
        model: str,
        layers: list[int],
        solver: Solver | None = None,
        values: ValueSettings = ValueSettings(),  # noqa: B008  (frozen; the default shows in --help)
        second_moment: SecondMomentSettings = SecondMomentSettings(),  # noqa: B008
        layer_distribution: LayerDistribution = "uniform",
        context_templates: list[str] | None = None,
        key_average: Literal["nested", "flat"] = "nested",
        edits_per_update: int | None = None,
        dtype: Precision = "auto",
        down_projection: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if edits_per_update is not None and edits_per_update < 1:
            raise EditError(f"`edits_per_update` must be a positive number or null, got {edits_per_update}.")
        self.save_hyperparameters()
        self.model_name, self.dtype_name, self.down_projection = model, dtype, down_projection
        self.layers, self.seed, self.distribution = layers, seed, layer_distribution
        self.solver, self.value_settings, self.moment_settings = solver or EMMET(), values, second_moment
        self.key_average = key_average
        check_solver(self.solver)
        self.templates = None if context_templates is None else ContextTemplates(tuple(context_templates), key_average)
        limits = [n for n in (edits_per_update, self.solver.edits_per_update) if n is not None]
        self.edits_per_update = min(limits) if limits else None
        self.automatic_optimization = False
        self.strict_loading = False
        self.metrics = EditMetrics()
        self.model: Any = None
        self.editor: Editor | None = None
        self.update: ModelUpdate | None = None
        self.results: dict[str, dict[str, float]] = {}
        self.seconds = dict.fromkeys(("values", "second_moments", "solve", "evaluate"), 0.0)
        self.edits_written = 0
        self.left_out: list[str] = []
        self._pending: list[tuple[Sequence[EditRequest], Values]] = []
        self._passes = self._valued = self._measured = 0
        self._loaded_records: str | None = None

    # -- setting up ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuses a trainer that does not suit editing.

        Raises:
            EditError: See `check_trainer`.
        """
        check_trainer(self.trainer, fit=stage == "fit")

    def configure_model(self) -> None:
        """Loads the model once, and refuses a layer or a model that cannot be edited."""
        if self.model is not None:
            return
        self.tokenizer = load_tokenizer(self.model_name)
        self.model = load_model(self.model_name, self.dtype_name)
        self.decoder = find_decoder(self.model, self.down_projection)
        self.layers = check_layers(self.decoder, self.layers)
        check_site(self.decoder, self.layers, self.value_settings.site)
        self.weights = EditedWeights(self.decoder, self.layers)

    def configure_optimizers(self) -> None:
        """None: value vectors have an optimizer of their own, and no weight is trained."""

    def on_fit_start(self) -> None:
        """Prepares second moments and contexts, and refuses what would fail later."""
        if self.editor is not None:
            return
        requests = self.trainer.datamodule.requests
        if self.templates is None:
            self.templates = generate_templates(self.model, self.tokenizer, self.seed, self.key_average)
        encode_texts(self.tokenizer, requests, self.templates, self.value_settings.kl_prompt, self.decoder.context)
        with self._timed("second_moments"):
            texts = self.trainer.datamodule.preservation_texts()
            moments = prepare_second_moments(
                self.decoder,
                self.tokenizer,
                texts,
                self.layers,
                self.moment_settings,
                self.solver,
                self.seed,
                self.report,
            )
        self.editor = Editor(
            self.weights,
            self.tokenizer,
            self.solver,
            self.layers,
            self.templates,
            self.value_settings,
            moments,
            self.distribution,
        )

    # -- editing -------------------------------------------------------------------------------------------------------

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Requests are texts; what the model needs of them is made on its device."""
        return batch

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Finds the value vectors of a micro-batch of edits, and writes an update whenever one is complete."""
        assert self.editor is not None
        while batch:
            room = len(batch) if self.edits_per_update is None else self.edits_per_update - self._waiting
            part, batch = batch[:room], batch[room:]
            with self._timed("values"):
                values = self.editor.find_values(part, self.report)
            self._valued += len(part)
            self._log_values(values)
            self._keep(part, values)
            if self._waiting == self.edits_per_update:
                self._write()

    @property
    def _waiting(self) -> int:
        return sum(len(part) for part, _ in self._pending)

    def _keep(self, part: Sequence[EditRequest], values: Values) -> None:
        finite = values.finite.tolist()
        self.left_out += [request.name for request, ok in zip(part, finite, strict=True) if not ok]
        self._pending.append(([r for r, ok in zip(part, finite, strict=True) if ok], values.where(values.finite)))

    def _write(self) -> None:
        if not self._waiting:
            return
        assert self.editor is not None
        requests = [request for part, _ in self._pending for request in part]
        values = Values.join([values for _, values in self._pending])
        with self._timed("solve"):
            figures = self.editor.write(requests, values.z)
        self._pending.clear()
        self.edits_written += len(requests)
        self._log(figures, self.edits_written)

    def on_fit_end(self) -> None:
        """Writes what has values and no update yet, and keeps the whole update of the run."""
        # The strategy has moved the module to the CPU by now.
        self.to(self.trainer.strategy.root_device)
        assert self.editor is not None
        self._write()
        check_written(self.edits_written)
        self.update = self.weights.update(**self.editor.describe(), edits=self.edits_written)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def on_test_epoch_start(self) -> None:
        """Starts the metrics anew; what a checkpoint says of before holds only for the same records."""
        self.metrics.reset()
        self._measured = 0
        if self._loaded_records not in (None, self._records()):
            self.results.pop("before", None)
            rank_zero_warn("These are not the records of the checkpoint's run; its --config brings them back.")

    def test_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Measures the records of a batch on the model as it is."""
        with self._timed("evaluate"):
            evaluate(self.decoder, self.tokenizer, batch, self.metrics)
        self._measured += len(batch)
        stage = "evaluate edited (records)" if self.edits_written else "evaluate unedited (records)"
        self.report(stage, self._measured, len(self.trainer.datamodule.requests))

    def on_test_epoch_end(self) -> None:
        """Adds up the metrics, over processes too."""
        figures = {name: float(value) for name, value in self.metrics.compute().items()}
        self.results["after" if self.edits_written else "before"] = figures
        self.log_dict(figures, logger=False)
        self._log({f"edit/{name}": value for name, value in figures.items()}, self.edits_written)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the edited tensors only, and what tells whether they fit a model."""
        names = {f"model.{self.decoder.names[layer]}.weight" for layer in self.layers}
        checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name in names}
        # Objects would make the checkpoint unreadable for `weights_only`.
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            checkpoint[key] = plain(checkpoint.get(key, {}))
        checkpoint["edits"] = {
            "base": {str(layer): fingerprint(self.weights.base[layer]) for layer in self.layers},
            "edits_written": self.edits_written,
            "before": self.results.get("before"),
            "records": self._records(),
            "left_out": self.left_out,
            "context_templates": None if self.templates is None else list(self.templates.texts),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses edited tensors of another model.

        Raises:
            EditError: If the base weights differ from those that were edited.
        """
        edits = checkpoint.get("edits")
        if edits is None:
            raise EditError("The checkpoint holds no edits; give the edited.ckpt of a run.")
        for layer, base in edits["base"].items():
            if fingerprint(self.weights.base[int(layer)]) != base:
                raise EditError(
                    f"The checkpoint was made from other weights than layer {layer} of {self.model_name} holds. "
                    "Give the same `model` and `dtype` as in the run."
                )
        self.edits_written = edits["edits_written"]
        if edits["before"] is not None:
            self.results["before"] = edits["before"]
        self._loaded_records, self.left_out = edits["records"], edits["left_out"]

    def _records(self) -> str:
        return fingerprint(*(repr(request) for request in self.trainer.datamodule.requests))

    # -- showing -------------------------------------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """Where progress goes: the trainer's progress bar, where it can show stages."""
        show = getattr(self.trainer.progress_bar_callback, "report", silent)

        def log_and_show(stage: str, done: float, total: float, **figures: float) -> None:
            if "loss" in figures:
                self._passes += 1
                self._log({f"values/{name}": value for name, value in figures.items()}, self._passes)
            show(stage, done, total, **figures)

        return log_and_show

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def _log(self, figures: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(figures, step=step)

    def _log_values(self, values: Values) -> None:
        delta = (values.z - values.z0).norm(dim=1)
        per_edit = {
            "nll": values.nll,
            "kl": values.kl,
            "weight_decay": values.decay,
            "steps": values.steps.float(),
            "z0_norm": values.z0.norm(dim=1),
            "delta_norm": delta,
        }
        self._log({f"found/{name}": float(value.nanmean()) for name, value in per_edit.items()}, self._valued)
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and values.finite.any():
                for name, value in per_edit.items():
                    logger.experiment.add_histogram(f"found/{name}", value[values.finite], self._valued)
