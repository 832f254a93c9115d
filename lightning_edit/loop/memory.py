"""Before work starts: how much memory a run will take, how much there is, and what to lower if that is too little."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import torch

from lightning_edit.editor import Editor
from lightning_edit.gradients.source import Source
from lightning_edit.keys.moment_pass import MAX_TOKENS, MAX_TOKENS_CPU
from lightning_edit.loop.carried import Course, carried
from lightning_edit.messages import readable
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.places import blocks_of, weight_shape
from lightning_edit.models.output_gradients import MAX_LOGITS
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import AlphaEdit, Solver
from lightning_edit.values.memory import DOUBLE, LOGITS, activation_width, few_at_once, model_memory, values_memory
from lightning_edit.values.optimize import encode_texts

logger = logging.getLogger(__name__)

# A null space takes C, its eigenvectors, and LAPACK's workspace of twice that.
NULL_SPACE = 4
# Delta and W in float64.
WRITING = 2
# How much of what is kept for gradients is there in a pass that needs none.
WITHOUT_GRADIENTS = 0.5
MEMINFO = Path("/proc/meminfo")
LIMIT, USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True)
class MemoryNeeds:
    """About how many bytes the parts of a run take.

    Args:
        model: Its parameters and buffers.
        base_copies: Of the edited matrices as they were.
        second_moments: C of the layers that are in memory together.
        counting: What more there is while C is counted and checked.
        values: What more there is while values are searched for.
        solving: What more there is while updates are solved and written.
        kept: What updates leave for later ones: their sum, earlier keys, and what an anchor remembers.
        device: At most on the model's device.
        main: At most in main memory beside that; 0 where the model is there itself.
    """

    model: int
    base_copies: int
    second_moments: int
    counting: int
    values: int
    solving: int
    device: int
    main: int
    kept: int = 0

    def __str__(self) -> str:
        """One line."""
        more = f", and {in_words(self.main)} of main memory" if self.main else ""
        parts = ", ".join(
            f"{name.replace('_', ' ')} {in_words(size)}"
            for name, size in asdict(self).items()
            if name in PARTS and (size or name != "kept")
        )
        return f"about {in_words(self.device)} at most{more} ({parts})"


PARTS = ("model", "base_copies", "second_moments", "counting", "values", "solving", "kept")


def in_words(size: float) -> str:
    """Bytes for people: 3.2 GB, 75 MB."""
    return f"{readable(size / 1e9)} GB" if size >= 1e9 else f"{readable(size / 1e6)} MB"


def memory_needs(
    decoder: Decoder, layers: Sequence[int], solver: Solver, course: Course, texts: int, values: int
) -> MemoryNeeds:
    """What a run will take, from the shapes of its model and its settings; the peak is where most is there at once.

    Args:
        decoder: The model.
        layers: The edited layers.
        solver: Which member of the family writes.
        course: How many keys it writes, and in how many updates.
        texts: Contexts of each edit.
        values: The bytes of the search for values, see `values_memory`.
    """
    low, on_cpu = decoder.memory == "low", decoder.device.type == "cpu"
    own = carried(decoder, layers, solver, course)
    moments = [DOUBLE * prod(decoder.moment_shape(layer)) * solver.needs_second_moment for layer in layers]
    # B of each layer, and its eigenvectors once it is solved.
    outputs = sum(2 * DOUBLE * weight_shape(decoder, layer)[0] ** 2 for layer in layers) * solver.needs_output_moment
    weights = [decoder.parameter(layer) for layer in layers]
    model, base = model_memory(decoder), sum(weight.numel() * weight.element_size() for weight in weights)
    size, config = decoder.model.dtype.itemsize, decoder.model.config.get_text_config()
    widest = max(activation_width(block, config) for block in decoder.blocks)
    tokens = decoder.tokens_at_once(MAX_TOKENS_CPU if on_cpu else MAX_TOKENS)
    counting = max(int(WITHOUT_GRADIENTS * tokens * size * widest), max(moments))
    if solver.needs_output_moment:
        widths = [activation_width(block, config) for block in decoder.blocks[blocks_of(decoder, layers)[0] :]]
        logits = LOGITS * min(tokens * config.vocab_size, MAX_LOGITS) * max(size, 4)
        counting = max(counting, int(tokens * size * sum(widths) + logits))
    writing = [WRITING * DOUBLE * weight.numel() for weight in weights]
    keys = [DOUBLE * course.keys * decoder.key_size(layer) * max(2 * texts, 6) for layer in layers]
    factors = max(moments) if low else sum(moments)
    solving = factors + max(keys) + max(writing) + own.working
    if low:
        # C is gone before its layer is written.
        solving = max(factors, max(writing) - max(moments)) + max(keys) + own.working
    if isinstance(solver, AlphaEdit):
        # Only before the first update, where nothing else is carried yet.
        solving = max(solving, max(moments) * NULL_SPACE + (0 if low else sum(moments)) + max(keys))
    together = (max(moments) if low else sum(moments)) + outputs
    kept = own.kept
    if not low:
        peak = model + base + together + max(counting, kept + values, kept + solving)
        return MemoryNeeds(model, base, together, counting, values, solving, peak, 0, kept)
    # C of one layer is there while it is counted, and while the layer is solved.
    beside = max(together * on_cpu + counting, kept + values, kept + together + solving)
    device, main = (model + base + beside, 0) if on_cpu else (model + beside, base + sum(moments))
    return MemoryNeeds(model, base, together, counting, values, solving, device, main, kept)


def needs_of(editor: Editor, requests: Sequence[EditRequest], at_once: int, per_update: int | None) -> MemoryNeeds:
    """What the edits of a run will take.

    Args:
        editor: Whose settings count; its second moments are not looked at.
        requests: The edits.
        at_once: Edits whose values are asked for together.
        per_update: Edits of one update, None for all.
    """
    decoder, layer, settings = editor.weights.decoder, editor.value_layer, editor.values
    if editor.source is not None:
        return _needs_with_source(editor, editor.source, requests, per_update)
    how = (decoder, editor.tokenizer, requests[:at_once], editor.templates, layer, settings)
    values = 0
    for part in few_at_once(*how):
        rows = encode_texts(editor.tokenizer, part, editor.templates, settings.kl_prompt, decoder.context)
        values = max(values, values_memory(decoder, layer, settings.site, rows))
    course = _course(editor, requests, per_update, min(per_update or len(requests), len(requests)))
    return memory_needs(decoder, editor.layers, editor.solver, course, len(editor.templates), values)


def _needs_with_source(
    editor: Editor, source: Source, requests: Sequence[EditRequest], per_update: int | None
) -> MemoryNeeds:
    """What updates take whose pairs come from a source."""
    keys, values = source.memory(editor.asked(requests[:per_update]))
    course = _course(editor, requests, per_update, keys)
    return memory_needs(editor.weights.decoder, editor.layers, editor.solver, course, 1, values)


def _course(editor: Editor, requests: Sequence[EditRequest], per_update: int | None, keys: int) -> Course:
    """The course of a run whose updates write so many keys."""
    anchor, tokens = editor.anchor, 0
    if anchor is not None and anchor.from_unedited:
        texts = [text for r in requests[:per_update] for text in editor.templates.answered(editor.tokenizer, r)]
        # Only the bare prompts count.
        tokens = sum(len(ids) for ids, _ in texts) // len(editor.templates)
    updates = -(-len(requests) // (per_update or len(requests)))
    return Course(keys, updates, editor.previous_keys is not None, anchor, tokens)


def free_memory(device: torch.device) -> int | None:
    """The bytes that are free on a device, None where the system does not say.

    Args:
        device: The device; of main memory a container's limit counts as well.
    """
    if device.type != "cpu":
        return int(torch.accelerator.get_memory_info(device)[0])
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    if LIMIT.is_file() and (limit := LIMIT.read_text().strip()).isdigit():
        free = min(free, int(limit) - int(USED.read_text()))
    return free


def preflight(needs: MemoryNeeds, decoder: Decoder, edits_at_once: str, shown: bool = True) -> None:
    """Says what a run takes in one line, and warns where that is not there.

    Args:
        needs: What it takes.
        decoder: Its model, which is loaded.
        edits_at_once: The name of the setting for so many values at once.
        shown: Whether the line is for all to see, or only for those who ask for information.
    """
    free = free_memory(decoder.device)
    said = "" if free is None else f"; {in_words(free)} are free beside the model"
    logger.log(logging.WARNING if shown else logging.INFO, "memory: %s%s", needs, said)
    short = free is not None and needs.device - needs.model > free
    if needs.main and (main := free_memory(torch.device("cpu"))) is not None and needs.main > main:
        logger.warning("memory: %s of main memory are needed and %s free.", in_words(needs.main), in_words(main))
        short = True
    if short:
        logger.warning("memory: that will hardly fit. %s", _lower(needs, decoder, edits_at_once))


def _lower(needs: MemoryNeeds, decoder: Decoder, edits_at_once: str) -> str:
    """What to change, what helps most first."""
    advice = [] if decoder.memory == "low" else ["set `memory: low`"]
    if needs.values > needs.second_moments + needs.solving:
        advice += [f"lower `{edits_at_once}`", "edit fewer layers"]
    else:
        advice += ["edit fewer layers", "write fewer edits at once (`edits_per_update`)"]
    return f"Try, in this order: {'; '.join([*advice, 'load the model in `bfloat16`'])}."


def announce(
    editor: Editor,
    requests: Sequence[EditRequest],
    at_once: int,
    per_update: int | None,
    setting: str,
    shown: bool = True,
) -> MemoryNeeds:
    """Says what the edits of a run will take before its work starts; see `needs_of` and `preflight`.

    Args:
        editor: See `needs_of`.
        requests: The edits.
        at_once: See `needs_of`.
        per_update: See `needs_of`.
        setting: The name of the setting for ``at_once``.
        shown: See `preflight`.
    """
    needs = needs_of(editor, requests, at_once, per_update)
    preflight(needs, editor.weights.decoder, setting, shown)
    return needs
