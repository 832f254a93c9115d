"""The pass over ordinary text: every batch goes through the model once, and all edited layers' keys are counted."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_edit.distributed.process_group import Together, gathered, is_sharded, own_share, sharing, summed
from lightning_edit.keys.expert_moment import ExpertMoment, Moment, empty_moment
from lightning_edit.models.batches import by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.finding.places import keys_captured
from lightning_edit.models.finding.sites import SiteKeys, by_token
from lightning_edit.models.hooks import frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.progress import Report, silent
from lightning_edit.storage.cache import Cache, delete
from lightning_edit.storage.fingerprint import fingerprint

logger = logging.getLogger(__name__)

# A CPU is fastest with what its caches hold.
MAX_TOKENS, MAX_TOKENS_CPU = 8192, 2048
KEEP_SECONDS = 300.0
KIND = "second-moment-part"
POOR = (
    "Layer %d: %d of %d experts were visited by fewer of the %d tokens than their keys have dimensions (%d); their "
    "second moments are mostly the average of all experts. Raise `second_moment.tokens` for better ones."
)


class PartialSums:
    """The sums over the first batches of a pass, kept from time to time so that a pass that is killed can go on.

    Args:
        cache: Where they are kept.
        name: Fingerprint of all that the sums depend on.
        described: What they are made from, for people.
    """

    def __init__(self, cache: Cache, name: str, described: Mapping[str, Any]) -> None:
        self._cache, self._name, self._whole = cache, name, name
        self._described = {**described, "parts": {**described.get("parts", {}), "sums of": name}}
        self._last = time.monotonic()

    def begin(self, batches: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """What was kept of the same pass, nothing if it has to begin anew.

        Args:
            batches: Indices of the rows of each batch: those of another division are not added to the sums.
        """
        self._name = fingerprint(self._name, *batches)
        return self._cache.read(KIND, self._name) or {}

    def keep(self, sums: Mapping[str, Tensor]) -> None:
        """Keeps the sums if the last ones were kept long enough ago.

        Args:
            sums: What `begin` returns when the pass goes on.
        """
        if time.monotonic() - self._last >= KEEP_SECONDS:
            self._cache.write(KIND, self._name, sums, self._described)
            self._last = time.monotonic()

    def forget(self) -> None:
        """Deletes what was kept, once the result is safe; also by a run of another number of processes."""
        for entry in self._cache.entries():
            parts = entry.described.get("parts")
            if entry.kind == KIND and isinstance(parts, dict) and parts.get("sums of") == self._whole:
                # Where it cannot be deleted it does no harm.
                with suppress(OSError):
                    delete(entry.path)


def text_batches(decoder: Decoder, rows: Sequence[Sequence[int]], most: int = MAX_TOKENS) -> list[list[int]]:
    """Which rows go through the model together: indices, the longest first, with hardly any padding.

    Args:
        decoder: The model.
        rows: Token ids of the texts.
        most: Tokens of a batch, padding included.
    """
    most = min(most, MAX_TOKENS_CPU) if decoder.device.type == "cpu" else most
    return by_length([len(row) for row in rows], decoder.tokens_at_once(most), tokens_of_a_pass(decoder.device))


# From the indices of the rows of a batch to what each metric is updated with.
Look = Callable[[Sequence[int]], Mapping[Any, Any]]


def count(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    metrics: Mapping[Any, Metric],
    look: Look,
    kept: PartialSums | None = None,
    report: Report = silent,
    most: int = MAX_TOKENS,
) -> None:
    """Updates metrics with what is seen of all texts, batch by batch.

    Texts of about the same length share a batch, each in a row of its own. Each process takes a share of the batches;
    then all of them know the sums over all batches.

    Args:
        decoder: The model.
        rows: Token ids of the texts, the same in every process.
        metrics: By name, new ones, all of whose states are sums.
        look: Runs a batch.
        kept: What is left of an earlier attempt.
        report: Called with the number of tokens done by this process.
        most: Tokens of a batch, padding included.

    Raises:
        EditError: If another process failed.
    """
    batches = own_share(text_batches(decoder, rows, most), decoder.model)
    # With divided weights the others are in the middle of a pass, and would take a message for a part of it.
    together = Together() if sharing(decoder.model) > 1 else nullcontext()
    with together, frozen(decoder.model), fused_activations(decoder.model):
        _count_share(decoder, rows, batches, metrics, look, kept, report)
    summed([state for metric in metrics.values() for state in metric.metric_state.values()], decoder.model)


def compute_second_moments(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    report: Report = silent,
    kept: PartialSums | None = None,
) -> dict[int, Tensor]:
    """E[k k^T] of every layer's keys over all tokens of the rows, in one pass that ends at the highest layer.

    Args:
        decoder: The model.
        rows: Token ids of ordinary text, the same in every process.
        layers: The layers wanted.
        report: Called with the number of tokens done.
        kept: Where an earlier attempt left its sums; None begins anew and keeps none.

    Returns:
        For each layer ``(d_in, d_in)`` in float64, of E experts ``(E, d_in, d_in)``, on `Decoder.waiting_device`; the
        same in every process.

    Raises:
        EditError: If another process failed.
    """
    moments = {layer: empty_moment(decoder, layer) for layer in sorted(layers)}
    count(decoder, rows, moments, partial(_keys, decoder, rows, sorted(moments)), kept, report)
    return {layer: taken(layer, moments.pop(layer)) for layer in sorted(layers)}


def taken(layer: int, moment: Moment) -> Tensor:
    """The second moment that was counted, in the memory of its sums, with a warning where too few keys were.

    Args:
        layer: The layer.
        moment: Its sums, which are gone then.
    """
    if isinstance(moment, ExpertMoment) and (poor := moment.hardly_visited()):
        logger.warning(POOR, layer, poor, len(moment.visits), int(moment.tokens), moment.total.shape[1])
    return moment.taken()


def _count_share(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    batches: Sequence[Sequence[int]],
    metrics: Mapping[Any, Metric],
    look: Look,
    kept: PartialSums | None,
    report: Report,
) -> None:
    done = list(accumulate(sum(len(rows[i]) for i in batch) for batch in batches))
    first = 0 if kept is None else _restore(kept.begin(batches), metrics, decoder)
    for number, batch in enumerate(batches[first:], first + 1):
        for seen in halving(look, batch, decoder.model):
            for name, rows_seen in seen.items():
                metrics[name].update(rows_seen)
        report("second moments (tokens)", done[number - 1], done[-1])
        if kept is not None and number < len(batches):
            kept.keep({"batches": torch.tensor(number), **_states(metrics)})


def _keys(
    decoder: Decoder, rows: Sequence[Sequence[int]], layers: Sequence[int], batch: Sequence[int]
) -> dict[int, SiteKeys]:
    padded = pad([rows[i] for i in batch], decoder.device)
    real = padded.real.flatten().nonzero().squeeze(1)
    captured = run_until(decoder.model, padded.inputs(), *keys_captured(decoder, layers))
    keys = [by_token(one.value) for one in captured[: len(layers)]]
    return {layer: each[real.to(each.device)].to(decoder.device) for layer, each in zip(layers, keys, strict=True)}


def _states(metrics: Mapping[Any, Metric]) -> dict[str, Tensor]:
    return {f"{key} {name}": state for key, metric in metrics.items() for name, state in metric.metric_state.items()}


def _restore(sums: Mapping[str, Tensor], metrics: Mapping[Any, Metric], decoder: Decoder) -> int:
    done = int(sums.get("batches", 0))
    # Where each process holds a part of the weights, all go through the same batches together.
    if is_sharded(decoder.model) and len(set(gathered(done))) > 1:
        return 0
    if done:
        for layer, metric in metrics.items():
            states = {name: sums[f"{layer} {name}"].to(decoder.waiting_device) for name in metric.metric_state}
            metric.merge_state(states)
    return done
