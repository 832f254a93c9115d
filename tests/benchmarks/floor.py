"""The least time a stage can take: the floating-point operations it needs, at the measured rate of matrix products.

A multiply-add is two operations. Counted are the linear maps of the blocks and the head, and attention, for the tokens
there really are; embeddings, norms and activations are not. All sizes come from the modules themselves.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.asking.tokenization import encode_subject, encode_target
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.sites import oriented_weight, parameter_name
from lightning_edit.requests import EditRequest
from lightning_edit.values.optimize import ValueSettings
from tests.benchmarks.measure import MemoryGrowth, finish, seconds
from tests.plain import plain_texts

# Some tokens through the maps of an MLP, up and down.
SHAPES = ((256, 768, 3072), (512, 768, 3072), (512, 3072, 768))
SHAPES_CUDA = ((2048, 4096, 14336), (8192, 4096, 14336), (8192, 14336, 4096))


def matrix_rate(dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """Operations a second in matrix products of the best of a few shapes, with the threads that torch now has."""
    rates, generator = [], torch.Generator(device).manual_seed(0)
    for m, k, n in SHAPES if device == "cpu" else SHAPES_CUDA:
        # A GPU is slower on numbers that are not all alike, and needs some time to reach its speed.
        left, right = (
            torch.randn(*shape, generator=generator, dtype=dtype, device=device) for shape in ((m, k), (k, n))
        )
        product, repeats = left @ right, 2 if device == "cpu" else 20
        finish()
        start = time.perf_counter()
        for _ in range(repeats):
            torch.matmul(left, right, out=product)
        finish()
        rates.append(repeats * 2 * m * k * n / (time.perf_counter() - start))
    return max(rates)


@dataclass(frozen=True)
class Timing:
    """How long a job took, its result, by how much memory grew, in bytes, and the matrix rate before and after."""

    seconds: float
    result: Any
    memory: int
    rate: float

    def against(self, operations: float, parts: float = 1) -> dict[str, float]:
        """The figures of a row: seconds, the floor of so many operations, how much of it is reached, and memory.

        Args:
            operations: Needed for the whole job.
            parts: Both times are divided by this, e.g. for seconds per edit.
        """
        figures = reached(self.seconds / parts, operations / self.rate / parts)
        return figures | {"matrix_rate": self.rate, "memory_bytes": self.memory}


def reached(measured: float, floor: float) -> dict[str, float]:
    """The two numbers of a stage, and the floor as a fraction of what was measured."""
    return {"seconds": measured, "floor_seconds": floor, "floor_fraction": floor / measured}


def timed(job: Callable[[], Any], repeats: int = 1, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Timing:
    """Median seconds of a job between two measurements of the matrix rate, whose mean counts."""
    before, growth = matrix_rate(dtype, device), MemoryGrowth()
    taken, result = seconds(job, repeats)
    memory = growth()
    return Timing(taken, result, memory, (before + matrix_rate(dtype, device)) / 2)


@dataclass(frozen=True)
class Sizes:
    """What a token costs.

    Args:
        linear: For each block the weights of its linear maps, of experts those of as many as a token goes to.
        mixed: For each block the width of what attention mixes, heads times their width.
        head: Weights of the head.
    """

    linear: tuple[int, ...]
    mixed: tuple[int, ...]
    head: int

    @staticmethod
    def of(decoder: Decoder) -> "Sizes":
        """The sizes of a model."""
        linear = tuple(sum(map(_used(decoder), block.parameters())) for block in decoder.blocks)
        mixed = []
        for block in decoder.blocks:
            # Attention knows the index of its layer; its last linear map is that of what it has mixed.
            inner = list(block.modules())[1:]
            attention = next(module for module in inner if hasattr(module, "layer_idx"))
            mixed.append(oriented_weight(_linear(attention)[-1]).shape[1])
        return Sizes(linear, tuple(mixed), decoder.head.weight.numel())

    def run(self, start: int, end: int, first: int = 0, last: int | None = None) -> float:
        """Operations for the tokens ``start`` to ``end - 1`` of a text in blocks ``first`` to ``last - 1``.

        What comes before them in the text is known, and attended to.
        """
        blocks, tokens = slice(first, last), end - start
        seen = (end * (end + 1) - start * (start + 1)) / 2
        return 2.0 * tokens * sum(self.linear[blocks]) + 4.0 * seen * sum(self.mixed[blocks])


def _used(decoder: Decoder) -> Callable[[Tensor], int]:
    """How many numbers of a parameter are multiplied with a token: a matrix, or its share of the experts' matrices."""
    taken = getattr(decoder.model.config.get_text_config(), "num_experts_per_tok", None)

    def count(weight: Tensor) -> int:
        # Norms and biases are not counted.
        return {2: weight.numel, 3: lambda: weight.numel() * taken // len(weight)}.get(weight.dim(), int)()

    return count


def _linear(module: nn.Module) -> list[Any]:
    return [inner for inner in module.modules() if isinstance(inner, nn.Linear | Conv1D)]


def _common(row: Sequence[int], other: Sequence[int]) -> int:
    """With how many tokens both begin."""
    shorter = min(len(row), len(other))
    return next((i for i in range(shorter) if row[i] != other[i]), shorter)


def _with_shared_head(sizes: Sizes, texts: Sequence[Sequence[int]], last: int | None = None) -> float:
    """Operations for texts whose common beginning, the head of a template, is run once."""
    # In the order of a dictionary, what the first and the last have in common all have.
    head = _common(min(texts), max(texts))
    return sizes.run(0, head, 0, last) + sum(sizes.run(head, len(text), 0, last) for text in texts)


def value_flops(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layer: int,
    settings: ValueSettings,
    passes: Sequence[int] | None = None,
) -> float:
    """Operations that the value vectors of some edits need, at site ``block``.

    Once: the tokens before the subject's last one in all blocks, the heads of templates shared by all edits, and the
    other tokens up to the edited block. In each pass: the other tokens in the blocks above, and the head where a token
    is predicted; and as much again for the gradient in all passes but the last, after which no step is made.

    Args:
        decoder: The model.
        tokenizer: Its tokenizer.
        requests: The edits.
        templates: Their contexts.
        layer: The edited block.
        settings: How values are optimized.
        passes: Of each edit; ``settings.steps`` if not given.
    """
    sizes, total = Sizes.of(decoder), 0.0
    edits = [plain_texts(tokenizer, request, templates, settings.kl_prompt) for request in requests]
    for same_template in zip(*edits, strict=True):
        total += _with_shared_head(sizes, [text.ids[: text.subject_last] for text in same_template])
    for texts, count in zip(edits, passes or [settings.steps] * len(edits), strict=True):
        for text in texts:
            # The last token of a target is predicted and never read; the divergence needs the subject's end alone.
            predicted = len(text.ids) - text.target_start
            end = len(text.ids) - 1 if predicted else text.subject_last + 1
            once = sizes.run(text.subject_last, end, 0, layer + 1)
            again = sizes.run(text.subject_last, end, layer + 1) + 2.0 * sizes.head * max(predicted, 1)
            total += once + (2 * count - 1) * again
    return total


def key_flops(
    decoder: Decoder, tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, layer: int
) -> float:
    """Operations for the keys of edits at one layer: each text up to the subject, heads of templates once."""
    sizes, total = Sizes.of(decoder), 0.0
    # What enters the down-projection is read, which itself need not run.
    module = decoder.down_projection(layer)
    down = _used(decoder)(getattr(module, parameter_name(module)))
    unused = [down if block == layer else 0 for block in range(layer + 1)]
    needed = replace(sizes, linear=tuple(a - b for a, b in zip(sizes.linear[: layer + 1], unused, strict=True)))
    written = [templates.apply(request.prompt) for request in requests]
    for same_template in zip(*written, strict=True):
        rows = []
        for text, request in zip(same_template, requests, strict=True):
            found = encode_subject(tokenizer, text, request.subject)
            rows.append(found.ids[: found.subject_last + 1])
        total += _with_shared_head(needed, rows, layer + 1)
    return total


def moment_flops(decoder: Decoder, rows: Iterable[Sequence[int]], layer: int) -> float:
    """Operations of the bare forward pass of texts up to a layer."""
    sizes = Sizes.of(decoder)
    return sum(sizes.run(0, len(row), 0, layer + 1) for row in rows)


def score_flops(decoder: Decoder, tokenizer: Any, pairs: Iterable[tuple[str, str]]) -> float:
    """Operations for the answers of (prompt, answer) pairs: each beginning of a text is read once."""
    sizes, total = Sizes.of(decoder), 0.0
    encoded = [encode_target(tokenizer, prompt, answer) for prompt, answer in dict.fromkeys(pairs)]
    # Sorted, a text shares most with the one before it.
    before: Sequence[int] = ()
    for row in sorted(ids[:-1] for ids, _ in encoded):
        total += sizes.run(_common(before, row), len(row))
        before = row
    asked = {tuple(ids[:place]) for ids, start in encoded for place in range(start, len(ids))}
    return total + 2.0 * sizes.head * len(asked)


def text_flops(decoder: Decoder, prompts: Iterable[Sequence[int]], length: int) -> float:
    """Operations to continue prompts to a length with a key/value cache, a prompt asked twice being read once."""
    sizes, total, read = Sizes.of(decoder), 0.0, set[tuple[int, ...]]()
    for prompt in map(tuple, prompts):
        # The last token written is not read.
        new = max(1, length - len(prompt))
        total += sizes.run(0 if prompt not in read else len(prompt), len(prompt) + new - 1) + 2.0 * sizes.head * new
        read.add(prompt)
    return total


def solve_flops(edits: int, d_in: int, d_out: int, factored: bool = False) -> float:
    """Operations of one update in its smaller form, symmetric products and Cholesky factors counted by their half.

    Args:
        edits: n.
        d_in: Width of a key.
        d_out: Width of a value.
        factored: Whether the factor of C' is known.
    """
    n, factor = edits, 0.0 if factored else d_in**3 / 3
    # L^-1 K, its Gram matrix and that one's factor, by which the residual is divided; the product of both; and the
    # division by L of what is smaller, one factor or the product.
    dual = factor + n * d_in**2 + n**2 * d_in + n**3 / 3 + 2 * n**2 * d_out
    dual += 2 * n * d_in * d_out + min(n, d_out) * d_in**2
    # K K^T, the factor of the sum, and R K^T, which is divided by it.
    primal = n * d_in**2 + d_in**3 / 3 + 2 * n * d_in * d_out + 2 * d_out * d_in**2
    return min(dual, primal)
