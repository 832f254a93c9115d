"""How much memory the search for values takes, from the shapes of a model and its texts; and how many edits fit."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_edit.asking.tokenization import Encoded
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.finding.sites import experts_of, input_size, output_size
from lightning_edit.models.out_of_memory import halving
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.values.optimize import encode_texts, groups_of, optimize_values
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values

# The bytes of a number in float64.
DOUBLE = 8
# With `memory: low` the values searched for at once take so much of what the model takes.
SHARE = 0.1
# How much of what linear maps give is kept for gradients, with what functions and norms make of it; experts also keep
# what they are given, sorted.
ACTIVATIONS, ROUTED = 1.2, 3.5
# Log-probabilities and two gradients.
LOGITS = 3
# While they are cached, prefixes are there as they were run, and once more aligned.
CACHING = 2


def model_memory(decoder: Decoder) -> int:
    """The bytes of a model's parameters and buffers.

    Args:
        decoder: The model.
    """
    tensors = [*decoder.model.parameters(), *decoder.model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def activation_width(block: nn.Module, config: Any) -> float:
    """About how many numbers a block keeps of a token for gradients, from the widths of its linear maps.

    Args:
        block: A decoder block.
        config: The configuration of the model's text part.
    """
    visited = getattr(config, "num_experts_per_tok", None) or 1
    width = 0.0
    for module in block.modules():
        if count := experts_of_module(module):
            # Gate, up and down, whichever way they are stored.
            width += ROUTED * min(visited, count) * (2 * input_size(module) + (output_size(module) or 0))
        else:
            width += ACTIVATIONS * (output_size(module) or 0)
    return width


def experts_of_module(module: nn.Module) -> int:
    """How many experts a module is made of, 0 if it is something else."""
    return experts_of(module) if output_size(module) is not None else 0


def cache_width(config: Any) -> int:
    """How many numbers a block keeps of a token that later ones attend to.

    Args:
        config: The configuration of the model's text part.
    """
    heads = getattr(config, "num_attention_heads", None) or 1
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * size * (getattr(config, "num_key_value_heads", None) or heads)


def values_memory(decoder: Decoder, layer: int, site: ValueSite, rows: Sequence[tuple[int, Encoded]]) -> int:
    """About how many bytes the search for the values of some edits takes at most, beside the model.

    Args:
        decoder: The model.
        layer: The highest edited layer.
        site: Where values are added.
        rows: Each edit's number with one of its texts, as from `encode_texts`.
    """
    config, size = decoder.model.config.get_text_config(), decoder.model.dtype.itemsize
    resumed = decoder.resumption.prefixes
    above = decoder.blocks[layer + (site == "block") :]
    width = sum(activation_width(block, config) for block in above)
    kept = running = making = 0
    for group in groups_of([text for _, text in rows], decoder):
        texts = [rows[i][1] for i in group]
        prefix = max(text.subject_last for text in texts) if resumed else 0
        length = max(_end(text) - (text.subject_last if resumed else 0) for text in texts)
        picks = sum(max(len(text.ids) - text.target_start, 1) for text in texts)
        cache = cache_width(config) * size * len(texts)
        making = max(making, CACHING * cache * prefix * len(decoder.blocks))
        kept += cache * prefix * len(above)
        step = cache * (prefix + length) * len(above) + size * width * len(texts) * length
        running = max(running, step + LOGITS * picks * config.vocab_size * max(size, 4))
    reference = len({edit for edit, _ in rows}) * config.vocab_size * max(size, 4)
    return int(kept + max(making, running) + reference)


def _end(text: Encoded) -> int:
    """How far a text is run: without the last token of its answer, or where it has none, to its subject's last one."""
    return len(text.ids) - 1 if text.target_start < len(text.ids) else text.subject_last + 1


def few_at_once(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layer: int,
    settings: ValueSettings,
) -> list[Sequence[EditRequest]]:
    """The edits in parts whose values are searched for at once: all in one, or few where little memory is to be used.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        requests: The edits.
        templates: Their contexts.
        layer: The highest edited layer.
        settings: See `ValueSettings`.
    """
    if decoder.memory == "normal":
        return [requests]
    most, room, parts = SHARE * model_memory(decoder), 0.0, list[list[EditRequest]]()
    for request in requests:
        rows = encode_texts(tokenizer, [request], templates, settings.kl_prompt, decoder.context)
        taken = values_memory(decoder, layer, settings.site, rows)
        if not parts or taken > room:
            parts.append([])
            room = most
        parts[-1].append(request)
        room -= taken
    return list(parts)


def values_in_parts(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layer: int,
    settings: ValueSettings,
    report: Report = silent,
) -> Values:
    """The value vectors of edits, see `optimize_values`; those of one half after the other where room is short.

    Args:
        decoder: See `optimize_values`, as all others.
        tokenizer: The same.
        requests: The same.
        templates: The same.
        layer: The same.
        settings: The same.
        report: The same.
    """
    parts: list[Values] = []

    def find(part: Sequence[EditRequest]) -> Values:
        before = sum(map(len, parts))

        def show(stage: str, done: float, total: float, **figures: float) -> None:
            report(stage, before + done, len(requests), **figures)

        return optimize_values(decoder, tokenizer, part, templates, layer, settings, show)

    for share in few_at_once(decoder, tokenizer, requests, templates, layer, settings):
        for part in halving(find, share, decoder.model):
            parts.append(part)
    return Values.join(parts)
