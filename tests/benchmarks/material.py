"""Models and edits to measure with, made on the spot: nothing is downloaded."""

import random
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2TokenizerFast

from lightning_edit.keys.context_templates import ContextTemplates, generate_templates
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
    """Edits of the form and length of CounterFact's, about people who do not exist; past 512 some have middle names."""
    names: list[tuple[str, ...]] = []
    for given in range(1, len(FIRST_NAMES)):
        firsts = permutations(FIRST_NAMES, given)
        names += [(*first, start + end) for first, start, end in product(firsts, SURNAME_STARTS, SURNAME_ENDS)]
        if len(names) >= count:
            break
    rng = random.Random(seed)
    chosen = rng.sample(names, count)
    relations = [RELATIONS[i % len(RELATIONS)] for i in range(count)]
    return [
        EditRequest(" ".join(name), prompt, rng.choice(answers))
        for name, (prompt, answers) in zip(chosen, relations, strict=True)
    ]


def invented_records(count: int) -> list[EditRequest]:
    """The same edits with as many prompts to measure as CounterFact's records have."""
    requests = invented_requests(count)
    others = [request.subject for request in invented_requests(512, seed=1)]
    records = []
    for i, request in enumerate(requests):
        prompt, answers = RELATIONS[i % len(RELATIONS)]
        near = [prompt.replace("{}", others[(20 * i + j) % len(others)]) for j in range(20)]
        told = tuple(f"{prefix}. {request.rewrite_prompt}" for prefix in PREFIXES[:2])
        true = next(answer for answer in answers if answer != request.target_new)
        texts = {"neighborhood_prompts": tuple(near[:10]), "attribute_prompts": tuple(near[10:])}
        about = tuple(f"{request.subject}{end}" for end in (" is", " works in", "'s home is"))
        texts |= {"paraphrase_prompts": told, "generation_prompts": about}
        records.append(replace(request, target_true=true, **texts))
    return records


@dataclass(frozen=True)
class Shape:
    """A published model by its sizes.

    Args:
        name: For people.
        family: Prefix of the configuration's class.
        sizes: Settings of the configuration.
        narrow: Those of a small model with two blocks that is otherwise like it.
        layer: The edited block, the highest of the published ones.
        dtype: Of its weights.
        dtype_cuda: Of its weights on a GPU, None for the same.
    """

    name: str
    family: str
    sizes: dict[str, Any]
    narrow: dict[str, Any]
    layer: int
    dtype: torch.dtype = torch.float32
    dtype_cuda: torch.dtype | None = None

    def dtype_on(self, device: str) -> torch.dtype:
        """Of its weights on a device."""
        return self.dtype_cuda or self.dtype if device == "cuda" else self.dtype


_NARROW = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 4096}
SHAPES = {
    "gpt2": Shape("GPT-2, 124 M, random", "GPT2", {}, _NARROW, layer=5),
    "smollm2-135m": Shape(
        "SmolLM2 135 M, random",
        "Llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
        {**_NARROW, "intermediate_size": 224, "num_key_value_heads": 1},
        layer=9,
    ),
    "gpt2-medium": Shape(
        "GPT-2 medium, 355 M, random",
        "GPT2",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        _NARROW,
        layer=8,
    ),
    "gpt2-large": Shape(
        "GPT-2 large, 774 M, random",
        "GPT2",
        {"hidden_size": 1280, "num_hidden_layers": 36, "num_attention_heads": 20},
        _NARROW,
        layer=12,
    ),
    "gpt2-xl": Shape(
        "GPT-2 XL, 1.5 B, random",
        "GPT2",
        {"hidden_size": 1600, "num_hidden_layers": 48, "num_attention_heads": 25},
        _NARROW,
        layer=17,
        dtype_cuda=torch.bfloat16,
    ),
    "gpt-j": Shape("GPT-J, 6 B, random", "GPTJ", {}, {**_NARROW, "rotary_dim": 8}, layer=8, dtype=torch.bfloat16),
    "llama-3-8b": Shape(
        "Llama-3 8 B, random",
        "Llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
        },
        {**_NARROW, "intermediate_size": 224, "num_key_value_heads": 1},
        layer=8,
        dtype=torch.bfloat16,
    ),
    "qwen3-30b-a3b": Shape(
        "Qwen3 30 B, 128 experts, random",
        "Qwen3Moe",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "max_position_embeddings": 40960,
        },
        {**_NARROW, "moe_intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 16, "num_experts": 8}
        | {"num_experts_per_tok": 2},
        layer=7,
        dtype=torch.bfloat16,
    ),
}
# GPT-2's form, trained; beside the project where it is there.
KNOWING = "cf-gpt"
TITLES = {
    "tiny": "the shipped tiny model",
    KNOWING: "GPT-2 of 5.8 M that knows CounterFact facts",
    **{name: shape.name for name, shape in SHAPES.items()},
}


def build(name: str, dtype: torch.dtype | None = None, device: str = "cpu", shrunk: bool = False) -> Any:
    """A model of a published shape with random weights, made on its device.

    Args:
        name: One of `SHAPES`.
        dtype: Of the weights; the shape's own if not given.
        device: Where it is made.
        shrunk: Whether it has two narrow blocks.
    """
    shape = SHAPES[name]
    config = getattr(transformers, f"{shape.family}Config")(**shape.sizes | (shape.narrow if shrunk else {}))
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=shape.dtype_on(device))
    return model.to(dtype or shape.dtype_on(device)).eval().requires_grad_(False)


def gpt2_small(dtype: torch.dtype = torch.float32) -> Any:
    """GPT-2 of 124 M parameters with random weights."""
    return build("gpt2", dtype)


@dataclass(frozen=True)
class Choice:
    """Which material to load, see `load`.

    Args:
        model: ``tiny`` for the model shipped with the package, or one of `SHAPES`.
        edits: How many.
        device: Where the model is.
        shrunk: Whether a random model has two narrow blocks.
        held: The material itself, where several jobs of one process share it.
    """

    model: str
    edits: int
    device: str = "cpu"
    shrunk: bool = False
    held: Material | None = field(default=None, compare=False, repr=False)

    @property
    def title(self) -> str:
        """The model, for people."""
        return TITLES[self.model] + (", shrunk" if self.shrunk and self.model in SHAPES else "")

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return SHAPES[self.model].dtype_on(self.device) if self.model in SHAPES else torch.float32


def load(choice: Choice, dtype: torch.dtype | None = None) -> Material:
    """What one benchmark runs on.

    Args:
        choice: The model, the number of edits, and the device.
        dtype: Of the weights; the model's own if not given.
    """
    if choice.held is not None and dtype is None:
        return choice.held
    if choice.model in SHAPES:
        templates = ContextTemplates(("{}", *(prefix + ". {}" for prefix in PREFIXES)))
        model = build(choice.model, dtype, choice.device, choice.shrunk)
        layer = 0 if choice.shrunk else SHAPES[choice.model].layer
        return Material(model, build_tokenizer(), invented_requests(choice.edits), templates, layer)
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=dtype or torch.float32)
    model = model.to(choice.device).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    records = World.generate().records(choice.edits, seed=0)
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
