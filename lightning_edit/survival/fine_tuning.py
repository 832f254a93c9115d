"""A LoRA fine-tuning on ordinary text, by PEFT, merged into the weights: what happens to many a deployed model."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.seeded import seeded
from lightning_edit.progress import Report, silent
from lightning_edit.survival.settings import SurvivalSettings

STAGE, ADAPTER = "fine-tune (steps)", "survival"


def check_peft() -> None:
    """Refuses to fine-tune without PEFT.

    Raises:
        EditError: If the package is missing.
    """
    if find_spec("peft") is None:
        raise EditError("LoRA needs the package peft, which is missing: pip install 'lightning-edit[peft]'.")


def trained_maps(decoder: Decoder) -> list[str]:
    """The names of the linear maps that get an adapter: all of the blocks, but for experts, which are stacked.

    Args:
        decoder: The model.

    Raises:
        EditError: If there is none.
    """
    inside = {id(module) for block in decoder.blocks for module in block.modules()}
    names = [
        name
        for name, module in decoder.model.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear | Conv1D)
    ]
    if not names:
        raise EditError(f"{type(decoder.model).__name__} has no linear map in its blocks that LoRA could be put on.")
    return names


@dataclass(frozen=True)
class FineTuned:
    """A model that was fine-tuned.

    Args:
        losses: ``(steps,)`` the loss of each step, in nats a token.
        undone: Makes a context in which the weights are as before the fine-tuning.
    """

    losses: Tensor
    undone: Callable[[], AbstractContextManager[None]]


@contextmanager
def fine_tuned(
    decoder: Decoder, rows: Sequence[Sequence[int]], settings: SurvivalSettings, report: Report = silent
) -> Iterator[FineTuned]:
    """The model after a fine-tuning, inside a ``with`` block; its weights come back bit for bit, error or not.

    Copies of the weights that are trained are kept on the CPU for that, as a rounded sum cannot be undone.

    Args:
        decoder: The model.
        rows: Token ids, each row of at least two.
        settings: How it is trained.
        report: Called with the number of steps done and the loss.

    Raises:
        EditError: If PEFT is missing, or training diverges.
    """
    check_peft()
    names = trained_maps(decoder)
    weights = [decoder.model.get_submodule(name).weight for name in names]
    kept = _copies(weights)

    @contextmanager
    def undone() -> Iterator[None]:
        learned = _copies(weights)
        _write(weights, kept)
        try:
            yield
        finally:
            _write(weights, learned)

    try:
        yield FineTuned(_train_and_merge(decoder, names, rows, settings, report), undone)
    finally:
        _write(weights, kept)


def _copies(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().to("cpu", copy=True) for weight in weights]


@torch.no_grad()
def _write(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def _train_and_merge(
    decoder: Decoder, names: Sequence[str], rows: Sequence[Sequence[int]], settings: SurvivalSettings, report: Report
) -> Tensor:
    from peft import LoraConfig, inject_adapter_in_model

    conv = isinstance(decoder.model.get_submodule(names[0]), Conv1D)
    config: Any = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number
        target_modules=list(names),
        fan_in_fan_out=conv,
    )
    try:
        with seeded(settings.seed):
            inject_adapter_in_model(config, decoder.model, ADAPTER)
            losses = _train(decoder.model, rows, settings, report)
        for name in names:
            decoder.model.get_submodule(name).merge(adapter_names=[ADAPTER])
    finally:
        _take_off(decoder.model, names)
    return losses


def _take_off(model: Any, names: Sequence[str]) -> None:
    """Puts the linear maps themselves in the place of what holds them and their adapters."""
    for name in names:
        parent, _, last = name.rpartition(".")
        adapted = model.get_submodule(name)
        setattr(model.get_submodule(parent), last, getattr(adapted, "base_layer", adapted))
    # By this it would be known as a model that carries adapters.
    vars(model).pop("peft_config", None)
    model.requires_grad_(False)


def _train(model: Any, rows: Sequence[Sequence[int]], settings: SurvivalSettings, report: Report) -> Tensor:
    """AdamW on the adapters; the order of the rows is drawn anew whenever all of them were read."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        # Steps of this size are lost in the rounding of 16 bits.
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    optimizer = torch.optim.AdamW(trained, lr=settings.lr)
    device, losses, batches = model.get_input_embeddings().weight.device, [], _batches(rows, settings)
    with torch.enable_grad():
        for step in range(settings.steps):
            ids = torch.tensor(next(batches), device=device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :-1]
            loss = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise EditError(f"The fine-tuning diverged in step {step + 1}: its loss is not finite. Lower `lr`.")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            report(STAGE, step + 1, settings.steps, loss=losses[-1])
    return torch.tensor(losses, dtype=torch.float64)


def _batches(rows: Sequence[Sequence[int]], settings: SurvivalSettings) -> Iterator[list[Sequence[int]]]:
    generator = torch.Generator().manual_seed(settings.seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < settings.batch_size:
            waiting += torch.randperm(len(rows), generator=generator).tolist()
        chosen, waiting = waiting[: settings.batch_size], waiting[settings.batch_size :]
        yield [rows[place] for place in chosen]
