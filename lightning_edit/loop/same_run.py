"""Whether a checkpoint is of the same run, and of the same model."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.gradients.source import Source
from lightning_edit.loading.fingerprints import check_sample
from lightning_edit.messages import listed
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import Anchor, PostProcessor, Solver
from lightning_edit.storage.checkpoints.known_classes import known_classes, names_of
from lightning_edit.stored_requests import fingerprint_of
from lightning_edit.updates.edited_weights import EditedWeights

SHOWN = 10
COUNTED_ANEW = (
    "{}: counted anew, and not bit for bit as in the checkpoint. With other memory, another device or another number "
    "of processes it is rounded in another way, and so is what follows.{}"
)
OF_UNKNOWN_TEXT = " The checkpoint does not tell from which text it was counted: see that it is the same."
# What runs did before there were settings for it.
EARLIER = {"chat": False, "sites": "auto", "quantization": None, "write": "merged", "down_projection": None}
EARLIER_VALUES = {"weights": "current", "norm_anchor_edits": 1000, "optimizer": "adam", "radius": 0.3, "growth": 1.1}
# What says which questions C is mixed with; without any it has no effect.
OF_QUESTIONS = ("question_share", "questions", "subject_share", "subjects")
# The same of the prompts that are preserved by name.
OF_NAMED = ("preserve", "preserve_weight")


class RunIdentity:
    """What a run depends on beside its settings, and whether it goes on from a checkpoint.

    Attributes:
        resumed: Whether the fit goes on from a checkpoint.
        fingerprints: Hashes, by name, of what the run depends on.
        loaded_records: The hash of the edits of the checkpoint that was loaded; None without one.
    """

    def __init__(self) -> None:
        self.resumed = False
        self.fingerprints: dict[str, str] = {}
        self.loaded_records: str | None = None
        self._fingerprints_then: dict[str, str] = {}
        self._records: tuple[Sequence[EditRequest], str] | None = None

    def resume(self, fingerprints: dict[str, str]) -> None:
        """Goes on with a run.

        Args:
            fingerprints: Those of its checkpoint.
        """
        self.resumed, self._fingerprints_then = True, fingerprints

    def note(self, fingerprints: Mapping[str, str], counted: Mapping[str, str]) -> str | None:
        """Notes what else the run depends on, and refuses to go on where that has changed.

        Settings without effect decide what is known of it: without a cache of values nobody has read the whole model.

        Args:
            fingerprints: Hashes by name; only those that the checkpoint has too are compared.
            counted: Hashes of second moments, which memory, device and processes round in other ways.

        Returns:
            What is to be told of second moments that are rounded in another way; None where nothing is.

        Raises:
            EditError: Lists what is different.
        """
        told = None
        then = self._fingerprints_then
        if self.resumed:
            check_same_run(*({n: known[n] for n in then.keys() & fingerprints} for known in (then, fingerprints)))
            other = [name for name in then.keys() & counted if then[name] != counted[name]]
            if other:
                unknown = "" if then.keys() >= set(fingerprints) else OF_UNKNOWN_TEXT
                told = COUNTED_ANEW.format(listed(sorted(other)), unknown)
        self.fingerprints = {**then, **fingerprints, **counted}
        return told

    def knows(self, requests: Sequence[EditRequest]) -> bool:
        """Whether edits are those of the checkpoint that was loaded, if one was.

        Args:
            requests: All edits of the data.
        """
        return self.loaded_records in (None, self.records(requests))

    def records(self, requests: Sequence[EditRequest]) -> str:
        """The hash of all edits of the run, in their order.

        Args:
            requests: These edits.
        """
        if self._records is None or self._records[0] is not requests:
            self._records = requests, fingerprint_of(requests)
        return self._records[1]


def plain(value: Any) -> Any:
    """A setting in the form in which a YAML file would give it.

    Args:
        value: A setting: a solver, anchor, source or post-processor becomes ``class_path``, its public name, and
            ``init_args``, another dataclass its fields, and any other object its ``repr``.
    """
    if isinstance(value, Solver | Anchor | PostProcessor | Source) and dataclasses.is_dataclass(value):
        return {"class_path": names_of(type(value))[0], "init_args": dataclasses.asdict(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)


def _settled(settings: Any, names: Mapping[str, str], free: Collection[str], path: str = "") -> Any:
    """What two runs must share, with today's names of classes and without what Lightning notes beside it."""
    if isinstance(settings, list):
        return [_settled(entry, names, free, path) for entry in settings]
    if not isinstance(settings, Mapping):
        return settings
    inner = {key: f"{path}.{key}" if path else key for key in settings if not key.startswith("_")}
    return {
        key: names.get(settings[key], settings[key])
        if key == "class_path" and isinstance(settings[key], str)
        else _settled(settings[key], names, free, dotted)
        for key, dotted in inner.items()
        if dotted not in free
    }


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those that older runs did not have yet, and without those that do not count.

    Without these settings sites were found, values were found on the weights as they were then, nothing was quantized,
    the model was asked in plain text, in a chat it answered in single words, and C was taken from ordinary text alone.
    """
    if "model" not in settings:
        return dict(settings)
    model = {**EARLIER, **settings["model"]}
    if "method" in model and model.get("edits_per_update") is None:
        # Memory editors, which alone have a `method`, did not always say that an update is a micro-batch then.
        model["edits_per_update"] = settings.get("data", {}).get("batch_size")
    if isinstance(model.get("values"), Mapping):
        model["values"] = {**EARLIER_VALUES, **model["values"]}
    asking = model.get("chat_settings")
    model["chat_settings"] = {"answers": "words", **asking} if model["chat"] and isinstance(asking, Mapping) else None
    moment = model.get("second_moment")
    if isinstance(moment, Mapping):
        asks, names = moment.get("question_share") or model["chat"], moment.get("preserve")
        unused = {*(() if asks else OF_QUESTIONS), *(() if names and moment.get("preserve_weight") else OF_NAMED)}
        asked = {"join_texts": False, **moment}
        model["second_moment"] = {name: value for name, value in asked.items() if name not in unused}
    return {**settings, "model": model}


def check_same_run(then: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Refuses to go on with other settings, edits or tokens than those of the checkpoint.

    Args:
        then: ``model`` and ``data`` settings and the fingerprints of the checkpoint, in plain types.
        now: The same of this run.
        free: The dotted names of what may differ.

    Raises:
        EditError: Lists what is different.
    """
    names = known_classes(Solver, Anchor, PostProcessor, Source)
    lines = differences(*(_settled(_asked(settings), names, free) for settings in (then, now)))
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise EditError(
            "The checkpoint is of a run with other settings, and going on would mix the two:\n  "
            + "\n  ".join([*lines[:SHOWN], *more])
            + "\nGive the settings of its config.yaml; to build other edits upon it, set `model.on_top_of` to it."
        )


