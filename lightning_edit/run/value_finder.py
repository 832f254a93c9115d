"""The values of edits: looked up or optimized, each process its share of them, and what the loggers get of it."""

from collections.abc import Callable, Sequence
from functools import partial

from lightning_edit.distributed.process_group import in_shares, is_sharded
from lightning_edit.editor import Editor
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.storage.cache import Cache
from lightning_edit.values.cache import cached_values, edited_part, value_parts
from lightning_edit.values.vectors import Values


class ValueFinder:
    """Finds value vectors with an editor, and keeps them in caches where there are any.

    Args:
        editor: Finds what is in no cache.
        caches: Where values are kept, by all that they depend on.
    """

    def __init__(self, editor: Editor, caches: Sequence[Cache]) -> None:
        self.editor, self.caches = editor, caches
        self._parts: dict[str, str] = {}
        if caches:
            decoder, tokenizer = editor.weights.decoder, editor.tokenizer
            with editor.weights.unedited():
                self._parts = value_parts(decoder, tokenizer, editor.templates, editor.value_layer, editor.values)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the unedited model and of the tokenizer, where they are known."""
        return {name: self._parts[name] for name in ("base weights and configuration", "tokenizer") if self._parts}

    def __call__(self, requests: Sequence[EditRequest], report: Report) -> Values:
        """The values of the edits on the model as it is now; all processes must ask for the same.

        Args:
            requests: The edits of a part of a run.
            report: Told about this process's share.

        Returns:
            The values of all of them, in their order, on the model's device.
        """
        decoder = self.editor.weights.decoder
        shares = in_shares(lambda own: self._own(own, report).to("cpu"), requests, decoder.model)
        return Values.join(shares).to(decoder.device)

    def _own(self, requests: Sequence[EditRequest], report: Report) -> Values:
        if not self.caches:
            return self.editor.find_values(requests, report)
        decoder = self.editor.weights.decoder
        with self.editor.searched():
            parts = self._parts | edited_part(decoder, self.editor.layers)
            return cached_values(
                self.caches,
                parts,
                requests,
                lambda own_report: self.editor.find_values(requests, own_report),
                report,
                decoder.device,
                is_sharded(decoder.model),
            )[0]


def silent_finder(editor: Editor, caches: Sequence[Cache]) -> Callable[[Sequence[EditRequest]], Values]:
    """Finds values with an editor, or in caches, and shows nothing.

    Args:
        editor: See `ValueFinder`.
        caches: See `ValueFinder`.
    """
    return partial(ValueFinder(editor, caches), report=silent)


def logged(module: EditingRun, edits: int) -> Report:
    """Progress of the values over the whole run, whose losses also go to the loggers.

    Args:
        module: The editing module under way; it counts the passes.
        edits: How many edits are under way, of which this process may have a share.
    """
    show, done_before, of_all = module.report, module.loop.queue.offered, len(module.requests)

    def log_and_show(stage: str, done: float, total: float, **figures: float) -> None:
        if "loss" in figures:
            module.loop.passes += 1
            module.log_figures({f"values/{name}": value for name, value in figures.items()}, module.loop.passes)
        show(stage, done_before + edits * done / max(total, 1), of_all, **figures)

    return log_and_show


def log_values(module: EditingRun, values: Values) -> None:
    """Means of what was found for a part of the edits, their histograms where there is a page for them, and the losses.

    Args:
        module: The editing module under way.
        values: Those of the part.
    """
    module.value_losses |= dict(enumerate(values.nll.tolist(), module.loop.queue.offered))
    step = module.loop.queue.offered + len(values)
    per_edit = {
        "nll": values.nll,
        "kl": values.kl,
        "weight_decay": values.decay,
        "steps": values.steps.float(),
        "z0_norm": values.z0.norm(dim=1),
        "delta_norm": (values.z - values.z0).norm(dim=1),
    }
    module.log_figures({f"value_search/{name}": float(value.nanmean()) for name, value in per_edit.items()}, step)
    if values.finite.any():
        finite = {f"value_search/{name}": value[values.finite] for name, value in per_edit.items()}
        # Distributions are drawn between two steps: those of the part's first and last edit.
        for place in sorted({module.loop.queue.offered + 1, step}):
            module.loggers_of_run.distributions(finite, place)
