"""Values from gradients: whole updates against the published way, and against one bare pass forward and backward.

The published way goes through mini-batches of ten with the logits of every position, and solves the primal system of
each matrix in float32. The floor is what no way can do without: the same texts once forward, with the logits of the
answers alone, and once backward down to the lowest edited matrix.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_edit.editor import Editor
from lightning_edit.gradients.gradient import Gradient
from lightning_edit.gradients.passes import MAX_TOKENS
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.stored_moments import unneeded_moment
from lightning_edit.models.batches import by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.fast_ops import fast
from lightning_edit.models.finding.places import places_of, with_maps
from lightning_edit.models.hooks import change_output, logits_at
from lightning_edit.requests import EditRequest
from lightning_edit.solvers import Ridge
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.values.settings import ValueSettings
from tests.benchmarks.floor import reached
from tests.benchmarks.material import Choice, Material, load
from tests.benchmarks.measure import MemoryGrowth, seconds
from tests.benchmarks.show import Row, Run, mebibytes, number, percent, ratio, table_of
from tests.plain import right_padded

PUBLISHED, LIBRARY = "published way", "library"
MODELS = ("gpt2", "tiny")
MAPS, ETA, BATCH = ["mlp.*"], 1e-6, 10
FULL, QUICK, COMPARED = 128, 64, 8
Job = Callable[[], dict[str, Tensor]]


def editor_of(case: Material) -> Editor:
    """Ridge regression on all maps of the MLPs of two blocks."""
    decoder = with_maps(find_decoder(case.model), MAPS)
    places = places_of(decoder, [case.layer, case.layer + 1], MAPS)
    moments = {place: unneeded_moment(decoder, place) for place in places}
    settings = (ContextTemplates(), ValueSettings(), moments)
    source = Gradient(maps=MAPS, eta=ETA, mini_batch=BATCH)
    return Editor(EditedWeights(decoder, places), case.tokenizer, Ridge(1.0), places, *settings, source=source)


def library(case: Material, editor: Editor) -> Job:
    """All edits as one update of the library, written into the weights; anew each time."""
    decoder = editor.weights.decoder

    def run() -> dict[str, Tensor]:
        editor.weights.set({})
        editor.statistics = {}
        editor.write(case.requests, torch.zeros(len(case.requests), 0), measured=False)
        return {decoder.names[place]: factors.dense() for place, factors in editor.weights.added.items()}

    return run


def published(case: Material, editor: Editor) -> Job:
    """The same by mini-batches, a primal system for each matrix, in the model's precision."""
    decoder, size = editor.weights.decoder, len(case.requests)
    names = [decoder.names[place] for place in editor.layers]

    def run() -> dict[str, Tensor]:
        editor.weights.set({})
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in names}
        for start in range(0, size, BATCH):
            for name, pair in _cached(case, names, case.requests[start : start + BATCH]).items():
                pairs[name].append(pair)
        found = {name: tuple(map(torch.cat, zip(*parts, strict=True))) for name, parts in pairs.items()}
        added = {}
        for name, (h, g) in found.items():
            alike = [pair for pair in found.values() if pair[0].shape == h.shape and pair[1].shape == g.shape]
            z = torch.cat([torch.cat(pair, 1) for pair in alike])
            own = (torch.cat([h, g], 1) - z.mean(0)) / z.std(0)
            key, gradient = own.split([h.shape[1], g.shape[1]], 1)
            v = -ETA * key.square().sum(1, keepdim=True) * gradient
            # No solver takes half precision.
            h, v = (part.to(torch.promote_types(h.dtype, torch.float32)) for part in (h, v))
            system = h.T @ h + torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
            added[name] = torch.linalg.solve(system, h.T @ v).T
        for place, name in zip(editor.layers, names, strict=True):
            decoder.weight(place).add_(added[name])
        return added

    return run


def _cached(case: Material, names: Sequence[str], batch: Sequence[EditRequest]) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and output gradients at the answers of one mini-batch."""
    texts = [ContextTemplates().answered(case.tokenizer, request)[0] for request in batch]
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str) -> Callable[..., Tensor]:
        def hook(_: Any, args: Any, output: Tensor) -> Tensor:
            leaving = output if output.requires_grad else output.detach().requires_grad_()
            seen[name] = (args[0].detach(), leaving)
            return leaving

        return hook

    handles = [case.model.get_submodule(name).register_forward_hook(look(name)) for name in names]
    with torch.enable_grad():
        logits = case.model(**right_padded([ids for ids, _ in texts], case.model.device)).logits
        rows, columns = zip(*[(r, i) for r, (ids, start) in enumerate(texts) for i in range(start - 1, len(ids) - 1)])  # noqa: B905
        targets = torch.tensor([token for ids, start in texts for token in ids[start:]], device=logits.device)
        loss = cross_entropy(logits[rows, columns], targets)
        gradients = torch.autograd.grad(loss, [leaving for _, leaving in seen.values()])
    for handle in handles:
        handle.remove()
    places = zip(seen.items(), gradients, strict=True)
    return {name: (h[rows, columns], gradient[rows, columns]) for (name, (h, _)), gradient in places}


def bare(case: Material, editor: Editor) -> Job:
    """One pass forward and one backward down to the lowest edited matrix, in the library's groups of texts."""
    decoder = editor.weights.decoder
    # The way up of the lower of the two blocks.
    lowest = decoder.down_projection(next(place for place in editor.layers if place >= len(decoder.blocks)))
    texts = [text for request in case.requests for text in ContextTemplates().answered(case.tokenizer, request)]
    groups = by_length([len(ids) - 1 for ids, _ in texts], MAX_TOKENS, tokens_of_a_pass(decoder.device))

    def run() -> dict[str, Tensor]:
        with torch.enable_grad(), fast(decoder):
            for group in groups:
                _bare_pass(decoder, lowest, [texts[i] for i in group])
        return {}

    return run


