"""The LightningModule: when things happen in a run. What happens is in `editor`, `values` and `update_loop`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.gradients.source import Source
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.edit_keys import warn_of_shared_keys
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.loading.offloading import DeviceMap
from lightning_edit.loading.weight_forms import Precision, Quantization, Write
from lightning_edit.loop.edit_queue import EditQueue
from lightning_edit.loop.memory import announce
from lightning_edit.loop.norm_anchor import settle_norm
from lightning_edit.loop.run_state import RunState
from lightning_edit.loop.sourced import check_subjects, is_searched, usual_solver, waiting
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.decoder import Memory
from lightning_edit.models.sites import SiteKind
from lightning_edit.old_names import reads_old_names
from lightning_edit.progress import silent
from lightning_edit.requests import EditRequest, batches_of
from lightning_edit.run.combinations import check_combinations, check_history, check_replaced, check_sites
from lightning_edit.run.early_end import edits_left
from lightning_edit.run.edit_callback import call_hooks
from lightning_edit.run.learned_answers import find_answers
from lightning_edit.run.measured_module import MeasuredModule
from lightning_edit.run.preparation import check_texts, editor_of, templates_of, warm_up_run
from lightning_edit.run.preserved import check_files, find_preserved, noted, run_second_moments
from lightning_edit.run.value_finder import ValueFinder, log_values, logged, silent_finder
from lightning_edit.settings import NO_EFFECT, Count, Layers, Seed
from lightning_edit.solvers import Anchor, PostProcessor, Solver
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.storage.cache import Cache
from lightning_edit.updates.written import check_written
from lightning_edit.values.settings import ValueSettings, check_site, settle_site
from lightning_edit.values.vectors import Values


class EditingModule(MeasuredModule):
    """Edits facts in a language model: values in `training_step`, the least squares in `on_fit_end`, metrics in test.

    Args:
        model: A folder or hub name of a decoder-only transformers model; ``tiny`` is an embedded one,
            ``tiny-moe`` another, with experts.
        layers: The layers whose MLP down-projection is edited, the lowest is 0; ``auto`` takes a preset's or guesses.
        solver: Which member of the family writes the update: EMMET, MEMIT, ROME, RROME or AlphaEdit.
        values: How value vectors are optimized.
        second_moment: How much ordinary text is used, and the cache.
        layer_distribution: How layers share the residual: ``uniform``, ``sqrt``, ``last`` (gets all), ``first_last`` or
            ``replay`` (each has its own).
        context_templates: Texts with one ``{}`` each, the first bare; null lets the model write five from ``seed``.
        key_average: ``nested`` gives the bare prompt half of the mean key, ``flat`` gives all texts the same.
        edits_per_update: Null writes all edits at the end of the fit; a number writes an update whenever so many edits
            have values, and later values are found on the model as it is then. A solver may allow fewer.
        independent_updates: Whether each update starts from the unedited model and is measured on its own edits, as in
            the papers' tables over batch sizes; such a run has figures and leaves no edited model.
        evaluation: What is measured beyond teacher-forced answers.
        dtype: Precision of the weights; ``auto`` keeps that of the file.
        previous_keys: Whether each update also preserves what earlier ones wrote, by adding C_p, the sum of k k^T over
            their keys, to C' (sequential MEMIT, ENCORE); null does as the solver was published (AlphaEdit does).
        post_processing: What becomes of each update before it is written: RECT, PRUNE, SPHERE, REVIVE, or a list.
        anchor: What holds updates of a sequence to what came before: LyapLock, SimIE, or EvoEdit; null for nothing.
        on_top_of: A checkpoint of an earlier run on the same model: its edits are in the weights from the start, and
            its C_p goes on. Context templates, keys and values are those of the model as it left it; the second
            moments are those of the unedited model.
        source: Where values come from: null searches at subjects, `Windows` before each window of a long answer, and
            `Gradient` takes them from gradients.
        seed: Of generated templates and texts.
    """

    many_processes = True
    stages = ("values", "second_moments", "solve", "checkpoints")

    @reads_old_names
    def __init__(
        self,
        model: str,
        layers: Layers = "auto",
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
        quantization: Quantization | None = None,
        write: Write = "merged",
        down_projection: str | None = None,
        sites: SiteKind = "auto",
        previous_keys: bool | None = None,
        post_processing: PostProcessor | list[PostProcessor] | None = None,
        anchor: Anchor | None = None,
        on_top_of: str | None = None,
        seed: Seed = 0,
        device_map: Annotated[DeviceMap | None, NO_EFFECT] = None,
        offload_folder: Annotated[str | None, NO_EFFECT] = None,
        memory: Annotated[Memory, NO_EFFECT] = "normal",
        trust_remote_code: bool = False,
        chat: bool | Literal["auto"] = "auto",
        chat_settings: ChatSettings = ChatSettings(),  # noqa: B008
        source: Source | None = None,
    ) -> None:
        weights, rest = (dtype, quantization, write, down_projection, sites), (trust_remote_code, chat, chat_settings)
        super().__init__(model, layers, evaluation, *weights, seed, device_map, offload_folder, *rest)
        self.save_hyperparameters(ignore="trust_remote_code")
        self.memory, self.distribution, self.key_average = memory, layer_distribution, key_average
        self.pairs_from, self.kind = source, "searched" if is_searched(source) else "differentiated"
        self.source = replace(self.source, maps=() if source is None else tuple(source.maps))
        self.solver, self.value_settings, self.moment_settings = solver or usual_solver(source), values, second_moment
        self.layers_for = type(self.solver).__name__, values.site == "block"
        self.templates = None if context_templates is None else ContextTemplates(tuple(context_templates), key_average)
        limits = [n for n in (edits_per_update, self.solver.edits_per_update) if n is not None]
        together = independent_updates or values.weights == "unedited"
        self.loop = UpdateLoop(EditQueue(min(limits, default=None), together), independent_updates)
        self.loop.value_caches = [] if values.cache_dir is None else [Cache(values.cache_dir)]
        published = self.solver.preserves_edits and not independent_updates if anchor is None else anchor.keeps_keys
        self.previous_keys = published if previous_keys is None else previous_keys
        given = [post_processing] if isinstance(post_processing, PostProcessor) else post_processing
        self.post_processing, self.on_top_of, self.update_anchor = given or [], on_top_of, anchor
        check_combinations(self, previous_keys, layers)
        self.automatic_optimization, self._next = False, 0

    # -- setting up ----------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Loads the model once, and refuses layers whose value could not be read."""
        super().configure_model()
        if is_searched(self.pairs_from):
            check_site(self.decoder, self.layers, self.value_settings.site, self.distribution)
        if self.templates is not None:
            self.templates = self._in_worlds(self.templates)
        if self.on_top_of is not None and not self.weights.added:
            self.loop.build_upon(self.on_top_of, self.model_name, self.previous_keys)

    def _in_worlds(self, templates: ContextTemplates) -> ContextTemplates:
        return templates.in_worlds(self.chat_settings) if self.chat else templates

    def check_trainer(self, trainer: Any, fit: bool) -> None:
        """Also refuses files that a fit could not read."""
        super().check_trainer(trainer, fit)
        if fit:
            check_files(self.moment_settings)

    def check_model(self) -> None:
        """Also settles where values are found, see `settle_site`, and refuses maps of which a source finds none."""
        super().check_model()
        check_sites(self)
        if is_searched(self.pairs_from):
            self.value_settings = settle_site(self.decoder, self.layers, self.value_settings)
        if self.pairs_from is not None:
            self.pairs_from.check_places(self.decoder, self.layers, {})

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context; in their contexts they are checked once those are known.

        Raises:
            EditError: See `encode_texts`.
        """
        check_replaced(self)
        check_subjects(self.requests, self.pairs_from)
        if self.pairs_from is None:
            warn_of_shared_keys(batches_of(self.requests, self.loop.queue.size))
        check_texts(self, self._in_worlds(self.templates or ContextTemplates()))
        self.preserved = find_preserved(self)

    def configure_optimizers(self) -> None:
        """None: value vectors have an optimizer of their own, and no weight is trained."""

    # -- the fit begins ------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Prepares contexts, second moments and the editor, and refuses what would fail later."""
        if self.loop.editor is not None:
            return
        check_history(self)
        find_answers(self)
        self.templates = self.templates or self._in_worlds(templates_of(self))
        check_texts(self, self.templates)
        editor = editor_of(self, self.templates)
        amounts = (self.trainer.datamodule.batch_size, self.loop.queue.size, "data.batch_size")
        self.sections["memory"] = vars(announce(editor, self.requests, *amounts, self.trainer.is_global_zero))
        with self.timed("second_moments"), self.weights.unedited():
            moments = run_second_moments(self)
        editor.moments, editor.output_moments = moments, moments.outputs
        with self.timed("values"):
            settle_norm(editor, self.requests, amounts[0], partial(silent_finder, caches=self.loop.value_caches))
        self.value_settings = editor.values
        self.loop.editor, self._values = editor, ValueFinder(editor, self.loop.value_caches)
        self.identity.note({**self._values.fingerprints, **noted(moments, self.solver)})
        warm_up_run(self, editor)
        if not self.loop.kept.updates_written:
            self._keep()

    # -- micro-batch by micro-batch ------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Begins with the first edit; those that a resumed run has done are passed over in `training_step`."""
        self._next = 0

    def training_step(self, batch: Sequence[EditRequest], batch_idx: int) -> None:
        """Finds the value vectors of a micro-batch of edits, and writes an update whenever one is complete."""
        start, self._next = self._next, self._next + len(batch)
        if batch_idx < self.loop.micro_batches:
            return
        queue = self.loop.queue
        while self.loop.stopped is None and (part := queue.part(batch, start)):
            for _ in queue.add(self._find_values(part)):
                self._write_update()
                if self.loop.stopped is not None:
                    return
        self.loop.micro_batches += 1
        call_hooks(self, "on_values_found")

    def _find_values(self, part: Sequence[EditRequest]) -> Values:
        """The values of a part; what was logged of it before a run was stopped is not logged again."""
        if self.pairs_from is not None:
            return waiting(len(part))
        logged_before = self.loop.queue.taken > 0
        with self.timed("values"):
            values = self._values(part, silent if logged_before else logged(self, len(part)))
        if not logged_before:
            log_values(self, values)
        return values

    # -- update by update ----------------------------------------------------------------------------------------------

    def _write_update(self) -> None:
        """Writes the edits that wait as one update, lets callbacks look at it, and keeps it unless one refuses."""
        with self.timed("solve"):
            update = self.loop.write(self.requests, self.report)
        for name, share in (("values", 1), ("solve", -1)):
            self.seconds[name] += share * update.written.values_seconds
        spent = sum(self.seconds[name] - self.loop.kept.seconds.get(name, 0.0) for name in ("values", "solve"))
        self.loop.last_update = replace(update, seconds=spent)
        self.log_figures(update.figures, self.loop.edits_written)
        call_hooks(self, "on_edits_written")
        # What one process found fault with, the others may have seen a last bit differently.
        self.loop.stopped = self.trainer.strategy.broadcast(self.loop.stopped)
        if self.loop.stopped is not None:
            self._undo_update(self.loop.stopped)
            return
        self.loop.set_aside()
        self._keep()
        call_hooks(self, "on_update_kept")

    def _undo_update(self, reason: str) -> None:
        rank_zero_warn(f"The last update is undone and the run ends with the model from before it: {reason}")
        self.loop.undo()
        self.curves = list(self.loop.kept.curves)
        self.trainer.should_stop = True
        call_hooks(self, "on_update_refused")

    def _keep(self, finished: bool = False) -> None:
        self.loop.keep(self.requests, self.seconds, self.curves, finished)

    # -- the fit ends --------------------------------------------------------------------------------------------------

    def on_fit_end(self) -> None:
        """Writes what has values and no update yet, and keeps the whole update of the run."""
        # The strategy has moved the module to the CPU by now.
        self.to(self.trainer.strategy.root_device)
        loop = self.loop
        assert loop.editor is not None
        if loop.queue.waiting and loop.stopped is None:
            self._write_update()
        left = edits_left(self)
        check_written(loop.edits_written, loop.stopped)
        if not (left or loop.kept.finished or loop.independent):
            loop.finish()
        self._keep(finished=not left)
        if not loop.independent:
            self.update = self.weights.update(**loop.editor.describe(), edits=loop.edits_written)
        call_hooks(self, "on_edits_done")
        if self.trainer.received_sigterm:
            # No loop runs any more that would look at it.
            raise SIGTERMException

    # -- what a checkpoint keeps ---------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Context templates and answers, which the model may have written itself, and the measured norm of values."""
        texts, norm = None if self.templates is None else list(self.templates.texts), self.value_settings.norm_anchor
        found = {"norm_anchor": norm, "own_answers": self.own_answers}
        return {"context_templates": texts} | {name: value for name, value in found.items() if value is not None}

    def restore(self, state: RunState, described: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written, with its context templates.

        Args:
            state: That of the run.
            described: What `describe` returned then.
        """
        if described["context_templates"] is not None:
            self.templates = self._in_worlds(ContextTemplates(tuple(described["context_templates"]), self.key_average))
        norm = described.get("norm_anchor", self.value_settings.norm_anchor)
        self.value_settings = replace(self.value_settings, norm_anchor=norm)
        self.own_answers = described.get("own_answers")
        super().restore(state, described)
