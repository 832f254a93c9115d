"""The published prompts and labels, written down a second time, and plain loops over them."""

import json
import re
from pathlib import Path

import torch
import yaml
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch.nn.functional import cross_entropy

from lightning_edit.downstream import Fitting, load_task
from lightning_edit.tiny import World

TASKS = Path(__file__).parent.parent / "configs" / "tasks"
LETTERS = ("A", "B", "C", "D")


def choices(options, space):
    return "\n".join(f"({letter}){space}{option}" for letter, option in zip(LETTERS, options, strict=True))


# The published prompts and labels, written down a second time.
PUBLISHED = {
    "sst": (lambda r: f"Review : {r['sentence']}\nSentiment :", lambda r: ["negative", "positive"][r["label"]]),
    "mrpc": (
        lambda r: (
            f"Are the sentences paraphrases of each other.\nSentence 1: {r['sentence1']}\n"
            f"Sentence 2: {r['sentence2']}\nAnswer:"
        ),
        lambda r: ["No", "Yes"][r["label"]],
    ),
    "cola": (
        lambda r: f"Is this sentence linguistically acceptable?\nSentence: {r['sentence']}\nAnswer:",
        lambda r: ["No", "Yes"][r["label"]],
    ),
    "rte": (
        lambda r: f"{r['sentence1']}\nquestion: {r['sentence2']} True or False?\nanswer:",
        lambda r: ["True", "False"][r["label"]],
    ),
    "nli": (
        lambda r: f"{r['sentence1']} entails the {r['sentence2']} True or False? Answer:",
        lambda r: {"entailment": "True", "not_entailment": "False"}[r["label"]],
    ),
    "sentiment_analysis": (
        lambda r: (
            "For each snippet of text,label the sentiment of the text as positive or negative."
            f"The answer should be exact 'positive' or 'negative'. text: {r['sentence']} answer:"
        ),
        lambda r: {"1": "positive", "0": "negative"}[r["label"]],
    ),
    "mmlu": (
        lambda r: f"Question: {r['question']}\n{choices(r['choices'], ' ')}\nAnswer:",
        lambda r: LETTERS[r["answer"]],
    ),
    "dialogue": (
        lambda r: (
            f"Q: Given the following: {r['article']}\nWhich choice is correct?\n{choices(r['options'], '')}\nAnswer:"
        ),
        lambda r: r["answers"],
    ),
}


YES_NO, TRUE_FALSE = {"0": "No", "1": "Yes"}, {"0": "True", "1": "False"}
SENTIMENT = {"0": "negative", "1": "positive"}
ANSWERS = {
    "sst": SENTIMENT,
    "mrpc": YES_NO,
    "cola": YES_NO,
    "rte": TRUE_FALSE,  # 1 is not_entailment
    "nli": {"entailment": "True", "not_entailment": "False", **TRUE_FALSE},
    "sentiment_analysis": SENTIMENT,
    "mmlu": {str(i): letter for i, letter in enumerate(LETTERS)},
    "dialogue": {letter: letter for letter in LETTERS},
}


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_task(folder, name="own", **changes):
    settings = {
        "prompt": "{question}",
        "label": "label",
        "answers": {0: "No", 1: "Yes"},
        "pool": 2,
        "data": {"file": f"{name}.jsonl"},
    }
    content = {key: value for key, value in (settings | changes).items() if value is not None}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


def prepare(file, decoder, tokenizer, shots=1, tests=2, too_long="refuse"):
    task = load_task(file, TASKS)
    return task.prepare(task.data.read(), shots, tests, Fitting(tokenizer, decoder.context, too_long))


def world_rows(count):
    """Questions to which the embedded model knows the answer, and all possible answers."""
    world = World.generate()
    relation = world.relations[0]
    facts = [fact for fact in world.facts if fact.relation == relation.name][:count]
    rows = [{"question": relation.templates[0].format(fact.subject), "label": fact.answer} for fact in facts]
    return rows, {answer: answer for answer in relation.answers}


def log_prob(decoder, tokenizer, prompt, answer):
    """Length-normalized log-probability of an answer, one text at a time."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([tokenizer(prompt + ("" if prompt[-1:].isspace() else " ") + answer)["input_ids"]])
    with torch.no_grad():
        logits = decoder.model(input_ids=ids).logits[0].double()
    return -float(cross_entropy(logits[start - 1 : -1], ids[0, start:]))


def written(decoder, tokenizer, prompt):
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    made = decoder.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0)
    return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def first_word(text, words):
    found = [word for word in re.findall(r"\w+", text) if word.lower() in [w.lower() for w in words]]
    return next(w for w in words if w.lower() == found[0].lower()) if found else "invalid"


def figures(chosen, right):
    return {
        "accuracy": accuracy_score(right, chosen),
        "f1": f1_score(right, chosen, average="weighted", zero_division=0),
        "mcc": matthews_corrcoef(right, chosen),
    }


def by_hand(decoder, tokenizer, name, prompts, labels, words):
    """All figures of a task of labels, one question at a time."""
    texts = [written(decoder, tokenizer, prompt) for prompt in prompts]
    parsed = [first_word(text, words) for text in texts]
    scores = [{word: log_prob(decoder, tokenizer, prompt, word) for word in words} for prompt in prompts]
    chosen = [max(row, key=row.get) for row in scores]
    found = {f"generated_{key}": value for key, value in figures(parsed, labels).items()}
    found |= {"invalid": parsed.count("invalid") / len(parsed)}
    found |= {f"likelihood_{key}": value for key, value in figures(chosen, labels).items()}
    return {f"downstream/{name}/{key}": value for key, value in found.items()}, texts, scores


# -- shipped tasks -----------------------------------------------------------------------------------------------------
