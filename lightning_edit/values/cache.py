"""Value vectors that were found before, for the same edits on the same model with the same settings."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import separator_of
from lightning_edit.distributed.process_group import gathered
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.loading.fingerprints import describe_numerics, fingerprint_model, fingerprint_tokenizer
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.settings import compared_fields
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values

KIND = "values"
# To be raised whenever `optimize_values` comes to find other values from the same input.
METHOD = "values 3"
CALLS = "report"
# Settings of which the values know already: the weights are looked at, and a norm that was measured is a number.
NOT_COUNTED = frozenset({"weights", "norm_anchor", "norm_anchor_edits"})
# Settings that values once had not.
LATER = ("optimizer", "radius", "growth")
# Where a model was loaded from is shown, and changes nothing of what it computes.
SHOWN_ONLY = frozenset({"model"})


def value_parts(
    decoder: Decoder, tokenizer: Any, templates: ContextTemplates, layer: int, settings: ValueSettings
) -> dict[str, str]:
    """What the values of a whole run depend on, beside the weights edited so far: ask once, it reads all weights.

    Args:
        decoder: The model before the run's first edit.
        tokenizer: Its fast tokenizer.
        templates: The contexts.
        layer: The block where delta is added.
        settings: How values are optimized.
    """
    return {
        "model": getattr(decoder.model, "name_or_path", ""),
        "module": decoder.names[layer],
        "layer": str(layer),
        "base weights and configuration": fingerprint_model(decoder.model),
        "tokenizer": fingerprint_tokenizer(tokenizer),
        "templates": json.dumps([templates.average, *templates.texts, *_chat_parts(templates)]),
        "settings": json.dumps(_counted(settings), sort_keys=True, default=repr),
        "numerics": describe_numerics(decoder.model),
        "method": f"{METHOD}: {', '.join(f.name for f in fields(Values))}",
    }


def _counted(settings: ValueSettings) -> dict[str, Any]:
    """The settings that the values depend on."""
    counted = compared_fields(settings)
    # Without what came later they have the names that they had before.
    without = {*NOT_COUNTED, *(name for name in LATER if getattr(settings, name) == getattr(ValueSettings, name))}
    if settings.optimizer != "adam":
        without.add("lr")
    return {name: value for name, value in counted.items() if name not in without}


def _chat_parts(templates: ContextTemplates) -> list[str]:
    # Those of plain text have the names that they had before there were others.
    usual = ContextTemplates()
    if (templates.worlds, templates.train_end) == (usual.worlds, usual.train_end):
        return []
    return [*templates.worlds, f"train_end {templates.train_end}"]


def weights_of(decoder: Decoder, layers: Sequence[int]) -> dict[str, str]:
    """The hashes of some layers' weights, by their names.

    Args:
        decoder: The model.
        layers: The layers.
    """
    return {decoder.names[layer]: fingerprint(decoder.weight(layer)) for layer in layers}


def edited_part(decoder: Decoder, layers: Sequence[int], before: Mapping[str, str]) -> dict[str, str]:
    """What the values of one micro-batch depend on beside `value_parts`: the weights that were edited so far.

    Layers that are still to be edited do not count, so runs that differ in them share values.

    Args:
        decoder: The model.
        layers: All layers of the run that may have been edited.
        before: Their hashes before the run's first edit, see `weights_of`.
    """
    changed = {name: now for name, now in weights_of(decoder, layers).items() if now != before[name]}
    return {"edited weights": fingerprint(*(text for pair in changed.items() for text in pair))}


def cached_values(
    caches: Sequence[Cache],
    parts: Mapping[str, str],
    requests: Sequence[EditRequest],
    compute: Callable[[Report], Values],
    report: Report = silent,
    device: torch.device | str = "cpu",
    together: bool = False,
) -> tuple[Values, bool]:
    """The values of a micro-batch of edits from the first cache that has them, or computed and kept in all of them.

    The whole ordered list of edits is part of the name: the edits of a micro-batch are rounded together. What is told
    to ``report`` is kept as well and told again, so that progress and logs are those of a run that computes.

    Args:
        caches: Looked through in turn; those that lack the values get them.
        parts: Everything the values depend on beside the edits: `value_parts` and `edited_part`.
        requests: The edits.
        compute: Finds the values and reports.
        report: Called with the number of finished edits and the loss, cached or computed.
        device: Where values that were found are put.
        together: Whether all processes compute the same values together, and so must all find them or none.

    Returns:
        The values, and whether they were found.
    """
    name = _name(parts, requests)
    lacking: list[Cache] = []
    for cache in caches:
        tensors = cache.read(KIND, name)
        if together and not all(gathered(tensors is not None)):
            tensors = None
        if tensors is not None:
            values = _replay(tensors, report, device)
            values.warn_left_out(requests)
            break
        lacking.append(cache)
    else:
        values, tensors = _record(compute, report)
    for cache in lacking:
        cache.write(KIND, name, tensors, _described(parts, requests))
    return values, len(lacking) < len(caches)


def _name(parts: Mapping[str, str], requests: Sequence[EditRequest]) -> str:
    counted = [text for key, part in sorted(parts.items()) if key not in SHOWN_ONLY for text in (key, part)]
    edits = [text for request in requests for text in _texts(request)]
    return fingerprint(fingerprint(*counted), fingerprint(*edits))


def _texts(request: EditRequest) -> list[str]:
    separator = separator_of(request)
    # For long a space was all that ever stood there, and values found then are found again.
    space = "" if request.rewrite_prompt[-1:].isspace() else " "
    if request.original is not None:
        # In a chat the template says what stands there, in plain text the record may.
        given = request.original.separator
        separator = space if given is None else given
    other = [] if separator == space else [f"separator {separator!r}"]
    plain = [] if request.original is None else [f"plain {request.original.prompt}"]
    said = [] if request.said is None else [f"says {request.said}"]
    return [request.subject, request.prompt, request.target_new, *other, *plain, *said]


def _described(parts: Mapping[str, str], requests: Sequence[EditRequest]) -> dict[str, Any]:
    first = f"{requests[0].subject} -> {requests[0].target_new}" if requests else ""
    shown = {name: parts[name] for name in ("model", "module") if name in parts}
    return {**shown, "edits": len(requests), "first": first, "parts": dict(parts)}


def _record(compute: Callable[[Report], Values], report: Report) -> tuple[Values, dict[str, Tensor]]:
    """Computes values; returns them and what to keep of them."""
    calls: list[tuple[str, float, float, dict[str, float]]] = []

    def record(stage: str, done: float, total: float, **figures: float) -> None:
        calls.append((stage, done, total, figures))
        report(stage, done, total, **figures)

    values = compute(record)
    # Copies, for the values may be views of one tensor, which no file can hold.
    tensors = {f.name: getattr(values, f.name).detach().cpu().clone() for f in fields(Values)}
    # JSON writes numbers so that they read back to the same bit.
    written = bytearray(json.dumps(calls).encode())
    return values, tensors | {CALLS: torch.frombuffer(written, dtype=torch.uint8)}


def _replay(tensors: dict[str, Tensor], report: Report, device: torch.device | str) -> Values:
    for stage, done, total, figures in json.loads(tensors[CALLS].numpy().tobytes()):
        report(stage, done, total, **figures)
    return Values(**{f.name: tensors[f.name].to(device) for f in fields(Values)})
