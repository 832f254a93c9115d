"""Edits found and written, and what is told of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.api.earlier import Earlier
from lightning_edit.editor import Editor
from lightning_edit.loop.value_finder import ValueFinder, value_caches
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest, batches_of, fact_of
from lightning_edit.solvers import Factors, PreviousKeys
from lightning_edit.updates.levels import on
from lightning_edit.updates.sums import add_factors
from lightning_edit.updates.written import Written, check_written
from lightning_edit.values.vectors import Values


@dataclass
class Made:
    """What one call has written, in one update or several.

    Attributes:
        requests: The edits.
        factors: For each layer the sum of what was added to its weight.
        keys: For each layer the keys ``(d_in, n)`` of the edits.
        facts: For each key the subject and prompt of its edit.
        statistics: What a source has seen.
    """

    requests: list[EditRequest] = field(default_factory=list)
    factors: dict[int, Factors] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def add(self, requests: Sequence[EditRequest], written: Written, device: torch.device | None) -> None:
        """Adds an update.

        Args:
            requests: Its edits.
            written: As it was written.
            device: Where it is kept; None leaves it where it is.
        """
        self.requests += requests
        for layer, factors in written.factors.items():
            before = self.factors.get(layer)
            total = factors if before is None else add_factors(on(before, factors.left.device), factors)
            self.factors[layer] = total if device is None else on(total, device)
        for layer, keys in written.keys.items():
            self.keys[layer] = torch.cat([self.keys[layer], keys.cpu()], 1) if layer in self.keys else keys.cpu()
        owners = range(len(requests)) if written.owners is None else written.owners
        self.facts += tuple(fact_of(requests[owner].original or requests[owner]) for owner in owners)


def write_all(
    editor: Editor, requests: Sequence[EditRequest], micro_batch: int, report: Report, earlier: Earlier
) -> Made:
    """Finds and writes all edits, in as many updates as the solver needs.

    Args:
        editor: Writes them.
        requests: The edits.
        micro_batch: How many values are optimized at once.
        report: Told how far it is.
        earlier: What earlier calls left in the model.

    Returns:
        What was written.

    Raises:
        EditError: If no edit has a finite loss, or a system is singular.
    """
    made, device = Made(), torch.device("cpu") if editor.weights.decoder.memory == "low" else None
    if editor.source is not None:
        made.add(requests, editor.write(requests, torch.zeros(len(requests), 0), report=report), device)
        made.statistics = dict(editor.statistics)
        return made
    find, replacing = ValueFinder(editor, value_caches(editor.values)), list(requests)
    for update in batches_of(requests, editor.solver.edits_per_update):
        values = Values.join([find(part, report) for part in batches_of(update, micro_batch)])
        kept = [request for request, ok in zip(update, values.finite.tolist(), strict=True) if ok]
        if len(kept) < len(update) and editor.previous_keys is not None:
            written = {id(request) for request in kept}
            lost = {id(request) for request in update if id(request) not in written}
            replacing = [request for request in replacing if id(request) not in lost]
            # What would have been replaced by them is there to stay.
            _preserve_again(editor, earlier, replacing, made)
        if kept:
            made.add(kept, editor.write(kept, values.z[values.finite]), device)
    check_written(len(made.requests))
    return made


def _preserve_again(editor: Editor, earlier: Earlier, requests: Sequence[EditRequest], made: Made) -> None:
    """Preserves the earlier edits that these do not replace, and those that this call has made already."""
    found = earlier.keys(editor.weights, requests)
    for layer, keys in made.keys.items():
        before = found.get(layer, PreviousKeys())
        found[layer] = before.extended(keys.double(), editor.weights.has_experts(layer))
    editor.previous_keys = found
