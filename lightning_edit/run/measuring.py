"""What a module does in a test: it measures the edits' records on the model as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.asking.chat import ChatSettings
from lightning_edit.loop.same_run import RunIdentity
from lightning_edit.loop.update_loop import UpdateLoop
from lightning_edit.metrics import EditMetrics, EvaluationSettings, evaluate
from lightning_edit.metrics.ripples.measuring import RippleMetrics
from lightning_edit.metrics.ways import WayMetrics, ways_of
from lightning_edit.metrics.wild.kept import before_of
from lightning_edit.metrics.wild.measuring import WildMetrics
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, share_of
from lightning_edit.requests import EditRequest
from lightning_edit.run.showing import Showing
from lightning_edit.updates.edited_weights import EditedWeights


class Measuring(Showing):
    """A module whose test measures records; before any edit the figures are those of the model that the run found.

    Attributes:
        results: Figures under ``before`` and ``after``.
    """

    loop: UpdateLoop
    weights: EditedWeights
    decoder: Decoder
    tokenizer: Any
    evaluation: EvaluationSettings
    identity: RunIdentity
    metrics: EditMetrics
    chat_settings: ChatSettings
    way_metrics: WayMetrics
    wild: WildMetrics
    sections: dict[str, Any]
    ripple_metrics: RippleMetrics
    results: dict[str, dict[str, float]]
    _measured = 0

    @property
    def requests(self) -> Sequence[EditRequest]:
        """The edits of the run."""
        return self.trainer.datamodule.requests

    def settle_measures(self) -> None:
        """Settles what is measured beside the edits as they are asked, which the tokenizer decides too."""
        settings, asking = self.evaluation, self.chat_settings
        self.way_metrics = WayMetrics(ways_of(self.tokenizer, settings, asking))
        wild = settings.wild_settings if settings.wild else None
        self.wild = WildMetrics.of_run(self.tokenizer, wild, settings.judge, asking)

    def check_measures(self) -> None:
        """Refuses what could not be measured.

        Raises:
            EditError: See `WayMetrics.check`, `WildMetrics.check` and `RippleMetrics.check`.
        """
        self.way_metrics.check(self.requests, self.decoder.context)
        self.wild.check(self.requests, self.decoder.context)
        self.ripple_metrics.check(self.requests, self.tokenizer, self.decoder.context)

    def take_before(self, edits: Mapping[str, Any]) -> None:
        """Takes over what a checkpoint says of the unedited model, as far as it would be measured alike now.

        Args:
            edits: What the checkpoint says of its edits.
        """
        if edits["before"] is not None:
            figures, section = before_of(edits["before"], edits.get("wild"), self.wild.protocol)
            self.results["before"] = figures
            self.sections |= {"wild": section} if section else {}

    def on_test_epoch_start(self) -> None:
        """Starts the metrics anew; what a checkpoint says of before holds only for the same records."""
        self.metrics.reset()
        self.way_metrics.reset()
        self.wild.reset()
        self.ripple_metrics.reset()
        self._measured = 0
        if not self.identity.knows(self.requests):
            self.results.pop("before", None)
            self.sections.get("wild", {}).pop("before", None)
            rank_zero_warn("These are not the records of the checkpoint's run; its --config brings them back.")

    def test_step(self, batch: Sequence[EditRequest], batch_idx: int) -> dict[str, Any]:
        """Measures the records of a batch on the model as it is.

        Returns:
            Under ``records`` what `evaluate` says of each.
        """
        stage = f"evaluate {'edited' if self.loop.edits_written else 'unedited'} (records)"
        records: list[dict[str, Any]] = []
        for part in self.loop.written_together(batch):
            with self.timed("evaluate"), self.loop.as_edited(part):
                records += self._evaluate(part)
            self._measured += len(part)
        self.report(stage, self._measured, len(self.trainer.datamodule.measured))
        return {"records": records}

    def _evaluate(self, requests: Sequence[EditRequest]) -> list[dict[str, Any]]:
        # Not the base model: a run on top of another is compared with what it found.
        before_run, report = self.loop.before_run, self._report_part(requests)
        how = (self.metrics, self.evaluation, before_run, report)
        records = evaluate(self.decoder, self.tokenizer, requests, *how)
        self.way_metrics.measure(self.decoder, requests, records, report)
        before = before_run if self.loop.edits_written else None
        self.wild.measure(self.decoder, requests, records, before, report)
        made = self.loop.facts_with(requests)
        self.ripple_metrics.measure(self.decoder, self.tokenizer, requests, records, before, report, made)
        return records

    def _report_part(self, requests: Sequence[EditRequest]) -> Report:
        """Turns the passes of one evaluation into progress of the records."""
        bar = f"evaluate {'edited' if self.loop.edits_written else 'unedited'} (records)"
        passes = 1 + any(r.locality for r in requests) + 2 * self.evaluation.generate + self.evaluation.generated_match
        passes += len(self.way_metrics) + self.wild.passes(requests, bool(self.loop.edits_written))
        passes += self.ripple_metrics.passes(requests, bool(self.loop.edits_written))
        return share_of(self.report, bar, self._measured, len(requests), len(self.trainer.datamodule.measured), passes)

    def on_test_epoch_end(self) -> None:
        """Adds up the metrics."""
        figures = {name: float(n) for name, n in self.metrics.compute().items()}
        figures |= dict(self.way_metrics.compute()) | self.wild.compute() | self.ripple_metrics.compute()
        stage = "after" if self.loop.edits_written else "before"
        self.results[stage] = figures
        if section := self.wild.section(stage):
            self.sections["wild"] = self.sections.get("wild", {}) | section
        self.sections |= {"ripples": tests} if (tests := self.ripple_metrics.section()) else {}
        means = {name: value for name, value in figures.items() if not name.endswith(("_stderr", "_n"))}
        self.log_dict(means, logger=False)
        self.log_figures({f"edit/{name}": value for name, value in means.items()}, self.loop.edits_written)
