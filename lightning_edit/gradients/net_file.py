"""Nets in a folder: numbers in safetensors, words in JSON, and nothing that is run because a file names it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.gradients.net import GradientNet, Made, named
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.form import LARGEST, Form, WrongFormError, count, fields, table, text
from lightning_edit.storage.numbers import refuse_not_finite, to_json
from lightning_edit.storage.tensor_form import checksum, read_tensors, write_tensors
from lightning_edit.storage.user.json import read_json

FORMAT = "lightning-edit net 1"
WORDS, NUMBERS = "net.json", "net.safetensors"
SEEN = "statistics."


def save_net(net: GradientNet, folder: Path) -> str:
    """Writes a net; ``net.json`` comes last, so that a folder without it holds no net.

    Args:
        net: The net.
        folder: Where to; other files in it stay.

    Returns:
        Its hash.

    Raises:
        OSError: If it could not be written.
    """
    tensors: dict[str, Tensor] = {name: value.detach().float() for name, value in net.state_dict().items()}
    for shape, seen in net.statistics.items():
        parts = seen.packed()
        tensors |= {
            f"{SEEN}{shape}.{name}": parts[name] for name in ("mean", "squares", "products") if parts[name] is not None
        }
    tokens = {shape: seen.tokens for shape, seen in net.statistics.items()}
    words = {"format": FORMAT, **asdict(net.made), "tokens": tokens, "checksum": checksum(tensors, {})}
    write_tensors(folder / NUMBERS, tensors, {"checksum": words["checksum"]})
    with atomic_path(folder / WORDS) as scratch:
        scratch.write_text(to_json(words, indent=2) + "\n", encoding="utf-8")
    return str(words["checksum"])


def load_net(folder: str | Path) -> tuple[GradientNet, str]:
    """Reads a net.

    Args:
        folder: What `save_net` wrote.

    Returns:
        The net, without gradients, and its hash.

    Raises:
        EditError: If there is none, or it is damaged.
    """
    folder = Path(folder).expanduser()
    if not (folder / WORDS).is_file() or not (folder / NUMBERS).is_file():
        raise EditError(
            f"`source.net`: {folder} holds no net: expected {WORDS} and {NUMBERS}, as `lightning-edit train-net` "
            "writes them."
        )
    words = read_json(folder / WORDS)
    try:
        _form(words, WORDS)
        if words["format"] != FORMAT:
            raise WrongFormError(f"{WORDS}.format", FORMAT, words["format"])
        tensors, _ = read_tensors(folder / NUMBERS)
        if words["checksum"] != checksum(tensors, {}):
            raise EditError(f"{folder / NUMBERS} is damaged: it holds other numbers than were written. Train it again.")
        refuse_not_finite(tensors, str(folder / NUMBERS))
        return _net_of(words, tensors), words["checksum"]
    except WrongFormError as error:
        raise EditError(f"{folder} holds no net of this tool: {error}.") from error
    except (SafetensorError, OSError) as error:
        raise EditError(f"{folder / NUMBERS} is not a safetensors file or is cut short: {error}") from error


def _net_of(words: dict[str, Any], tensors: dict[str, Tensor]) -> GradientNet:
    places = {name: (int(shape[0]), int(shape[1])) for name, shape in words["places"].items()}
    made = Made(
        **{name: words[name] for name in ("model", "rank", "blocks", "settings", "solver", "training")}, places=places
    )
    # Nothing is made of a size that only the words name.
    with torch.device("meta"):
        net = GradientNet(made)
    own = {name: value for name, value in tensors.items() if not name.startswith(SEEN)}
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    if expected != {name: tuple(value.shape) for name, value in own.items()}:
        wrong = sorted(set(expected) ^ set(own)) or sorted(n for n in own if expected[n] != tuple(own[n].shape))
        raise WrongFormError(f"{NUMBERS}.{wrong[0]}", f"the numbers of the net that {WORDS} describes", "others")
    net.load_state_dict(own, assign=True)
    net.requires_grad_(False)
    net.statistics = {shape: _statistics(shape, words["tokens"][shape], tensors) for shape in words["tokens"]}
    return net


def _statistics(shape: str, tokens: int, tensors: dict[str, Tensor]) -> Statistics:
    d_out, d_in = (int(size) for size in shape.split("x"))
    sizes = {"mean": (d_in + d_out,), "squares": (d_in + d_out,), "products": (d_out, d_out)}
    parts = {name: tensors.get(f"{SEEN}{shape}.{name}") for name in sizes}
    for name, part in parts.items():
        whole = part is not None and part.dtype == torch.float64 and tuple(part.shape) == sizes[name]
        if not whole and not (name == "products" and part is None):
            raise WrongFormError(f"{NUMBERS}.{SEEN}{shape}.{name}", f"a tensor {sizes[name]} of torch.float64", part)
    return Statistics.unpacked({"tokens": tokens, **parts})


def _shape(value: Any, place: str) -> None:
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(_size(part) for part in value)):
        raise WrongFormError(place, "a shape, as two whole numbers from 1", value)


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST


def _setting(value: Any, place: str) -> None:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise WrongFormError(place, "a text or a number", value)


def _form(words: Any, place: str) -> None:
    settings: Form = table(text, _setting)
    texts = dict.fromkeys(("format", "model", "solver", "checksum"), text)
    numbers = dict.fromkeys(("rank", "blocks"), count)
    tables = {"places": table(text, _shape), "settings": settings, "training": settings, "tokens": table(text, count)}
    fields({**texts, **numbers, **tables})(words, place)
    shapes = {named(shape) for shape in words["places"].values()}
    if not words["places"] or not words["rank"] or not set(words["tokens"]) <= shapes:
        raise WrongFormError(place, "places, a rank of 1 or more, and tokens of their shapes alone", words["tokens"])
