"""Evaluation: all records in batches against the published loop, one record after the other."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.datamodules import CounterFact, TinyWorld
from lightning_edit.metrics import EditMetrics, EvaluationSettings, evaluate
from lightning_edit.metrics.generated_text import generation_entropy
from lightning_edit.models.decoder import find_decoder
from lightning_edit.progress import ProgressBars, Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.tiny import MODEL_PATH
from tests.benchmarks.floor import score_flops, text_flops, timed
from tests.benchmarks.material import KNOWING, SHAPES, Choice, build, build_tokenizer, invented_records
from tests.benchmarks.show import Row, Run, number, percent, ratio, table_of
from tests.conftest import SHARED

PLAIN, LIBRARY = "published loop", "library"
ANSWERS, TEXTS = "answers", "answers and texts of 100 tokens"
LENGTH = 100
MODELS = ("gpt2", "tiny", KNOWING)
KINDS = ("efficacy", "paraphrase", "neighborhood", "attribute")


def load(choice: Choice) -> tuple[Any, Any, list[EditRequest]]:
    """A model, its tokenizer, and records to measure."""
    if choice.model in SHAPES:
        tokenizer = build_tokenizer()
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        return build(choice.model, None, choice.device, choice.shrunk), tokenizer, invented_records(choice.edits)
    path = MODEL_PATH if choice.model == "tiny" else SHARED / "models" / choice.model
    known = str(SHARED / "data" / "counterfact_known.json")
    data = TinyWorld(choice.edits) if choice.model == "tiny" else CounterFact(known, limit=choice.edits)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(path).to(choice.device)
    return model.eval().requires_grad_(False), tokenizer, data.requests


def plain_answers(model: Any, tokenizer: Any, request: EditRequest) -> list[tuple[float, float]]:
    """Both answers' log-probabilities after all prompts of a record: one padded batch, read token by token."""
    prompts = [request.rewrite_prompt, *request.paraphrase_prompts]
    prompts += [*request.neighborhood_prompts, *request.attribute_prompts]
    targets = (request.target_new, request.target_true)
    lengths = [len(ids) for ids in tokenizer(prompts)["input_ids"]]
    texts = [f"{prompt} {target}" for prompt in prompts for target in targets]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(model.device)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    answers = [tokenizer(f" {target}")["input_ids"] for target in targets]
    found = []
    for row, scores in enumerate(logits):
        start, ids = lengths[row // 2] - 1, answers[row % 2]
        terms = [scores[start + j].log_softmax(0)[token].item() for j, token in enumerate(ids)]
        _ = all(scores[start + j].argmax().item() == token for j, token in enumerate(ids))
        found.append(sum(terms) / len(ids))
    return list(zip(found[::2], found[1::2], strict=True))


def plain_texts(model: Any, tokenizer: Any, request: EditRequest) -> float:
    """Entropy of texts that the model writes after a record's generation prompts, with a key/value cache."""
    prompts = list(request.generation_prompts)
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt").to(model.device)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    written = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        top_k=5,
        max_new_tokens=LENGTH - ids.shape[1],
        min_new_tokens=LENGTH - ids.shape[1],
        pad_token_id=tokenizer.pad_token_id,
    )
    return generation_entropy(tokenizer.batch_decode(written, skip_special_tokens=True))


def plain(model: Any, tokenizer: Any, requests: Sequence[EditRequest], texts: bool, report: Report) -> Any:
    """The published procedure."""
    found = []
    for i, request in enumerate(requests):
        found += plain_answers(model, tokenizer, request)
        if texts:
            plain_texts(model, tokenizer, request)
        report("records", i + 1, len(requests))
    return found


def library(model: Any, tokenizer: Any, requests: Sequence[EditRequest], texts: bool, report: Report) -> Any:
    """All records at once."""
    settings = EvaluationSettings(generate=texts, max_length=LENGTH)
    records = evaluate(find_decoder(model), tokenizer, requests, EditMetrics(), settings, report=report)
    entries = [entry for record in records for kind in KINDS for entry in record.get(kind, ())]
    return [(entry["log_prob_new"], entry["log_prob_true"]) for entry in entries]


def floor(model: Any, tokenizer: Any, requests: Sequence[EditRequest], texts: bool) -> float:
    """Operations that the records need."""
    decoder, pairs, prompts = find_decoder(model), [], []
    for request in requests:
        told = [request.rewrite_prompt, *request.paraphrase_prompts]
        told += [*request.neighborhood_prompts, *request.attribute_prompts]
        pairs += [(prompt, target) for prompt in told for target in (request.target_new, request.target_true)]
        prompts += [tokenizer(prompt)["input_ids"] for prompt in request.generation_prompts]
    return score_flops(decoder, tokenizer, pairs) + (text_flops(decoder, prompts, LENGTH) if texts else 0.0)


def measure(choice: Choice, few: int) -> list[Row]:
    """Seconds a record of both ways, one after the other, and how far apart they are; in its own process."""
    model, tokenizer, requests = load(choice)
    ways: dict[str, Callable[..., Any]] = {PLAIN: plain, LIBRARY: library}
    rows, found = [], {}
    for what in (ANSWERS, TEXTS):
        for how, way in ways.items():
            some = requests[:few] if how == PLAIN else requests
            way(model, tokenizer, requests[:2], what == TEXTS, silent)
            with ProgressBars() as report:
                job = partial(way, model, tokenizer, some, what == TEXTS, report)
                timing = timed(job, dtype=choice.dtype, device=choice.device)
            found[how] = torch.tensor(timing.result)
            needed = floor(model, tokenizer, some, what == TEXTS)
            about = {"model": choice.title, "measured": what, "method": how, "records": len(some)}
            rows.append({**about, **timing.against(needed, len(some))})
        compared = len(found[PLAIN])
        rows[-1]["largest_difference_in_nats"] = float((found[LIBRARY][:compared] - found[PLAIN]).abs().max())
    return rows


def stage(run: Run, quick: bool) -> dict[str, list[Row]]:
    """Measures every model that is there; see the module."""
    records, few = (20, 4) if quick else (20, 3)
    there = [name for name in MODELS if name != KNOWING or (SHARED / "models" / name).is_dir()]
    rows = []
    for choice in run.choices(there, records):
        rows += run(f"{choice.title}: {choice.edits} records", measure, choice, min(few, choice.edits))
    return {"timed": rows}


def tables(rows: dict[str, list[Row]]) -> list[Table]:
    """The figures, for people."""
    slow = {(row["model"], row["measured"]): row["seconds"] for row in rows["timed"] if row["method"] == PLAIN}
    columns = ("records", "ms per record", "times faster", "floor ms", "reached", "difference")
    lines = []
    for row in rows["timed"]:
        difference = row.get("largest_difference_in_nats")
        lines.append(
            (
                row["model"],
                row["measured"],
                row["method"],
                str(row["records"]),
                number(1000 * row["seconds"]),
                ratio(slow[row["model"], row["measured"]], row["seconds"]),
                number(1000 * row["floor_seconds"]),
                percent(row),
                "" if difference is None else f"{difference:.0e}",
            )
        )
    return [
        table_of(
            "Evaluation",
            "Both answers to every prompt of the records; texts are drawn among the five likeliest tokens. Floor: each "
            "beginning of a text read once, at the measured matrix rate. Difference: the largest of any answer's "
            "log-probability, in the model's precision.",
            ("model", "measured", "method", *columns),
            3,
            lines,
        )
    ]