def _bare_pass(decoder: Any, lowest: torch.nn.Module, texts: Sequence[tuple[Sequence[int], int]]) -> None:
    batch, leaves = pad([ids[:-1] for ids, _ in texts], decoder.device), list[Tensor]()
    at = [(r, start - 1 + i, token) for r, (ids, start) in enumerate(texts) for i, token in enumerate(ids[start:])]
    rows, columns, tokens = (torch.tensor(part, device=decoder.device) for part in zip(*at, strict=True))

    def leaf(states: Tensor) -> Tensor:
        leaves.append(states.detach().requires_grad_())
        return leaves[0]

    with change_output(lowest, leaf), logits_at(decoder.head, rows, columns):
        loss = cross_entropy(decoder.model(**batch.inputs()).logits[0], tokens)
    torch.autograd.grad(loss, leaves)


def measure(choice: Choice, repeats: int, published_too: bool = True) -> list[Row]:
    """Seconds an edit of both ways, or the library's alone, and of the floor, measured in turn in one process."""
    case = load(choice)
    editor = editor_of(case)
    ways = {PUBLISHED: published(case, editor)} if published_too else {}
    ways |= {LIBRARY: library(case, editor)}
    floor, rows = bare(case, editor), []
    with torch.no_grad():
        floor()
        before, _ = seconds(floor, repeats)
        for how, job in ways.items():
            growth = MemoryGrowth()
            taken, _ = seconds(job, repeats, warm_up=1)
            memory = growth()
            after, _ = seconds(floor, repeats)
            edits, least = len(case.requests), (before + after) / 2
            rows.append({"model": choice.title, "method": how, "edits": edits, "memory_bytes": memory})
            rows[-1] |= {"matrices": len(editor.layers), **reached(taken / edits, least / edits)}
            before = after
    return rows


def compare(choice: Choice) -> Row:
    """The largest difference of an update between both ways, relative to its norm, in float64."""
    case = load(choice, torch.float64)
    editor = editor_of(case)
    with torch.no_grad():
        expected, found = published(case, editor)(), library(case, editor)()
    errors = [float((found[name] - delta).norm() / delta.norm()) for name, delta in expected.items()]
    return {"model": choice.title, "edits": len(case.requests), "relative_error_float64": max(errors)}


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model; see the module."""
    timings, compared = list[Row](), list[Row]()
    for choice in run.choices(MODELS, QUICK if quick else FULL):
        what = f"{choice.title}: values from gradients, {choice.edits} edits"
        timings += run(what, measure, choice, 1 if quick else 2)
        if choice.dtype == torch.float32:
            some = replace(choice, edits=min(COMPARED, choice.edits))
            compared.append(run(f"{choice.title}: equality in float64, {some.edits} edits", compare, some))
    return {"timed": timings, "compared": compared}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    slow = {row["model"]: row["seconds"] for row in rows["timed"] if row["method"] == PUBLISHED}
    timings = table_of(
        "Values from gradients",
        "Pairs, solving and writing of one update of all edits. Floor: one pass forward and one backward, down to the "
        "lowest edited matrix, measured before and after each. Memory: rise of the peak.",
        ("model", "method", "edits", "matrices", "edits per s", "times faster", "of the floor", "peak memory"),
        2,
        [
            (
                row["model"],
                row["method"],
                str(row["edits"]),
                str(row["matrices"]),
                number(1 / row["seconds"]),
                ratio(slow[row["model"]], row["seconds"]),
                percent(row),
                mebibytes(row["memory_bytes"]),
            )
            for row in rows["timed"]
        ],
    )
    compared = table_of(
        "Values from gradients: equality in float64",
        "Largest difference of an update, Frobenius, relative to that by the published way.",
        ("model", "edits", "relative error"),
        1,
        [(row["model"], str(row["edits"]), f"{row['relative_error_float64']:.1e}") for row in rows["compared"]],
    )
    return [timings, compared]
