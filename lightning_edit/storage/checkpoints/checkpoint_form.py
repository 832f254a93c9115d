"""What a checkpoint of a run holds, name by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_edit.solvers import EvoEdit, LyapLock, SimIE
from lightning_edit.solvers.projection import OF_EDITS, OF_TEXT
from lightning_edit.storage.form import (
    Form,
    WrongFormError,
    anything,
    count,
    digits,
    each,
    fields,
    flag,
    maybe,
    number,
    table,
    text,
)
from lightning_edit.storage.tensor_form import factors, tensor

MATRIX, ROWS, COLUMN = tensor(dimensions=2), tensor(torch.float64, dimensions=2), tensor(dimensions=1)
VALUES = {"z": MATRIX, "z0": MATRIX, "nll": COLUMN, "kl": COLUMN, "decay": COLUMN}
PENDING: Form = fields(
    {
        "positions": each(count),
        **VALUES,
        "steps": tensor(torch.int64, torch.int32, dimensions=1),
        "finite": tensor(torch.bool, dimensions=1),
    }
)
# Of a layer, by anchors and by training within both second moments.
REMEMBERED = (*(kind.remembers for kind in (LyapLock, SimIE, EvoEdit)), OF_EDITS, OF_EDITS | OF_TEXT)
# Of the layer that a memory is beside: what all its edits share, and what there is of each as ``NAME.PLACE``.
SHARED: dict[str, Form] = {"background": COLUMN, "order": tensor(torch.int64, dimensions=1)}
OF_EDIT: dict[str, Form] = {"key": COLUMN, "value": COLUMN}
OF_MASKED: dict[str, Form] = {"mask": SHARED["order"], "keys": MATRIX, "values": MATRIX}
CURVE: Form = fields({"edits": count, "updates": count, "figures": table(text, number)})


def _weight(value: Any, place: str) -> None:
    # Experts are stacked in one tensor.
    tensor(dimensions=3 if isinstance(value, Tensor) and value.dim() == 3 else 2)(value, place)


def _norm(value: Any, place: str) -> None:
    if value != "auto":
        number(value, place)


def _pending(value: Any, place: str) -> None:
    PENDING(value, place)
    for name, column in value.items():
        if len(column) != len(value["positions"]):
            raise WrongFormError(f"{place}.{name}", f"one entry for each of {len(value['positions'])} edits", column)


def _previous_keys(value: Any, place: str) -> None:
    # Earlier versions kept the sum alone.
    content: Any = {"moment": value, "recent": []} if isinstance(value, Tensor) else value
    fields({"moment": maybe(ROWS), "recent": each(ROWS)})(content, place)
    moment: list[Tensor] = [] if content["moment"] is None else [content["moment"]]
    sizes = {len(keys) for keys in [*moment, *content["recent"]]} | {square.shape[1] for square in moment}
    if len(sizes) > 1:
        raise WrongFormError(place, "keys of one length and a square moment", sorted(sizes))


def _statistics(value: Any, place: str) -> None:
    vector, square = tensor(torch.float64, dimensions=1), maybe(ROWS)
    fields({"tokens": count, "mean": vector, "squares": vector, "products": square})(value, place)
    if len(value["mean"]) != len(value["squares"]):
        raise WrongFormError(f"{place}.squares", f"as many numbers as in mean, {len(value['mean'])}", value["squares"])


def is_memory(remembered: Mapping[str, Any]) -> bool:
    """Whether what is remembered of a layer are edits in a memory beside it, of which there may be none yet.

    Args:
        remembered: Of one layer, by name.
    """
    return all(name in SHARED or "." in name for name in remembered)


def _of_memory(value: Mapping[str, Any], place: str) -> None:
    """What a memory holds; whether it is that of the run's layer is seen when it is put there."""
    numbered = [name for name in value if name not in SHARED]
    of_each = OF_MASKED if any(name.startswith("mask.") for name in numbered) else OF_EDIT
    edits = len(numbered) // len(of_each)
    forms = {f"{name}.{edit}": form for edit in range(edits) for name, form in of_each.items()}
    fields(forms, SHARED)(value, place)


def _anchored(value: Any, place: str) -> None:
    table(text, anything)(value, place)
    if is_memory(value):
        _of_memory(value, place)
        return
    table(text, ROWS)(value, place)
    if frozenset(value) not in REMEMBERED:
        names = " or ".join(", ".join(sorted(names)) for names in REMEMBERED)
        raise WrongFormError(place, f"what a method remembers of a layer ({names})", sorted(value))


