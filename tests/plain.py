"""The published procedures as plainly as they can be written, to compare the library with.

One edit at a time, whole texts from the first token and the first block on, logits of every position, explicit inverses
and a pass for each layer. Nothing here is shared with the library but tokenization and the dataclasses of its settings.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_edit.asking.tokenization import Encoded, encode_subject
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.requests import EditRequest
from lightning_edit.values.settings import ValueSettings


@dataclass(frozen=True)
class PlainValue:
    """The value vector of one edit: z and z0 ``(d_model,)``, the loss parts of the last pass, the passes used."""

    z: Tensor
    z0: Tensor
    nll: float
    kl: float
    decay: float
    steps: int


@contextmanager
def hooked(handle: Any) -> Iterator[None]:
    """Removes a hook at the end of the block."""
    try:
        yield
    finally:
        handle.remove()


def right_padded(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Ids and mask ``(rows, longest)``; positions are left to the model, which counts from the left."""
    longest = max(len(row) for row in rows)
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def hidden_states(output: Any) -> Tensor:
    """What a module returns, or the first of it: some blocks return a tuple."""
    return output[0] if isinstance(output, tuple) else output


def plain_texts(tokenizer: Any, request: EditRequest, templates: ContextTemplates, kl_prompt: str) -> list[Encoded]:
    """The texts of one edit: bare prompt and prefixed prompts with the target, then the KL prompt."""
    written = [
        encode_subject(tokenizer, template, request.subject, request.target_new)
        for template in templates.apply(request.prompt)
    ]
    return [*written, encode_subject(tokenizer, kl_prompt, request.subject)]


class _Loss:
    """The loss of ROME's equation 4, from the logits of every position of every text."""

    def __init__(self, texts: Sequence[Encoded], settings: ValueSettings) -> None:
        self.settings = settings
        self.targets = [text.ids[text.target_start :] for text in texts[:-1]]
        self.starts = [text.target_start - 1 for text in texts[:-1]]
        self.kl_column = texts[-1].subject_last
        self.before: Tensor | None = None

    def __call__(self, logits: Tensor, delta: Tensor, z0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = logits.log_softmax(-1)
        per_text = []
        for row, (start, target) in enumerate(zip(self.starts, self.targets, strict=True)):
            at = torch.arange(start, start + len(target))
            per_text.append(-log_probs[row, at, torch.tensor(target)].mean())
        nll = torch.stack(per_text).mean()
        now = log_probs[-1, self.kl_column]
        if self.before is None:
            self.before = now.detach().clone()
        kl = self.settings.kl_factor * (now.exp() * (now - self.before)).sum()
        decay = self.settings.weight_decay * delta.norm() / z0.norm() ** 2
        return nll, kl, decay


class _Push:
    """A hook that adds delta at the subject's last token of every text, and notes what stood there in the first."""

    def __init__(self, texts: Sequence[Encoded], delta: Tensor) -> None:
        self.rows, self.columns = torch.arange(len(texts)), torch.tensor([text.subject_last for text in texts])
        self.delta = delta
        self.z0: Tensor | None = None

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        states = hidden_states(output)
        if self.z0 is None:
            self.z0 = states[0, self.columns[0]].detach().to(self.delta.dtype, copy=True)
        changed = states.clone()
        changed[self.rows, self.columns] += self.delta.to(changed.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


def plain_value(
    model: Any,
    module: nn.Module,
    tokenizer: Any,
    request: EditRequest,
    templates: ContextTemplates,
    settings: ValueSettings,
) -> PlainValue:
    """Optimizes the value vector of one edit.

    Args:
        model: In evaluation mode, its parameters requiring no gradients.
        module: Whose output is changed: a block, or its down-projection. ``settings.site`` is not looked at.
        tokenizer: The model's.
        request: The edit.
        templates: Its contexts.
        settings: The same as the library's.
    """
    texts = plain_texts(tokenizer, request, templates, settings.kl_prompt)
    inputs = right_padded([text.ids[:-1] for text in texts[:-1]] + [texts[-1].ids], model.device)
    precision = torch.promote_types(model.dtype, torch.float32)
    delta = torch.zeros(model.config.hidden_size, dtype=precision, device=model.device, requires_grad=True)
    push, loss, optimizer = _Push(texts, delta), _Loss(texts, settings), torch.optim.Adam([delta], lr=settings.lr)
    with hooked(module.register_forward_hook(push)):
        for step in range(1, settings.steps + 1):
            optimizer.zero_grad()
            parts = loss(model(**inputs).logits, delta, push.z0)
            if sum(parts) < settings.early_stop_loss or step == settings.steps:
                break
            sum(parts).backward()
            optimizer.step()
            with torch.no_grad():
                limit = settings.clamp_norm_factor * push.z0.norm()
                if delta.norm() > limit:
                    delta *= limit / delta.norm()
    return PlainValue((push.z0 + delta).detach(), push.z0, *(part.item() for part in parts), step)


def explicit_emmet(keys: Tensor, residual: Tensor, preservation: Tensor, lam: float) -> Tensor:
    """R (K^T M K + lam I)^-1 K^T M with both inverses written out, ``(d_out, d_in)``.

    Args:
        keys: K ``(d_in, n)``.
        residual: R ``(d_out, n)``.
        preservation: C' ``(d_in, d_in)``, whose inverse is M.
        lam: As in EMMET.
    """
    weighted = keys.T @ torch.linalg.inv(preservation)
    system = weighted @ keys + lam * torch.eye(keys.shape[1], dtype=keys.dtype, device=keys.device)
    return residual @ torch.linalg.inv(system) @ weighted


def explicit_memit(keys: Tensor, residual: Tensor, preservation: Tensor) -> Tensor:
    """R K^T (C' + K K^T)^-1 with the inverse written out; see `explicit_emmet`."""
    return residual @ keys.T @ torch.linalg.inv(preservation + keys @ keys.T)


@torch.no_grad()
def plain_at_subject(
    model: Any, module: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, str]], entering: bool, batch: int = 128
) -> Tensor:
    """What enters or leaves a module at the subject's last token, ``(texts, width)`` in float64.

    Whole texts go through the whole model, as in the published code, there 512 at once.

    Args:
        model: In evaluation mode.
        module: Of the model.
        tokenizer: The model's.
        texts: Pairs of a text with one ``{}`` and the subject that takes its place.
        entering: Whether what enters is wanted, otherwise what leaves.
        batch: Texts of one pass.
    """
    found = []
    for start in range(0, len(texts), batch):
        encoded = [encode_subject(tokenizer, template, subject) for template, subject in texts[start : start + batch]]
        seen: list[Tensor] = []

        def look(_: nn.Module, args: tuple[Any, ...], output: Any, seen: list[Tensor] = seen) -> None:
            seen.append(args[0] if entering else hidden_states(output))

        inputs = right_padded([text.ids for text in encoded], model.device)
        with hooked(module.register_forward_hook(look)):
            model(**inputs)
        by_row = seen[0].reshape(*inputs["input_ids"].shape, -1)
        found.append(by_row[torch.arange(len(encoded)), torch.tensor([text.subject_last for text in encoded])].double())
    return torch.cat(found)


