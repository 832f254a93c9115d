"""The LightningModule: when things happen in a run. What happens is in `editing`, `values` and `metrics`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_edit.distributed.process_group import gathered
from lightning_edit.editor import Editor, batches_of, check_written
from lightning_edit.errors import EditError
from lightning_edit.keys.context_templates import ContextTemplates, generate_templates
from lightning_edit.keys.edit_keys import warn_of_shared_keys
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.loading import Precision
from lightning_edit.models.offloading import DeviceMap
from lightning_edit.old_names import reads_old_names
from lightning_edit.progress import silent
from lightning_edit.requests import EditRequest, replaced_by
from lightning_edit.run.edit_callback import tell
from lightning_edit.run.edit_queue import EditQueue
from lightning_edit.run.same_run import earlier_edits
from lightning_edit.run.value_finder import ValueFinder
from lightning_edit.run.value_log import log_values, logged
from lightning_edit.run.writing_module import WritingModule
from lightning_edit.settings import NO_EFFECT, Count, CountOrZero, Seed
from lightning_edit.solvers import EMMET, PostProcessor, Solver
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.values.optimize import encode_texts
from lightning_edit.values.search import Values
from lightning_edit.values.settings import ValueSettings, check_site, settle_site


class EditingModule(WritingModule):
    """Edits facts in a language model: values in `training_step`, the least squares in `on_fit_end`, metrics in test.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is the embedded one.
        layers: The layers whose MLP down-projection is edited, the lowest block is 0.
        solver: Which member of the family writes the update: EMMET, MEMIT, ROME, RROME or AlphaEdit.
        values: How value vectors are optimized.
        second_moment: How much ordinary text is used, and the cache.
        layer_distribution: How several layers share the residual: ``uniform``, ``sqrt``, ``last`` (one takes all) or
            ``first_last``.
        context_templates: Texts with one ``{}`` each, the first bare; null lets the model write five from ``seed``.
        key_average: ``nested`` gives the bare prompt half of the mean key, ``flat`` gives all texts the same.
        edits_per_update: Null writes all edits at the end of the fit; a number writes an update whenever so many edits
            have values, and later values are found on the model as it is then. A solver may allow fewer.
        independent_updates: Whether each update starts from the unedited model and is measured on its own edits, as in
            the papers' tables over batch sizes; such a run has figures and leaves no edited model.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        down_projection: Name of the edited modules with ``{}`` for the layer, where they cannot be found by structure.
        previous_keys: Whether each update also preserves what earlier ones wrote, by adding C_p, the sum of k k^T over
            their keys, to C' (sequential MEMIT, ENCORE); null does as the solver was published (AlphaEdit does).
        post_processing: What becomes of each update before it is added to the weights: RECT, PRUNE, or a list of them.
        on_top_of: A checkpoint of an earlier run on the same model: its edits are in the weights from the start, and
            its C_p goes on. Context templates, keys and values are those of the model as it left it; the second
            moments are those of the unedited model.
        seed: Of generated templates and texts.
    """

    @reads_old_names
    def __init__(
        self,
        model: str,
        layers: list[CountOrZero] | CountOrZero,
        solver: Solver | None = None,
        values: ValueSettings = ValueSettings(),  # noqa: B008  (frozen; the default shows in --help)
        second_moment: SecondMomentSettings = SecondMomentSettings(),  # noqa: B008
        layer_distribution: LayerDistribution = "uniform",
        context_templates: list[str] | None = None,
        key_average: Literal["nested", "flat"] = "nested",
        edits_per_update: Count | None = None,
        independent_updates: bool = False,
        evaluation: Annotated[EvaluationSettings, NO_EFFECT] = EvaluationSettings(),  # noqa: B008
        dtype: Precision = "auto",
        down_projection: str | None = None,
        previous_keys: bool | None = None,
        post_processing: PostProcessor | list[PostProcessor] | None = None,
        on_top_of: str | None = None,
        seed: Seed = 0,
        device_map: Annotated[DeviceMap | None, NO_EFFECT] = None,
        offload_folder: Annotated[str | None, NO_EFFECT] = None,
        trust_remote_code: bool = False,
    ) -> None:
        places = (device_map, offload_folder)
        super().__init__(model, layers, evaluation, dtype, down_projection, seed, *places, trust_remote_code)
        self.save_hyperparameters(ignore="trust_remote_code")
        self.distribution, self.key_average = layer_distribution, key_average
        self.solver, self.value_settings, self.moment_settings = solver or EMMET(), values, second_moment
        self.templates = None if context_templates is None else ContextTemplates(tuple(context_templates), key_average)
        limits = [n for n in (edits_per_update, self.solver.edits_per_update) if n is not None]
        self.edits_per_update = min(limits) if limits else None
        self.independent = independent_updates
        published = self.solver.preserves_edits and not independent_updates
        self.previous_keys = published if previous_keys is None else previous_keys
        given = [post_processing] if isinstance(post_processing, PostProcessor) else post_processing
        self.post_processing, self.on_top_of = given or [], on_top_of
        self._check_settings(bool(previous_keys))
        self.automatic_optimization = False
        self.queue = EditQueue(self.edits_per_update, together=self.independent)
        self.value_caches = [] if values.cache_dir is None else [Cache(values.cache_dir)]
        self._next = 0

    def _check_settings(self, previous_keys: bool) -> None:
        if self.independent and (previous_keys or self.on_top_of):
            wrong = "`previous_keys`" if previous_keys else "`on_top_of`"
            raise EditError(
                f"{wrong}: with `independent_updates` no update knows the earlier ones. Give one of the two."
            )
        if previous_keys and self.edits_per_update is None and not self.on_top_of:
            raise EditError(
                "`previous_keys` preserves earlier updates, but all edits are written in one: set `edits_per_update`."
            )

    # -- setting up ----------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Loads the model once, and refuses layers whose value could not be read."""
        super().configure_model()
        check_site(self.decoder, self.layers, self.value_settings.site)
        if self.on_top_of is not None and not self.weights.added:
            self.kept, earlier = earlier_edits(self.on_top_of, self.weights, self.model_name, self.previous_keys)
            self.earlier_histories += earlier
            self.weights.set(self.kept.added)

    def check_model(self) -> None:
        """Also settles where values are found, see `settle_site`."""
        super().check_model()
        self.value_settings = settle_site(self.decoder, self.layers, self.value_settings)

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context; in their contexts they are checked once those are known.

        Raises:
            EditError: See `encode_texts`.
        """
        if self.independent and replaced_by(self.requests):
            raise EditError(
                "With `independent_updates` no edit can replace another: set `data.conflicts` to keep_first."
            )
        warn_of_shared_keys(batches_of(self.requests, self.edits_per_update))
        templates = self.templates or ContextTemplates()
        encode_texts(self.tokenizer, self.requests, templates, self.value_settings.kl_prompt, self.decoder.context)

    def configure_optimizers(self) -> None:
        """None: value vectors have an optimizer of their own, and no weight is trained."""

    def on_fit_start(self) -> None:
        """Prepares second moments and contexts, and refuses what would fail later."""
        if self.editor is not None:
            return
        if self.templates is None:
            own = generate_templates(self.model, self.tokenizer, self.seed, self.key_average)
            # Unlike machines may write other texts.
            self.templates = gathered(own)[0]
        encode_texts(self.tokenizer, self.requests, self.templates, self.value_settings.kl_prompt, self.decoder.context)
        with self.timed("second_moments"), self.weights.unedited():
            moments = prepare_second_moments(
                self.decoder,
                self.tokenizer,
                self.trainer.datamodule.preservation_texts(),
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
            self.post_processing,
            self.kept.previous_keys if self.previous_keys else None,
        )
        if self.previous_keys and replaced_by(self.requests) and self.history is None:
            raise EditError(
                "An edit that replaces an earlier one needs its key, which EditCheckpoint keeps: add that callback, "
                "with `history: true`, or set `data.conflicts` to keep_first."
            )
        self._values = ValueFinder(self.editor, self.value_caches)
        of_moments = {f"second moment of layer {layer}": fingerprint(moment) for layer, moment in moments.items()}
        self.note_fingerprints({**self._values.fingerprints, **of_moments})
        if not self.kept.updates_written:
            self._keep_state()

    # -- editing -------------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Begins with the first edit; those that a resumed run has done are passed over in `training_step`."""
        self._next = 0

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Finds the value vectors of a micro-batch of edits, and writes an update whenever one is complete."""
        start, self._next = self._next, self._next + len(batch)
        if batch_idx < self.micro_batches:
            return
        while self.stopped is None and (part := self.queue.part(batch, start)):
            values = self._find_values(part)
            for _ in self.queue.add(values):
                self._write()
                if self.stopped is not None:
                    return
        self.micro_batches += 1
        tell(self, "on_values_found")

    def _find_values(self, part: Sequence[EditRequest]) -> Values:
        """The values of a part; what was logged of it before a stop is not told again."""
        told = self.queue.taken > 0
        with self.timed("values"):
            values = self._values(part, silent if told else logged(self, len(part)))
        if not told:
            log_values(self, values)
        return values

    def _tell_of_edits_left(self) -> None:
        """Says so where the trainer ended the fit before all edits had their turn, e.g. at its `max_time`.

        Raises:
            EditError: If none had.
        """
        left = len(self.requests) - self.queue.offered - self.queue.taken
        if left <= 0 or self.stopped is not None or self.trainer.received_sigterm:
            return
        ended = f"The trainer ended the fit before {left} of {len(self.requests)} edits had their turn"
        if not self.edits_written:
            raise EditError(f"{ended}, so nothing is edited. Raise or leave out `trainer.max_time`.")
        rank_zero_warn(f"{ended}; the others are made. Raise or leave out `trainer.max_time` to make all.")

    def on_fit_end(self) -> None:
        """Writes what has values and no update yet, and keeps the whole update of the run."""
        # The strategy has moved the module to the CPU by now.
        self.to(self.trainer.strategy.root_device)
        assert self.editor is not None
        if self.edits_waiting and self.stopped is None:
            self._write()
        self._tell_of_edits_left()
        check_written(self.edits_written, self.stopped)
        if not self.kept.finished and not self.independent:
            self.last_update = self._finish()
        self._keep_state(finished=True)
        if not self.independent:
            self.update = self.weights.update(**self.editor.describe(), edits=self.edits_written)
        tell(self, "on_edits_done")
        if self.trainer.received_sigterm:
            # No loop runs any more that would look at it.
            raise SIGTERMException