RUN: Form = fields(
    {"added": table(count, factors), "previous_keys": table(count, _previous_keys), "pending": each(_pending)},
    {
        **dict.fromkeys(("offered", "taken", "micro_batches", "passes", "edits_written", "updates_written"), count),
        "finished": flag,
        "stopped": maybe(text),
        "left_out": table(count, text),
        "seconds": table(text, number),
        "curves": each(CURVE),
        "value_losses": table(count, number),
        "statistics": table(text, _statistics),
        "anchored": table(count, _anchored),
    },
)
# How WILD's answers were marked.
MARKED: Form = fields(
    {"answers": count},
    {
        **dict.fromkeys(("left_out", "judged", "from_cache", "by_rule", "exact_match", "unreadable"), count),
        "problem": maybe(text),
    },
)
EDITS: Form = fields(
    {
        "base": table(digits, text),
        "edits_written": count,
        "before": maybe(table(text, number)),
        "records": text,
        "left_out": each(text),
    },
    {
        "model_sample": text,
        "fingerprints": table(text, text),
        "processes": count,
        "context_templates": maybe(each(text)),
        "norm_anchor": _norm,
        "own_answers": each(maybe(text)),
        "method_file": text,
        "wild": fields({"protocol": table(text, anything)}, dict.fromkeys(("before", "after"), MARKED)),
    },
    others=True,
)
RANDOM: Form = fields(
    {"python": each(anything), "numpy": each(anything), "torch": tensor(torch.uint8, dimensions=1)},
    {"cuda": each(tensor(torch.uint8, dimensions=1))},
)
MEASURED: Form = fields({"measured_at": each(count), "each_update": each(table(text, number))}, others=True)
PROBE: Form = fields(
    {**dict.fromkeys(("kind", "prompt", "unwanted", "edit", "before"), text), "answers": each(text)},
    {"lead_in": text},
)
REFERENCE: Form = fields({"probes": each(PROBE), "possible": table(text, count), "made_for": text})


def _collateral(value: Any, place: str) -> None:
    MEASURED(value, place)
    fields({"reference": maybe(REFERENCE)}, others=True)(value, place)


CALLBACKS: dict[str, Form] = {
    "EditCheckpoint": fields({"sizes": table(text, count)}, others=True),
    "Watch": fields(
        {
            "columns": each(text),
            "rows": count,
            "warned": each(text),
            "unedited": maybe(number),
            "text": each(anything),
            "spent": number,
            "edits": count,
        },
        others=True,
    ),
    "Collateral": _collateral,
    **dict.fromkeys(("Downstream", "Harness", "Retention"), MEASURED),
}


def _callbacks(value: Any, place: str) -> None:
    table(text, anything)(value, place)
    for key, state in value.items():
        form = CALLBACKS.get(key.partition("{")[0])
        if form is not None:
            form(state, f"{place}.{key.partition('{')[0]}")


def _version(value: Any, place: str) -> None:
    text(value, place)
    if not all(part.isdecimal() for part in value.split(".")[:2]) or value.count(".") < 1:
        raise WrongFormError(place, "the number of a version", value)


CHECKPOINT: Form = fields(
    {
        "state_dict": table(text, _weight),
        "hyper_parameters": table(text, anything),
        "datamodule_hyper_parameters": table(text, anything),
        "edits": EDITS,
        "pytorch-lightning_version": _version,
    },
    {
        "run": RUN,
        "random": RANDOM,
        "callbacks": _callbacks,
        "epoch": count,
        "global_step": count,
        "optimizer_states": each(anything),
        "lr_schedulers": each(anything),
    },
    others=True,
)


def check_checkpoint(content: Any) -> None:
    """Refuses a checkpoint that is not of the form that a run writes; its tensors may be on the meta device.

    Args:
        content: As read.

    Raises:
        WrongFormError: Says where in it, what was expected and what is there.
    """
    CHECKPOINT(content, "")
    if "loops" in content:
        raise WrongFormError("loops", "nothing, as Lightning's loops count no updates", content["loops"])
    for name in ("random", "edits.fingerprints", "edits.processes") if "run" in content else ():
        part, _, key = name.rpartition(".")
        if key not in (content[part] if part else content):
            raise WrongFormError(
                part, f"a table with {key}, as there is a run to go on with", sorted(map(str, content))
            )


def tensors_of(content: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint in which every number must be finite.

    Args:
        content: A checkpoint of the right form.

    Yields:
        The place of each in the file, and the tensor.
    """
    yield from ((f"state_dict.{name}", value) for name, value in content.get("state_dict", {}).items())
    run = content.get("run", {"added": {}, "previous_keys": {}, "pending": []})
    for layer, pair in run["added"].items():
        yield from ((f"run.added.{layer}.{name}", value) for name, value in pair.items() if value is not None)
    for layer, keys in run["previous_keys"].items():
        blocks = [keys] if isinstance(keys, Tensor) else [keys["moment"], *keys["recent"]]
        yield from ((f"run.previous_keys.{layer}", value) for value in blocks if value is not None)
    for shape, seen in run.get("statistics", {}).items():
        yield from ((f"run.statistics.{shape}.{name}", x) for name, x in seen.items() if isinstance(x, Tensor))
    for layer, memory in run.get("anchored", {}).items():
        yield from ((f"run.anchored.{layer}.{name}", value) for name, value in memory.items())
    for position, entry in enumerate(run["pending"]):
        yield from ((f"run.pending.{position}.{name}", entry[name]) for name in ("z", "z0"))
