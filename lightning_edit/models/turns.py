"""Threads that work on one model take turns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock, RLock
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# A lock as an attribute of the model would keep the model from being copied or pickled.
_turns: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_asking_for_one = Lock()


@contextmanager
def turn_with(model: Any) -> Iterator[None]:
    """Inside of the block no other thread works on a model; where one does, it is waited for.

    A pass with other weights or hooks than a thread has set would give it figures of neither model.

    Args:
        model: The model. What is none has no turns.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    with _asking_for_one:
        turn = _turns.setdefault(model, RLock())
    with turn:
        yield


def in_turn(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Lets a function work on its model in turn with other threads.

    Args:
        function: Takes the model; of several that it is given the first counts.
    """

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = (*args, *kwargs.values())
        with turn_with(next((one for one in given if isinstance(one, nn.Module)), None)):
            return function(*args, **kwargs)

    return call
