"""Models and edits to measure with, made on the spot: nothing is downloaded."""

import random
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from lightning_edit.context_templates import ContextTemplates, generate_templates
from lightning_edit.requests import EditRequest
from lightning_edit.tiny import MODEL_PATH, World

CITIES = ("Rome", "Oslo", "Lima", "Quebec", "Vienna", "Kyoto", "Boston", "Cairo")
LANGUAGES = ("French", "Greek", "Dutch", "Tamil", "Korean", "Swedish")
COUNTRIES = ("Japan", "Norway", "Brazil", "Kenya", "Portugal", "Canada")
FIELDS = ("physics", "medicine", "architecture", "law", "poetry")
RELATIONS = (
    ("{} was born in the city of", CITIES),
    ("The mother tongue of {} is", LANGUAGES),
    ("{} is a citizen of", COUNTRIES),
    ("The headquarters of {} is located in", CITIES),
    ("In {}, the language spoken is", LANGUAGES),
    ("{}'s area of work is", FIELDS),
    ("The domain of activity of {} is", FIELDS),
    ("{}, created in", COUNTRIES),
    ("What is the twin city of {}? It is", CITIES),
    ("{} died in", CITIES),
)
FIRST_NAMES = ("Anna", "Edward", "Camille", "Bernard", "Mary", "Paul", "Sofia", "Henry")
SURNAME_STARTS = ("Lug", "Mont", "Hoff", "Pas", "Rock", "Cassi", "Wil", "Ber")
SURNAME_ENDS = ("ones", "dy", "mann", "quier", "ard", "sky", "well", "gio")
# Ten tokens and a full stop, as long as the prefixes that a model writes for itself.
PREFIXES = (
    "The city is known for the work of its people",
    "Therefore, the law of the country is what is",
    "Because of the language spoken in the city, it",
    "I was born in a city that is known for",
    "You know what the people of the city do is",
)


@dataclass(frozen=True)
class Material:
    """A model in evaluation mode, its tokenizer, edits, their contexts, and a layer to edit."""

    model: Any
    tokenizer: Any
    requests: list[EditRequest]
    templates: ContextTemplates
    layer: int


def build_tokenizer() -> GPT2TokenizerFast:
    """Byte pairs learned from the prompts and from halves of names, so that an invented surname is two tokens."""
    words = [word for _, answers in RELATIONS for word in answers] + [*FIRST_NAMES, *SURNAME_ENDS]
    words += [form for word in (*words, *SURNAME_STARTS) for form in (word, " " + word)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    prompts = [prompt.replace("{}", "") for prompt, _ in RELATIONS]
    backend.train_from_iterator([*(words * 9), *(prompts * 3), *(PREFIXES * 3), *([" is a."] * 3)], trainer)
    return GPT2TokenizerFast(tokenizer_object=backend)


def invented_requests(count: int, seed: int = 0) -> list[EditRequest]:
    """Edits of the form and length of CounterFact's, about people who do not exist."""
    names = [(f, s + e) for f in FIRST_NAMES for s in SURNAME_STARTS for e in SURNAME_ENDS]
    rng = random.Random(seed)
    chosen = rng.sample(names, count)
    relations = [RELATIONS[i % len(RELATIONS)] for i in range(count)]
    return [
        EditRequest(" ".join(name), prompt, rng.choice(answers))
        for name, (prompt, answers) in zip(chosen, relations, strict=True)
    ]


def gpt2_small(dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """GPT-2 of 124 M parameters with random weights."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).to(dtype).eval().requires_grad_(False)


def load(name: str, edits: int, dtype: torch.dtype = torch.float32) -> Material:
    """What one value benchmark runs on.

    Args:
        name: ``gpt2`` for `gpt2_small`, ``tiny`` for the model shipped with the package.
        edits: Number of edits.
        dtype: Of the weights.
    """
    if name == "gpt2":
        templates = ContextTemplates(("{}", *(prefix + ". {}" for prefix in PREFIXES)))
        return Material(gpt2_small(dtype), build_tokenizer(), invented_requests(edits), templates, layer=5)
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=dtype).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    records = World.generate().records(edits, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    layer = model.config.num_hidden_layers // 2
    return Material(model, tokenizer, requests, generate_templates(model, tokenizer, seed=0), layer)


def random_rows(tokens: int, vocabulary: int, shortest: int = 64, longest: int = 256, seed: int = 0) -> list[list[int]]:
    """Rows of random token ids of different lengths, ``tokens`` in all."""
    rng = random.Random(seed)
    rows: list[list[int]] = []
    while tokens:
        length = min(tokens, rng.randint(shortest, longest))
        rows.append([rng.randrange(vocabulary) for _ in range(length)])
        tokens -= length
    return rows
