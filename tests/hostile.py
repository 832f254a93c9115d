"""Copies of what a file holds, each wrong in one place: a name gone, another type, another shape or precision, NaN."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

OTHERS = (None, "x", -1, 2**70, 1.5, True, [], {}, [None], {"x": None}, float("nan"), torch.zeros(2))


def places(content: Any, place: tuple = ()) -> Iterator[tuple]:
    """All places in it, what holds others before what it holds; of a list the first entry stands for all."""
    if place:
        yield place
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from places(value, (*place, key))
    elif isinstance(content, list) and content:
        yield from places(content[0], (*place, 0))


def get(content: Any, place: tuple) -> Any:
    for key in place:
        content = content[key]
    return content


def variants(content: Any, keep: tuple = ()) -> Iterator[tuple[str, Any]]:
    """Each wrong copy with what is wrong in it.

    Args:
        content: What is right.
        keep: Names below which nothing is changed.
    """
    for place in places(content):
        if any(key in keep for key in place[:-1]):
            continue
        holder, key, name = get(content, place[:-1]), place[-1], ".".join(map(str, place))
        if isinstance(holder, Mapping):
            yield f"{name} gone", _with(content, place, None, gone=True)
            yield f"{name} under another name", _with(content, (*place[:-1], f"{key}x"), holder[key])
        value = holder[key]
        for other in OTHERS:
            if type(other) is not type(value):
                yield f"{name} is {other!r}", _with(content, place, other)
        if isinstance(value, Tensor):
            for change in tensors(value):
                yield f"{name} is {change.dtype} {tuple(change.shape)}", _with(content, place, change)


def tensors(value: Tensor) -> Iterator[Tensor]:
    yield value[None]
    yield value.flatten()[:1].clone()
    yield value[:0].clone()
    yield torch.cat([value, value])
    yield value.to(torch.complex64)
    yield value.to(torch.int8)
    yield value.to(torch.float16)
    if value.is_floating_point():
        yield torch.full_like(value, float("nan"))
        yield torch.full_like(value, float("inf"))


def _with(content: Any, place: tuple, value: Any, gone: bool = False) -> Any:
    made = copy.copy(content)
    inner = made
    for key in place[:-1]:
        inner[key] = copy.copy(inner[key])
        inner = inner[key]
    if gone:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return made
