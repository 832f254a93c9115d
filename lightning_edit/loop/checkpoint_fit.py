"""Whether a checkpoint, whose form is right, fits the model and the edits of a run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.storage.checkpoints.checkpoint_form import check_checkpoint, is_memory, tensors_of
from lightning_edit.storage.form import WrongFormError
from lightning_edit.storage.tensor_form import check_finite
from lightning_edit.updates.edited_weights import EditedWeights

REMEDY = "The run that wrote it diverged, or the file was changed since: use an earlier checkpoint or another run."


def check_form(content: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that is not of the form that a run writes.

    Args:
        content: The checkpoint.

    Raises:
        EditError: See `check_checkpoint`.
    """
    try:
        check_checkpoint(content)
    except WrongFormError as error:
        raise EditError(f"The checkpoint cannot be used: {error}. {REMEDY}") from error


def check_fits(content: Mapping[str, Any], weights: EditedWeights, edits: int | None = None) -> None:
    """Refuses a checkpoint whose tensors are no finite numbers or of other shapes than the model's.

    Args:
        content: The checkpoint, of the right form.
        weights: Those of the run.
        edits: How many edits the run makes; None where they are not those of the checkpoint's run.

    Raises:
        EditError: Says what does not fit.
    """
    try:
        for place, tensor in tensors_of(content):
            check_finite(place, tensor)
        layers = sorted(map(int, content["edits"]["base"]))
        if "state_dict" in content:
            _check_weights(content["state_dict"], weights, layers)
        if "run" in content:
            if wrong := content["run"]["added"].keys() - set(layers):
                raise WrongFormError("run.added", f"only the layers {layers}, whose base is known", sorted(wrong))
            _check_run(content["run"], weights, edits)
    except WrongFormError as error:
        raise EditError(f"The checkpoint cannot be used: {error}. {REMEDY}") from error


def _check_weights(state: Mapping[str, Tensor], weights: EditedWeights, layers: Sequence[int]) -> None:
    decoder = weights.decoder
    edited: dict[str, Tensor] = {f"model.{decoder.parameter_name(layer)}": decoder.parameter(layer) for layer in layers}
    if state.keys() != edited.keys():
        raise WrongFormError("state_dict", f"the edited weights {', '.join(edited)}", ", ".join(state))
    for name, value in state.items():
        if value.shape != edited[name].shape or value.dtype != edited[name].dtype:
            expected = f"a tensor {tuple(edited[name].shape)} of {edited[name].dtype}"
            raise WrongFormError(f"state_dict.{name}", expected, value)


def _check_run(run: Mapping[str, Any], weights: EditedWeights, edits: int | None) -> None:
    shapes = {layer: tuple(base.shape) for layer, base in weights.base.items()}
    d_out = next(iter(shapes.values()))[0]
    for name in ("added", "previous_keys"):
        for layer, value in run[name].items():
            if layer not in shapes:
                raise WrongFormError(f"run.{name}", f"only the layers {list(shapes)}", layer)
            for got in _shapes(value):
                if any(length is not None and length != of for length, of in zip(got, shapes[layer], strict=True)):
                    raise WrongFormError(f"run.{name}.{layer}", f"what fits a weight {shapes[layer]}", got)
    _check_statistics(run.get("statistics", {}), list(shapes.values()))
    for layer, memory in run.get("anchored", {}).items():
        if layer not in shapes:
            raise WrongFormError("run.anchored", f"only the layers {list(shapes)}", layer)
        # A memory is looked at when it is put beside the layer.
        for name, value in () if is_memory(memory) else memory.items():
            _check_remembered(f"run.anchored.{layer}.{name}", name, value, shapes[layer])
    for position, entry in enumerate(run["pending"]):
        for name in ("z", "z0"):
            # With a source no values are found before an update is written.
            if entry[name].shape[1] not in (d_out, 0):
                raise WrongFormError(f"run.pending.{position}.{name}", f"rows of length {d_out}", entry[name])
    if edits is not None:
        last = [run.get("offered", 0) + run.get("taken", 0) - 1, *run.get("left_out", {})]
        last += [place for entry in run["pending"] for place in entry["positions"]]
        if max(last) >= edits or run.get("edits_written", 0) > edits:
            raise WrongFormError("run", f"positions of the run's {edits} edits", max(last))


def _check_statistics(statistics: Mapping[str, Any], weights: Sequence[tuple[int, ...]]) -> None:
    """Refuses what a source has seen of weights of other shapes than the run's."""
    expected = {f"{d_out}x{d_in}": (d_out, d_in) for d_out, d_in in weights}
    for shape, seen in statistics.items():
        if shape not in expected:
            raise WrongFormError("run.statistics", f"only those of weights {', '.join(expected)}", shape)
        d_out, d_in = expected[shape]
        if len(seen["mean"]) != d_out + d_in:
            raise WrongFormError(f"run.statistics.{shape}.mean", f"{d_out + d_in} numbers", seen["mean"])
        if seen["products"] is not None and seen["products"].shape != (d_out, d_out):
            raise WrongFormError(f"run.statistics.{shape}.products", f"a tensor {(d_out, d_out)}", seen["products"])


def _check_remembered(place: str, name: str, value: Tensor, weight: tuple[int, ...]) -> None:
    d_out, d_in = weight
    wanted: dict[str, tuple[int | None, ...]] = {
        "targets": (d_out, d_in),
        "tokens": (d_in, d_in),
        "removed": (d_in, None),
        **dict.fromkeys(("keys", "text_keys"), (d_in, d_in)),
        **dict.fromkeys(("outputs", "text_outputs"), (d_out, d_out)),
        "reference": (d_out, d_in),
    }
    # The others are single numbers.
    expected = wanted.get(name, (1, 1))
    if any(length is not None and length != got for length, got in zip(expected, value.shape, strict=True)):
        raise WrongFormError(place, f"what fits a weight {weight}", value)


def _shapes(value: Any) -> Iterator[tuple[int | None, int | None]]:
    """How large the weight must be that a sum of updates, or keys, belong to; None where they do not say."""
    if isinstance(value, Tensor):
        yield None, value.shape[1]
    elif "left" in value:
        yield value["left"].shape[0], (value["left"] if value["right"] is None else value["right"]).shape[1]
    else:
        moments = [] if value["moment"] is None else [value["moment"]]
        yield from ((None, len(keys)) for keys in (*moments, *value["recent"]))
