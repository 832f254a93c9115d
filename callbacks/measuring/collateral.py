"""What else the edits have changed, measured by default at the end of every run."""

from collections.abc import Sequence
from typing import Any

from lightning_edit.callbacks.measuring.scheduled import Scheduled, untouched
from lightning_edit.collateral import Asking, Budget, Reference, figures_of, lines_of, make_reference, worst
from lightning_edit.collateral.late_answers import with_late_answers
from lightning_edit.collateral.long_context import long_context
from lightning_edit.collateral.probe import GENERAL, REWORDED, Probe
from lightning_edit.collateral.reference import mark_of
from lightning_edit.collateral.routes import changed_routes
from lightning_edit.errors import EditError
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.settings import Count, CountOrZero, Seed
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.run_files import COLLATERAL
from lightning_edit.storage.run_folder import run_folder

NAME, ROUTES = "collateral", "routes_changed"


class Collateral(Scheduled):
    """Asks the model before the run and after it: general prompts, and probes made from the edits themselves.

    What the model said before is the reference, so nobody has to write anything. Figures are named
    ``collateral/general_worse`` and so on, see `lightning_edit.collateral`; all answers go to ``collateral.jsonl`` in
    the run's folder, figures and the worst changes to the section ``collateral`` of ``metrics.json``. Beside them is
    the perplexity of long rows of the general prompts and their answers, before and after, see `long_context`.

    Where each update starts from the unedited model there is no edited model in the end, and nothing is asked.

    Args:
        prompts: How many prompts are asked, 0 for none. None lets the number of edits decide: 20, and 6 more for each
            edit, at most 400, which takes at most about a fifth of a run's time.
        tokens: How many tokens an answer has at most.
        seed: Of the choice of edits and other subjects to ask about.
        every_n_updates: Ask after this many updates as well; None only before and after the run.
    """

    def __init__(
        self,
        prompts: CountOrZero | None = None,
        tokens: Count = 24,
        seed: Seed = 0,
        every_n_updates: Count | None = None,
    ) -> None:
        super().__init__(every_n_updates)
        self.prompts, self.tokens, self.seed = prompts, tokens, seed
        self._reference: Reference | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to ask."""
        return self.prompts != 0

    def check(self, trainer: Any, module: EditingRun) -> None:
        """Refuses answers that leave no room for a prompt.

        Raises:
            EditError: If no general prompt fits beside its answer.
        """
        asking = Asking(module.decoder, module.tokenizer, self.tokens, module.loop.before_run)
        if not any(asking.fits(asked.prompt) for asked in trainer.datamodule.sources().general):
            raise EditError(
                f"Collateral: `tokens`: answers of {self.tokens} tokens leave no room for any general prompt in the "
                f"model's context of {module.decoder.context} tokens. Lower `collateral.tokens`, or set "
                "`collateral.prompts: 0`."
            )

    def measure(self, trainer: Any, module: EditingRun) -> dict[str, float]:
        """Asks the model as it is now; the first time also as it was before the run."""
        how = (self.tokens, module.loop.before_run, module.report, module.layers)
        asking = Asking(module.decoder, module.tokenizer, *how)
        reference = self._of_run(trainer, module, asking)
        if not module.loop.edits_written + module.loop.queue.waiting:
            return {}
        probes = _due(reference.probes, module)
        general = [probe for probe in probes if probe.kind == GENERAL]
        room = [asking.room(probe) for probe in probes]
        asked = asking.now([probe.prompt for probe in probes], [probe.kind == GENERAL for probe in probes], room)
        asked = with_late_answers(probes, asked, asking)
        routes = changed_routes(asking, [probe.prompt for probe in general])
        behind = long_context(asking, general)
        figures = figures_of(probes, asked) | ({} if routes is None else {ROUTES: routes}) | behind
        module.sections[NAME] = {
            "figures": figures,
            "asked": {kind: sum(probe.kind == kind for probe in probes) for kind in reference.possible},
            "possible": reference.possible,
            "worst": worst(probes, asked),
        }
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self._write(trainer, lines_of(probes, asked))
        return {f"{NAME}/{name}": value for name, value in figures.items()}

    def _of_run(self, trainer: Any, module: EditingRun, asking: Asking) -> Reference:
        """The probes of the run with their answers before it, made once."""
        requests, data = trainer.datamodule.measured, trainer.datamodule
        budget = Budget.of_run(len(requests)) if self.prompts is None else Budget(self.prompts)
        mark = mark_of(requests, budget, self.tokens, self.seed)
        if self._reference is None or self._reference.made_for != mark:
            preserved = {p for named in module.preserved.values() for prompts in named.values() for p in prompts}
            self._reference = make_reference(requests, data.sources(), budget, asking, self.seed, preserved)
        return self._reference

    def _write(self, trainer: Any, lines: list[dict[str, Any]]) -> None:
        with atomic_path(run_folder(trainer) / COLLATERAL) as scratch:
            scratch.write_text("".join(to_json(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    def _measure(self, trainer: Any, module: EditingRun) -> None:
        if not module.loop.independent:
            super()._measure(trainer, module)

    # -- moments -------------------------------------------------------------------------------------------------------

    def on_edits_written(self, trainer: Any, pl_module: EditingRun) -> None:
        """Asks after the last update already, so that it can still be refused for what it did."""
        super().on_edits_written(trainer, pl_module)
        loop = pl_module.loop
        if loop.edits_written + len(loop.queue.left_out) >= len(pl_module.requests):
            self._measure(trainer, pl_module)

    def on_update_refused(self, trainer: Any, pl_module: EditingRun) -> None:
        """Forgets the model that was undone."""
        super().on_update_refused(trainer, pl_module)
        pl_module.sections.pop(NAME, None)

    def on_test_epoch_end(self, trainer: Any, pl_module: EditingRun) -> None:
        """Asks an edited model that was asked by another process, or not at all; others report what was found."""
        loop = pl_module.loop
        if self.active and loop.edits_written and NAME not in pl_module.sections and not loop.independent:
            with untouched(pl_module):
                self.measure(trainer, pl_module)

    # -- what a checkpoint keeps ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What was measured already, and what the model said before the run."""
        kept = None if self._reference is None else self._reference.packed()
        return {**super().state_dict(), "reference": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        super().load_state_dict(state_dict)
        kept = state_dict["reference"]
        self._reference = None if kept is None else Reference.unpacked(kept)


def _due(probes: Sequence[Probe], module: EditingRun) -> list[Probe]:
    """The probes without those that ask for edits which are not written yet."""
    so_far = module.requests_so_far
    asked = {probe.edit for probe in probes if probe.kind == REWORDED}
    written = asked.intersection(request.name for request in so_far)
    return [probe for probe in probes if probe.kind != REWORDED or not so_far or probe.edit in written]
