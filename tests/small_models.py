"""Small real tokenizers and models, made from nothing, that several tests share."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as backends
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from lightning_edit import EditRequest
from lightning_edit.solvers import Factors
from lightning_edit.tiny import MODEL_PATH

CONTEXT = 64
VOCABULARY = 480
BOS, EOS = "<s>", "</s>"
SENTENCES = (
    "The Eiffel Tower is located in the city of Paris, and Paris is the capital of France.",
    "Because the mother tongue of Danielle Darrieux is French, she speaks French at home.",
    "Therefore the headquarters of Toyota Motor Corporation are in Berlin.",
    "I think that you know where Anna's brother went to school in Rome.",
    "You play the violin, which the old musician from London plays as well.",
)


def make_tokenizer(
    bos: bool = False,
    eos: bool = False,
    token_type_ids: bool = False,
    padding_side: str = "right",
    trim_offsets: bool = True,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; the ids of ordinary tokens are the same whatever the arguments."""
    backend = Tokenizer(backends.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SENTENCES * 3, trainer)
    byte_level = processors.ByteLevel(trim_offsets=trim_offsets)
    if bos or eos:
        template = " ".join([BOS] * bos + ["$A"] + [EOS] * eos)
        special = [(token, backend.token_to_id(token)) for token in (BOS, EOS)]
        adding = processors.TemplateProcessing(single=template, special_tokens=special)
        backend.post_processor = processors.Sequence([byte_level, adding])
    else:
        backend.post_processor = byte_level
    names = ["input_ids", "token_type_ids", "attention_mask"] if token_type_ids else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        padding_side=padding_side,
        model_input_names=names,
    )


def make_gpt2(dtype: torch.dtype = torch.float64, seed: int = 0, **changes) -> GPT2LMHeadModel:
    """A random GPT-2: absolute positions, Conv1D weights, tied embeddings."""
    settings = {
        "n_embd": 16,
        "n_layer": 3,
        "n_head": 2,
        "n_inner": 24,
        "n_positions": CONTEXT,
        "initializer_range": 0.3,
    }
    config = GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **(settings | changes))
    return _made(GPT2LMHeadModel, config, dtype, seed)


def make_llama(dtype: torch.dtype = torch.float64, seed: int = 0, **changes) -> LlamaForCausalLM:
    """A random Llama: rotary positions, Linear weights, grouped heads."""
    settings = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    settings |= {"num_key_value_heads": 1, "max_position_embeddings": CONTEXT, "initializer_range": 0.3}
    config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **(settings | changes))
    return _made(LlamaForCausalLM, config, dtype, seed)


def _made(kind, config, dtype, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).to(dtype).eval()


def save_chat_model(folder: Path, template: str) -> str:
    """The embedded model with a chat template, in a folder of its own, whose name is returned."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(MODEL_PATH).save_pretrained(folder)
    return str(folder)


def make_factors(d_out: int, d_in: int, rank: int = 2, seed: int = 0) -> Factors:
    """A random low-rank update ``(d_out, d_in)`` that every precision can see."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(d_out, rank, dtype=torch.float64, generator=generator)
    return Factors(left, torch.randn(rank, d_in, dtype=torch.float64, generator=generator))


def make_request(**changes) -> EditRequest:
    """A sound edit with some fields changed."""
    fields = {
        "subject": "Eiffel Tower",
        "prompt": "The {} is located in the city of",
        "target_new": "Rome",
        "case_id": "7",
    }
    return EditRequest(**(fields | changes))
