"""Seeing and steering a model's own forward from outside; every context manager leaves the model as it was."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule


class StopForward(Exception):
    """Ends a forward pass as soon as all that was asked for is known; callers catch it."""


class Captured:
    """What a hook recorded in the last forward pass.

    Attributes:
        value: The tensor; of experts their `RoutedKeys`.
        output: For outputs, what the module returned as a whole (some blocks return a tuple).
    """

    value: Any
    output: Any


def hidden_of(output: Any) -> Tensor:
    """The hidden state in what a module returned: the tensor itself, or the first entry of a tuple or list."""
    return output[0] if isinstance(output, tuple | list) else output


def by_position(states: Tensor, rows: int) -> Tensor:
    """What enters or leaves a module as ``(rows, length, width)``: some models flatten rows and positions in the MLP.

    Args:
        states: ``(rows, length, width)`` or ``(rows * length, width)``.
        rows: Number of rows of the pass.
    """
    return states.reshape(rows, -1, states.shape[-1])


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """What a module returned, with another hidden state in it."""
    if hasattr(output, "_replace"):
        return output._replace(**{output._fields[0]: hidden})
    return type(output)([hidden, *output[1:]]) if isinstance(output, tuple | list) else hidden


@contextmanager
def capture_input(module: nn.Module, stop: bool = False) -> Iterator[Captured]:
    """Records the first argument of a module, e.g. the keys of a down-projection.

    Args:
        module: Where to listen.
        stop: Whether to end the forward pass there by raising `StopForward`.
    """
    captured = Captured()

    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        captured.value = args[0]
        if stop:
            raise StopForward

    with module.register_forward_pre_hook(hook):
        yield captured


@contextmanager
def capture_output(module: nn.Module, stop: bool = False) -> Iterator[Captured]:
    """Records the hidden state that leaves a module, e.g. a decoder block.

    Args:
        module: Where to listen.
        stop: Whether to end the forward pass there by raising `StopForward`.
    """
    captured = Captured()

    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        captured.value, captured.output = hidden_of(output), output
        if stop:
            raise StopForward
        # What follows may add to it in place, as Falcon does.
        captured.value = captured.value.clone()

    with module.register_forward_hook(hook):
        yield captured


@contextmanager
def change_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces the first argument of a module.

    Args:
        module: Whose argument to replace.
        change: From the old argument to the new one.
    """

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(args[0]), *args[1:])

    with module.register_forward_pre_hook(hook):
        yield


def logits_at(head: nn.Module, rows: Tensor, columns: Tensor) -> AbstractContextManager[None]:
    """Keeps only the positions whose logits are wanted, so that a pass returns logits ``(1, positions, vocabulary)``.

    Args:
        head: The language-modeling head; of an offloaded model it may be on another device than the tokens.
        rows: ``(positions,)`` row of each.
        columns: ``(positions,)`` column of each.
    """
    return change_input(head, lambda hidden: hidden[rows.to(hidden.device), columns.to(hidden.device)][None])


@contextmanager
def change_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces the hidden state that leaves a module.

    Args:
        module: Whose output to replace.
        change: From the old hidden state to the new one.
    """

    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return with_hidden(output, change(hidden_of(output)))

    with module.register_forward_hook(hook):
        yield


@contextmanager
def resume_from(blocks: Sequence[nn.Module], output: Any, hidden: Tensor) -> Iterator[None]:
    """Runs a model as if its lowest blocks had been computed already.

    The blocks given are skipped inside the model's own forward, which keeps its final norm, scaling and soft-capping.
    So are their hooks: where weights are divided between processes, those would gather weights that nobody needs.

    Args:
        blocks: The lowest blocks of the model, up to the one whose output is known.
        output: What that block returned once; gives the form of the answer.
        hidden: ``(rows, length, d_model)``, the hidden state that leaves the last of the blocks.
    """

    def forward(*_: Any, **__: Any) -> Any:
        return with_hidden(output, hidden)

    skipped = {"forward": forward, "_forward_pre_hooks": OrderedDict(), "_forward_hooks": OrderedDict()}
    before = [{name: block.__dict__[name] for name in skipped if name in block.__dict__} for block in blocks]
    for block in blocks:
        block.__dict__.update(skipped)
    try:
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            del block.__dict__["forward"]
            block.__dict__.update(old)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients, both put back afterwards.

    Args:
        model: The model; its parameters are not touched.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)


@torch.no_grad()
def run_until(model: nn.Module, inputs: dict[str, Any], *captures: Any) -> list[Captured]:
    """One forward pass that ends where the last capture says.

    Args:
        model: The model.
        inputs: Keyword arguments of its forward.
        captures: Context managers of this module, one of which may stop the pass.
    """
    with ExitStack() as stack:
        captured = [stack.enter_context(capture) for capture in captures]
        try:
            model(**inputs)
        except StopForward:
            if isinstance(model, FSDPModule):
                # What was gathered for the rest of the pass would hide later changes of the weights.
                model.reset_iter_state()
    return captured
