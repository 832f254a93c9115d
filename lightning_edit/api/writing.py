"""Edits found and written, and what is told of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editor import Editor
from lightning_edit.loop.value_finder import ValueFinder, value_caches
from lightning_edit.progress import Report
from lightning_edit.requests import EditRequest, batches_of, fact_of
from lightning_edit.solvers import Factors
from lightning_edit.updates.levels import on
from lightning_edit.updates.sums import add_factors
from lightning_edit.updates.written import Written, check_written
from lightning_edit.values.vectors import Values


@dataclass
class Made:
    """What one call has written, in one update or several.

    Attributes:
        edits: How many edits.
        factors: For each layer the sum of what was added to its weight.
        keys: For each layer the keys ``(d_in, n)`` of the edits.
        facts: For each key the subject and prompt of its edit.
        statistics: What a source has seen.
    """

    edits: int = 0
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
        self.edits += len(requests)
        for layer, factors in written.factors.items():
            before = self.factors.get(layer)
            total = factors if before is None else add_factors(on(before, factors.left.device), factors)
            self.factors[layer] = total if device is None else on(total, device)
        for layer, keys in written.keys.items():
            self.keys[layer] = torch.cat([self.keys[layer], keys.cpu()], 1) if layer in self.keys else keys.cpu()
        owners = range(len(requests)) if written.owners is None else written.owners
        self.facts += tuple(fact_of(requests[owner].original or requests[owner]) for owner in owners)


def write_all(editor: Editor, requests: Sequence[EditRequest], micro_batch: int, report: Report) -> Made:
    """Finds and writes all edits, in as many updates as the solver needs.

    Args:
        editor: Writes them.
        requests: The edits.
        micro_batch: How many values are optimized at once.
        report: Told how far it is.

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
    find = ValueFinder(editor, value_caches(editor.values))
    for update in batches_of(requests, editor.solver.edits_per_update):
        values = Values.join([find(part, report) for part in batches_of(update, micro_batch)])
        kept = [request for request, ok in zip(update, values.finite.tolist(), strict=True) if ok]
        if kept:
            made.add(kept, editor.write(kept, values.z[values.finite]), device)
    check_written(made.edits)
    return made
