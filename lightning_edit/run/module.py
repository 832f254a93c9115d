"""The LightningModule: when things happen in a run. What happens is in `editor`, `values` and `update_loop`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch

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
from lightning_edit.loop.value_finder import ValueFinder, silent_finder, value_caches
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.models.decoder import Memory
from lightning_edit.models.finding.sites import SiteKind
from lightning_edit.old_names import reads_old_names
from lightning_edit.progress import silent
from lightning_edit.requests import EditRequest, batches_of
from lightning_edit.run.combinations import (
    check_combinations,
    check_history,
    check_replaced,
    check_sites,
    check_tokens,
)
from lightning_edit.run.idle import idle_settings
from lightning_edit.run.learned_answers import find_answers
from lightning_edit.run.levers import levers_of
from lightning_edit.run.preparation import check_texts, check_warm_up, editor_of, templates_of, warm_up_run
from lightning_edit.run.preserved import check_files, find_preserved, note, run_second_moments
from lightning_edit.run.updating_module import UpdatingModule
from lightning_edit.run.value_figures import log_values, logged
from lightning_edit.settings import NO_EFFECT, Count, Layers, Seed
from lightning_edit.solvers import Anchor, PostProcessor, Solver
from lightning_edit.solvers.layer_distribution import LayerDistribution
from lightning_edit.storage.checkpoints.checkpoint_file import check_sound, edited_of
from lightning_edit.values.settings import ValueSettings, check_site, settle_site
from lightning_edit.values.vectors import Values


class EditingModule(UpdatingModule):
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
        on_top_of: A checkpoint of an earlier run on the same model, or that run's folder: its edits are in the weights
            from the start, and its C_p goes on. Context templates, keys and values are those of the model as it left
            it; the second moments are those of the unedited model.
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
        evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
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
        self.loop.value_caches = value_caches(values)
        published = self.solver.preserves_edits and not independent_updates if anchor is None else anchor.keeps_keys
        self.previous_keys = published if previous_keys is None else previous_keys
        given = [post_processing] if isinstance(post_processing, PostProcessor) else post_processing
        self.post_processing, self.on_top_of, self.update_anchor = given or [], on_top_of, anchor
        check_combinations(self, previous_keys, layers)
        self.idle = idle_settings(self)
        self.automatic_optimization = False

    # -- setting up ----------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Loads the model once, and refuses layers whose value could not be read."""
        super().configure_model()
        if is_searched(self.pairs_from):
            check_site(self.decoder, self.layers, self.value_settings.site, self.distribution)
        if self.templates is not None:
            self.templates = self._in_worlds(self.templates)
        # Whether a test is of a checkpoint, which holds the earlier edits, too, is not known yet.
        if self._trainer is None or self.trainer.state.fn != "test":
            self._build_upon()

    def _build_upon(self) -> None:
        if self.on_top_of is not None and not self.weights.added:
            self.loop.build_upon(self.on_top_of, self.model_name, self.previous_keys)

    def on_test_start(self) -> None:
        """Measures what the run builds upon; a checkpoint has been loaded by now, and needs no other run."""
        if self.trainer.ckpt_path is None:
            # What is read now is changed in the fit.
            with torch.inference_mode(False):
                self._build_upon()

    def _in_worlds(self, templates: ContextTemplates) -> ContextTemplates:
        return templates.in_worlds(self.chat_settings) if self.chat else templates

    def check_trainer(self, trainer: Any, fit: bool) -> None:
        """Also refuses files that a fit could not read."""
        super().check_trainer(trainer, fit)
        if fit:
            check_files(self.moment_settings)
            if self.on_top_of is not None:
                check_sound(edited_of(self.on_top_of, "model.on_top_of"), "model.on_top_of")

    def check_model(self) -> None:
        """Also settles where values are found, see `settle_site`, and refuses maps of which a source finds none."""
        super().check_model()
        check_sites(self)
        check_tokens(self)
        if is_searched(self.pairs_from):
            self.value_settings = settle_site(self.decoder, self.layers, self.value_settings)
        # What is measured again was written before, so the files of a source need not be there.
        if self.pairs_from is not None and not self.measured_again:
            self.pairs_from.check_places(self.decoder, self.layers, {})
            self.pairs_from.check_solver(self.solver)

    def check_edits(self) -> None:
        """Also refuses edits that replace others where they cannot, or lack what a search or a source needs.

        Raises:
            EditError: See `check_replaced`, `check_subjects` and `check_warm_up`.
        """
        super().check_edits()
        check_replaced(self)
        check_subjects(self.requests, self.pairs_from)
        check_warm_up(self)

    def check_requests(self) -> None:
        """Refuses prompts that do not fit the context; in their contexts they are checked once those are known.

        Raises:
            EditError: See `encode_texts`.
        """
        if self.pairs_from is None and self.loop.queue.size != 1:
            warn_of_shared_keys(batches_of(self.requests, self.loop.queue.size))
        check_texts(self, self._in_worlds(self.templates or ContextTemplates()))
        self.preserved = find_preserved(self)

    @property
    def levers(self) -> dict[str, float]:
        """Settings of the solver, the anchor and the search."""
        return levers_of(self)

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
            moments, text = run_second_moments(self)
        editor.moments, editor.output_moments = moments, moments.outputs
        with self.timed("values"):
            settle_norm(editor, self.requests, amounts[0], partial(silent_finder, caches=self.loop.value_caches))
        self.value_settings = editor.values
        self.loop.editor, self._values = editor, ValueFinder(editor, self.loop.value_caches)
        read = {} if self.pairs_from is None else self.pairs_from.fingerprints()
        note(self, {**self._values.fingerprints, **text, **read}, moments, self.solver.needs_second_moment)
        warm_up_run(self, editor)
        if not self.loop.kept.updates_written:
            self._keep()

    # -- the values of a micro-batch ---------------------------------------------------------------------------------

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

    # -- what a checkpoint keeps ---------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Also the context templates, which the model may have written itself, and the measured norm of values."""
        texts, norm = None if self.templates is None else list(self.templates.texts), self.value_settings.norm_anchor
        return super().describe() | {"context_templates": texts} | ({} if norm is None else {"norm_anchor": norm})

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
        super().restore(state, described)
