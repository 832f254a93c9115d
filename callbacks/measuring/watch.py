"""Monitors a run: a row of figures for each update, and a warning when the model degrades."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.callbacks.measuring.degradation import (
    Limits,
    WatchedText,
    refuse_without_answers,
    refuse_without_text,
)
from lightning_edit.callbacks.measuring.retention import Samples, valid_positions
from lightning_edit.callbacks.measuring.scheduled import SPREAD, untouched
from lightning_edit.callbacks.updates_csv import UpdatesCSV
from lightning_edit.collateral.levers import less_far
from lightning_edit.messages import counted
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.edit_metrics import figures_of
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import EditCallback, EditingRun
from lightning_edit.settings import Count, Range, Seed
from lightning_edit.storage.run_folder import run_folder

OnDegradation = Literal["warn", "stop"]
Limit = Annotated[float, Range(above=1)]
Share = Annotated[float, Range(at_least=0, at_most=1)]
FILE = "updates.csv"
COUNTS = ("update", "edits")
# More neighbors of an edit say little that is new, and would take most of the time.
NEIGHBORS = 2
# The names of figures in the table, by the names that metrics give them.
OF_NEW = {"efficacy_score": "efficacy_score", "efficacy_accuracy": "efficacy_accuracy"}
OF_EARLIER = {"efficacy_score": "retention_score", "efficacy_accuracy": "retention_accuracy"}
OF_OTHERS = {"neighborhood_score": "neighborhood_score", "locality_token_accuracy": "locality_token_accuracy"}


class Watch(EditCallback):
    """Measures the model after each update, and warns or stops when it degrades.

    A row of ``updates.csv`` in the run's folder, and ``update/...`` in the loggers, has: ``efficacy_score`` and
    ``efficacy_accuracy`` of the update's own edits; ``retention_score`` and ``retention_accuracy``, the same of edits
    of earlier updates, without those that a later one replaced; ``neighborhood_score`` (and
    ``locality_token_accuracy``) on at most two neighbors of each of these earlier edits, in the first update of its
    own; ``perplexity``; each of these with its standard error (``..._stderr``), for it is measured on a sample;
    ``seconds`` for values and solution, ``edits_per_second``, and ``seconds_to_go``, from the mean
    time of an edit so far, measurements and checkpoints included. The row also has each layer's norms, errors and
    condition numbers, which the module logs by itself, and what other callbacks measured at this number of edits.

    A run whose edits are all written in one update measures them after it anyway, independent updates are measured each
    on its own edits: for both the row has only what costs nothing. The limits hold for a single update as well, and so
    does what `Collateral` found of it, which measures after the last update (and after others, if it is told to); for
    independent updates, none of which is kept, there are none. In fine-tuning there is nothing to watch.

    Degradation shows first in the norm of an edited weight (ENCORE, arXiv 2502.01636): values optimized on a larger
    weight are larger themselves, so the growth feeds itself, up to a sudden collapse (arXiv 2602.02543). At
    |W| = 2 |W0|, the default limit, what was added is at least as large as all that the model had learned; on the
    embedded model that goes with 1.3 to 3 times the perplexity. Twice the perplexity, the other limit, is 0.7 nats less
    for every token of ordinary text.

    Args:
        every_n_updates: How often efficacy, retention, neighborhood and perplexity are measured; None for never. The
            other figures are reported for every update.
        sample: Largest number of edits measured, of the update and of all earlier ones; None for all.
        seed: Seed of the sample.
        perplexity_file: Ordinary text to measure perplexity on: a text file, or ``.jsonl`` with a field ``text``; None
            for none.
        perplexity_windows: How many windows of that text to measure, each as long as the model's context (at most 1024
            tokens).
        max_growth: The largest |W| / |W0| of an edited layer (Frobenius norms); None for no limit.
        max_perplexity_factor: The largest perplexity relative to the unedited model's; None for no limit.
        max_worse: The largest share of answers to general prompts that may change for the worse, from 0 to 1; None for
            no limit. It holds wherever `Collateral` has measured.
        on_degradation: What happens at a limit: ``warn``, once for each limit; or ``stop``, which undoes the update and
            ends the fit with the model from before it.
    """

    def __init__(
        self,
        every_n_updates: Count | None = 1,
        sample: Count | None = 50,
        seed: Seed = 0,
        perplexity_file: str | None = None,
        perplexity_windows: Count = 10,
        max_growth: Limit | None = 2.0,
        max_perplexity_factor: Limit | None = 2.0,
        max_worse: Share | None = 0.1,
        on_degradation: OnDegradation = "warn",
    ) -> None:
        self.every_n_updates, self.sample, self.seed = every_n_updates, sample, seed
        self._samples = Samples(seed)
        self.limits, self.on_degradation = Limits(max_growth, max_perplexity_factor, max_worse), on_degradation
        self.text = None if perplexity_file is None else WatchedText(perplexity_file, perplexity_windows)
        if self.text is None:
            refuse_without_text(self, perplexity_windows, max_perplexity_factor)
        self._table: UpdatesCSV | None = None
        self._prepared_for: Any = None
        self._loaded: dict[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        self._row: dict[str, float | int | None] = {}
        self._bar_is_open = False
        self._unedited: float | None = None
        self._warned: set[str] = set()
        self._spent, self._edits = 0.0, 0
        self._since: float | None = None

    # -- the run -------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: EditingRun, stage: str) -> None:
        """Reads the text whose perplexity is watched, before any editing.

        Raises:
            EditError: If it cannot be measured, or a limit is set on general answers, and nothing asks for them.
        """
        # The command line's test before a fit comes first; one of a checkpoint watches nothing.
        if pl_module.measured_again:
            return
        refuse_without_answers(self, trainer)
        if self.text is not None and self._prepared_for is not pl_module:
            pl_module.configure_model()
            self.text.prepare(pl_module)
            self._prepared_for = pl_module

    def on_fit_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Begins the table, or goes on with it where a checkpoint left it."""
        self._forget()
        state, self._loaded = self._loaded, {}
        self._table = UpdatesCSV(run_folder(trainer) / FILE, trainer.is_global_zero and not trainer.fast_dev_run)
        self._table.begin(state.get("columns", ()), state.get("rows", 0))
        if state:
            self._warned, self._spent, self._edits = set(state["warned"]), state["spent"], state["edits"]
            self._unedited = state["unedited"] if state["text"] == self._text_name else None

    def on_train_start(self, trainer: Any, pl_module: EditingRun) -> None:
        """Starts the clock."""
        self._since = time.perf_counter()

    def on_edits_written(self, trainer: Any, pl_module: EditingRun) -> None:
        """Measures the update, and decides whether it may stay."""
        last = pl_module.loop.last_update
        if last is None:  # fine-tuning makes no updates
            return
        self._row = {
            "update": last.number,
            "edits": pl_module.loop.edits_written,
            **dict.fromkeys(self._columns(pl_module)),
        }
        if self.every_n_updates is not None and last.number % self.every_n_updates == 0:
            with untouched(pl_module), pl_module.timed("watch"):
                self._row |= self._measure(pl_module, last.positions)
        self._row |= {"seconds": last.seconds, "edits_per_second": len(last.requests) / max(last.seconds, 1e-9)}
        self._row |= {"seconds_to_go": None, **last.figures}
        if not pl_module.loop.independent:
            self._judge(pl_module)

    def on_update_kept(self, trainer: Any, pl_module: EditingRun) -> None:
        """Writes the row, with what others have measured of this update, and shows how the run goes."""
        last = pl_module.loop.last_update
        if last is None or self._table is None:
            return
        done, of_all = pl_module.loop.edits_written + len(pl_module.loop.left_out), len(pl_module.requests)
        self._row["seconds_to_go"] = self._to_go(len(last.requests), max(0, of_all - done))
        own = {name: value for name, value in self._row.items() if name not in (*COUNTS, *last.figures)}
        self._row |= {name: value for name, value in _of_others(pl_module).items() if not name.endswith(SPREAD)}
        self._table.append(self._row)
        if trainer.is_global_zero:
            measured = {
                f"update/{name}": value
                for name, value in own.items()
                if value is not None and not name.endswith(SPREAD)
            }
            pl_module.log_figures(measured, pl_module.loop.edits_written)
        if _several_updates(pl_module):
            self._show(pl_module.report, done, of_all)

    def on_edits_done(self, trainer: Any, pl_module: EditingRun) -> None:
        """Ends the progress bar, also where the run was stopped."""
        if self._bar_is_open:
            self._show(pl_module.report, len(pl_module.requests), len(pl_module.requests))

    # -- what a checkpoint keeps ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """How far the table is, what was said already, and the time so far."""
        table = self._table
        return {
            "columns": [] if table is None else list(table.columns),
            "rows": 0 if table is None else table.rows,
            "warned": sorted(self._warned),
            "unedited": self._unedited,
            "text": self._text_name,
            "spent": self._spent,
            "edits": self._edits,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there, once the fit starts."""
        self._loaded = dict(state_dict)

    # -- one update ----------------------------------------------------------------------------------------------------

    @property
    def _text_name(self) -> list[Any]:
        return [] if self.text is None else [str(self.text.file), self.text.windows]

    def _reads(self, module: EditingRun) -> bool:
        """Whether perplexity is measured in this run."""
        return self.text is not None and self.every_n_updates is not None and not module.loop.independent

    def _columns(self, module: EditingRun) -> list[str]:
        """What is measured in this run, if not of every update."""
        facts = [*OF_NEW.values(), *OF_EARLIER.values(), "neighborhood_score"] if _several_updates(module) else []
        figures = [*facts, *(["perplexity"] if self._reads(module) else [])]
        return [column for name in figures for column in (name, f"{name}_stderr")]

    def _measure(self, module: EditingRun, new: Sequence[int]) -> dict[str, float | None]:
        figures: dict[str, float | None] = {}
        figures |= self._facts(module, new) if _several_updates(module) else {}
        if self._reads(module):
            assert self.text is not None
            if self._unedited is None:
                with module.weights.unedited():
                    self._unedited, _ = self.text.perplexity(module)
            figures["perplexity"], figures["perplexity_stderr"] = self.text.perplexity(module)
        return figures

    def _facts(self, module: EditingRun, of_update: Sequence[int]) -> dict[str, float]:
        """Efficacy, retention and neighborhood, in one pass over what they need of the prompts."""
        order = self._samples.among(module.requests)
        new = order.draw(of_update, self.sample)
        earlier = order.draw(valid_positions(module), self.sample, exclude=of_update)
        asked = [_lean(r, 0 if earlier else NEIGHBORS) for r in new] + [_lean(r) for r in earlier]
        records = evaluate(module.decoder, module.tokenizer, asked, EditMetrics(), TEACHER_FORCED)
        of_new, of_earlier = _means(records[: len(new)]), _means(records[len(new) :])
        figures = _renamed(of_new, OF_NEW) | _renamed(of_earlier, OF_EARLIER)
        return figures | _renamed(of_earlier if earlier else of_new, OF_OTHERS)

    def _judge(self, module: EditingRun) -> None:
        """Warns, or refuses the update, if a limit is exceeded."""
        exceeded = self.limits.exceeded({**_of_others(module), **self._row}, self._unedited)
        after = f"after {counted(module.loop.edits_written, 'edit')}"
        remedy = less_far(module.kind, module.levers)
        if exceeded and self.on_degradation == "stop":
            module.loop.refuse(f"{after} {'; '.join(exceeded.values())}. {remedy}")
            return
        for kind in sorted(exceeded.keys() - self._warned):
            self._warned.add(kind)
            rank_zero_warn(
                f"The model may be degrading: {after} {exceeded[kind]}. {remedy} "
                "`watch.on_degradation: stop` would end the run at this point and undo the update."
            )

    def _to_go(self, edits: int, left: int) -> float:
        now = time.perf_counter()
        self._spent += 0.0 if self._since is None else now - self._since
        self._since, self._edits = now, self._edits + edits
        return left * self._spent / self._edits

    def _show(self, report: Any, done: int, of_all: int) -> None:
        names = {"efficacy_score": "efficacy", "retention_score": "retention", "perplexity": "perplexity"}
        shown = {names[name]: value for name, value in self._row.items() if name in names and value is not None}
        self._bar_is_open = done < of_all
        report("updates (edits)", done, of_all, minutes_to_go=(self._row["seconds_to_go"] or 0) / 60, **shown)


def _several_updates(module: EditingRun) -> bool:
    """Whether updates follow each other; a single one is measured after the fit, separate ones each on its own."""
    size = module.loop.queue.size
    return size is not None and size < len(module.requests) and not module.loop.independent


def _of_others(module: EditingRun) -> dict[str, float]:
    """What other callbacks have measured of the model as it is now."""
    edits = module.loop.edits_written
    return {name: value for line in module.curves if line["edits"] == edits for name, value in line["figures"].items()}


def _lean(request: EditRequest, neighbors: int = NEIGHBORS) -> EditRequest:
    """The request with only what is measured here.

    Args:
        request: The edit.
        neighbors: How many neighbors, and unrelated prompts, it keeps.
    """
    return replace(
        request,
        paraphrase_prompts=(),
        attribute_prompts=(),
        neighborhood_prompts=request.neighborhood_prompts[:neighbors],
        locality=request.locality[:neighbors],
    )


def _renamed(figures: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Those of the figures that have a name in the table, each with its standard error, where it has one."""
    spread = {f"{name}_stderr": f"{shown}_stderr" for name, shown in names.items()}
    return {shown: figures[name] for name, shown in {**names, **spread}.items() if name in figures}


def _means(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    metrics = EditMetrics(sync_on_compute=False)
    for record in records:
        metrics.update(figures_of(record))
    return {name: float(value) for name, value in metrics.compute().items()} if records else {}