def plain_keys(
    model: Any,
    module: nn.Module,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    batch: int = 128,
) -> Tensor:
    """Mean keys ``(d_in, n)`` in float64: one half the bare prompt, the other the mean of the prefixed ones.

    Args:
        model: In evaluation mode.
        module: The layer's down-projection.
        tokenizer: The model's.
        requests: The edits.
        templates: Their contexts.
        batch: See `plain_at_subject`.
    """
    texts = [(text, request.subject) for request in requests for text in templates.apply(request.prompt)]
    keys = plain_at_subject(model, module, tokenizer, texts, True, batch).view(len(requests), len(templates.texts), -1)
    mean = keys[:, 0] if keys.shape[1] == 1 else (keys[:, 0] + keys[:, 1:].mean(1)) / 2
    return mean.T


class _Reached(Exception):
    """The layer has been reached; the rest of the pass is not needed."""


@torch.no_grad()
def plain_second_moment(
    model: Any,
    module: nn.Module,
    batches: Sequence[Sequence[Sequence[int]]],
    stop: bool = False,
    done: Callable[[int], None] | None = None,
) -> Tensor:
    """E[k k^T] ``(d_in, d_in)`` in float64 of one layer, by passes made for that layer alone.

    Args:
        model: In evaluation mode.
        module: The layer's down-projection.
        batches: Token ids: batches of rows.
        stop: Whether a pass ends at the layer, as that of the published code does, or runs to the logits.
        done: Told the tokens of each finished batch.
    """
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    seen: list[Tensor] = []

    def look(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])
        if stop:
            raise _Reached

    with hooked(module.register_forward_pre_hook(look)):
        for batch in batches:
            inputs = right_padded(batch, model.device)
            with suppress(_Reached):
                model(**inputs)
            keys = seen.pop()[inputs["attention_mask"].bool()].double()
            total = total + keys.T @ keys
            tokens += len(keys)
            if done is not None:
                done(len(keys))
    return total / tokens