def check_base(edits: Mapping[str, Any], weights: EditedWeights, model: str) -> None:
    """Refuses edited tensors of another model.

    Args:
        edits: What a checkpoint tells of its edits.
        weights: Those of this run.
        model: Its name.

    Raises:
        EditError: If the base weights differ from those that were edited.
    """
    for layer, base in edits["base"].items():
        if int(layer) not in weights.base:
            raise EditError(
                f"The checkpoint edits the layers {', '.join(edits['base'])}, this run {list(weights.base)}. Give the "
                "same `model.layers`, or start from the run's model/ folder as `model.model`."
            )
        if weights.base_fingerprint(int(layer)) != base:
            shown = weights.decoder.shown(int(layer))
            raise EditError(
                f"The checkpoint was made from other weights than layer {shown} of {model} holds. "
                "Give the same `model` and `dtype` as in the run."
            )
    check_sample(edits.get("model_sample"), weights.sample, model)


def differences(then: Any, now: Any, path: str = "") -> list[str]:
    """Where two settings differ, one line each.

    Args:
        then: Settings in plain types, those of the checkpoint.
        now: Those of this run.
        path: Name of what is compared.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        lines = []
        for name in sorted(then.keys() | now.keys()):
            lines += differences(then.get(name), now.get(name), f"{path}.{name}" if path else name)
        return lines
    return [] if then == now else [f"{path}: {then!r} in the checkpoint, {now!r} now"]
