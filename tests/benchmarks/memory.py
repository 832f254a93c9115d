"""Peak memory of whole edits, with `memory: normal` and `low`, against the bare model in a pass over one text."""

import time
from typing import Any

import torch
from rich.table import Table

from lightning_edit import EMMET, EditRequest, SecondMomentSettings, edit
from lightning_edit.keys.context_templates import generate_templates
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import Memory, find_decoder
from lightning_edit.tiny import World
from lightning_edit.values.memory import model_memory
from tests.benchmarks.material import Choice, Material, load
from tests.benchmarks.measure import MemoryGrowth, TensorPeak
from tests.benchmarks.show import Row, Run, mebibytes, number, table_of
from tests.benchmarks.values import settings

MODELS = ("gpt2", "smollm2-135m", "tiny-moe")
EXPERTS = "tiny-moe"


def material(choice: Choice) -> Material:
    """What is measured on: also the embedded model with experts."""
    if choice.model != EXPERTS:
        return load(choice)
    model, tokenizer = load_model(EXPERTS, "float32").eval().requires_grad_(False), load_tokenizer(EXPERTS)
    records = World.generate().records(choice.edits, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    return Material(model, tokenizer, requests, generate_templates(model, tokenizer, seed=0), layer=1)


def _edit(case: Material, memory: Memory, tokens: int, steps: int) -> Any:
    return edit(
        case.model,
        case.tokenizer,
        case.requests,
        EMMET(ridge=1.0),
        [case.layer],
        values=settings(steps),
        texts=World.generate().sentences(0),
        templates=case.templates,
        second_moment=SecondMomentSettings(tokens=tokens, cache_dir=None),
        progress=False,
        memory=memory,
    )


def measure(name: str, choice: Choice, memory: Memory, tokens: int, steps: int) -> Row:
    """Peaks and seconds of an edit; run in its own process.

    Args:
        name: Of the model, for people.
        choice: Model and edits.
        memory: The setting.
        tokens: Of text for second moments.
        steps: Passes of each value.
    """
    case = material(choice)
    model = model_memory(find_decoder(case.model))
    ids = torch.arange(64)[None].to(case.model.device)
    with torch.no_grad():
        growth = MemoryGrowth()
        case.model(ids)
        bare = growth()
        with TensorPeak() as bare_tensors:
            case.model(ids)
    growth, start = MemoryGrowth(), time.perf_counter()
    update = _edit(case, memory, tokens, steps)
    seconds, process = time.perf_counter() - start, growth()
    update.remove(case.model)
    with TensorPeak() as tensors:
        _edit(case, memory, tokens, steps)
    about = {"model": name, "memory": memory, "edits": len(case.requests), "seconds": seconds, "model_bytes": model}
    return about | {
        "bare_bytes": model + bare_tensors.peak,
        "tensor_bytes": model + tensors.peak,
        "bare_process_bytes": model + bare,
        "process_bytes": model + process,
    }


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model with both settings; see the module."""
    rows = []
    for choice in run.choices(MODELS, 8):
        name = "the shipped model with experts" if choice.model == EXPERTS else choice.title
        for memory in ("normal", "low"):
            # More steps take longer and the peak is the same.
            numbers = (512, 2) if quick else (8192, 5)
            rows.append(run(f"{name}: memory {memory}", measure, name, choice, memory, *numbers))
    return {"timed": rows}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    lines = [
        (
            row["model"],
            row["memory"],
            mebibytes(row["model_bytes"]),
            mebibytes(row["tensor_bytes"]),
            f"{row['tensor_bytes'] / row['bare_bytes']:.2f}",
            f"{row['process_bytes'] / row['bare_process_bytes']:.2f}",
            number(row["seconds"]),
        )
        for row in rows["timed"]
    ]
    columns = ("model", "memory", "weights", "peak of tensors", "of the bare model", "process, the same", "seconds")
    return [
        table_of(
            "Peak memory of whole edits of one layer",
            "The bare model is its weights and a pass over 64 tokens. A process also holds what allocators do not give "
            "back, which counts for much beside a small model.",
            columns,
            2,
            lines,
        )
    ]
