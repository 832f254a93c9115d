"""CrispEdit: fine-tuning in the directions that ordinary text hardly feels, in updates one after the other."""

from collections.abc import Sequence
from typing import Any, Literal

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.errors import EditError
from lightning_edit.gradients.passes import check_backward
from lightning_edit.keys.layer_stats import SecondMomentSettings, ordinary_rows
from lightning_edit.keys.text_moments import text_moments
from lightning_edit.loading.weight_forms import Precision, Quantization, Write
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.sourced import waiting
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.finding.sites import SiteKind
from lightning_edit.requests import EditRequest
from lightning_edit.run.combinations import check_plain_text
from lightning_edit.run.learned_answers import find_answers
from lightning_edit.run.methods.fine_tuning import check_answers, check_trainable
from lightning_edit.run.methods.projected_training import ProjectedTraining, TrainingSettings
from lightning_edit.run.preserved import ReadTexts, note
from lightning_edit.run.updating_module import UpdatingModule
from lightning_edit.settings import Count, Layers, NotNegative, Positive, Seed, Share
from lightning_edit.values.vectors import Values


class CrispEdit(UpdatingModule):
    """CrispEdit: Adam on W for the NLL of the new targets, with gradients projected by two second moments of text.

    With A = E[k k^T] of the keys and B = E[g g^T] of the output gradients, a gradient loses its part along the pairs of
    eigenvectors of both whose products of eigenvalues have the share `energy` of their sum, before Adam sees it. In a
    sequence A and B are the means over the tokens of ordinary text and of all earlier edits, so that these are held as
    well. Each update is trained for itself, with an Adam of its own; `trainer.max_epochs` stays 1.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is an embedded one.
        layers: The layers to train, the lowest is 0; ``auto`` takes the one a quarter of the way up.
        lr: Learning rate of Adam.
        epochs: Most passes over the edits of an update.
        mini_batch: Edits of a step.
        energy: The share of the energy of A and B that is protected; lower lets more edits in, and preserves less.
        refresh: A and B of ordinary text are counted again once |dW| / |W| is above this.
        early_stop_loss: In nats a token; an update ends once an epoch's mean loss is below it, and a mini-batch below
            it makes no step.
        train_end: Whether the answer ends where the model is to stop, see `FineTuning`.
        second_moment: How much ordinary text is used for A and B, and the cache.
        edits_per_update: Null trains on all edits together; a number in updates of so many, one after the other.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        quantization: How all linear maps but the edited ones are quantized; null leaves them as the files have them.
        write: Where updates of a quantized model are kept: ``merged``, in plain matrices, or ``beside`` their codes.
        down_projection: Name of the trained modules with ``{}`` for the layer, where they cannot be found by structure.
        sites: What of a layer is trained: the ``shared`` expert, a ``dense`` MLP, or ``auto``.
        seed: Of the model's own text, where none is given.
        trust_remote_code: See `MeasuredModule`.
    """

    kind = "constrained"
    stages = ("second_moments", "training", "checkpoints")
    work = ("training",)
    unreplaceable = (
        "CrispEdit holds all earlier edits together, so none can replace another: set `data.conflicts` to keep_first."
    )

    def __init__(
        self,
        model: str,
        layers: Layers = "auto",
        lr: Positive = 5e-4,
        epochs: Count = 25,
        mini_batch: Count = 32,
        energy: Share = 0.99,
        refresh: Positive = 0.25,
        early_stop_loss: NotNegative = 0.01,
        train_end: bool = False,
        second_moment: SecondMomentSettings = SecondMomentSettings(),  # noqa: B008  (frozen; the default shows in --help)
        edits_per_update: Count | None = None,
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
        dtype: Precision = "auto",
        quantization: Quantization | None = None,
        write: Write = "merged",
        down_projection: str | None = None,
        sites: SiteKind = "auto",
        seed: Seed = 0,
        trust_remote_code: bool = False,
        chat: bool | Literal["auto"] = "auto",
        chat_settings: ChatSettings = ChatSettings(),  # noqa: B008
    ) -> None:
        weights, rest = (dtype, quantization, write, down_projection, sites), (trust_remote_code, chat, chat_settings)
        super().__init__(model, layers, evaluation, *weights, seed, None, None, *rest)
        self.save_hyperparameters(ignore="trust_remote_code")
        if not energy:
            raise EditError("`energy: 0` protects nothing, which is plain fine-tuning: raise it, or use FineTuning.")
        check_plain_text(second_moment)
        self.moment_settings, self.loop = second_moment, UpdateLoop(EditQueue(edits_per_update))
        ends = train_end or chat_settings.train_end
        self.how = TrainingSettings(lr, epochs, mini_batch, energy, refresh, early_stop_loss, ends)
        self.automatic_optimization = False

    def check_model(self) -> None:
        """Also refuses experts, layers to which no gradient comes back, and a precision that cannot be trained.

        Raises:
            EditError: Names the layer, and see `check_trainable`.
        """
        super().check_model()
        if experts := [layer for layer in self.layers if self.decoder.experts(layer)]:
            raise EditError(
                f"Layers {experts} have experts, each with directions of its own, for which CrispEdit is not made "
                "here. Set `model.sites` to shared or dense, or use `EditingModule` with `solver: OutputMEMIT`."
            )
        if not self.measured_again:
            check_trainable(self.decoder)
        check_backward(self.decoder, self.layers)

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context.

        Raises:
            EditError: See `check_answers`.
        """
        check_answers(self.decoder, self.tokenizer, self.requests, self.how.train_end)

    def on_fit_start(self) -> None:
        """Counts both second moments, on the unedited model."""
        if self.loop.editor is not None:
            return
        find_answers(self)
        settings, texts = self.moment_settings, ReadTexts(self.trainer.datamodule.preservation_texts())
        with self.timed("second_moments"), self.weights.unedited():
            how: Any = (self.layers, settings, self.seed, self.report)
            rows = ordinary_rows(self.decoder, self.tokenizer, texts.or_none, *how)
            moments = text_moments(self.decoder, rows, self.layers, settings.cache_dir, self.report, outputs=True)
        info: dict[str, Any] = {"model": self.model_name, "dtype": str(self.model.dtype).removeprefix("torch.")}
        info |= {"method": repr(self), "layers": self.layers}
        given = (self.weights, self.tokenizer, self.layers, self.how, rows, moments, info)
        self.loop.editor = ProjectedTraining(*given, anchored=self.loop.kept.anchored)
        note(self, texts.fingerprint(), moments)
        if not self.loop.kept.updates_written:
            self._keep()

    def _find_values(self, part: Sequence[EditRequest]) -> Values:
        """None: an update is trained when it is complete."""
        return waiting(len(part))
