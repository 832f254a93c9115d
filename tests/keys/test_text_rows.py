"""Ordinary text as rows of tokens."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lightning_edit.keys.layer_stats import SecondMomentSettings, second_moments
from lightning_edit.keys.text_rows import joined_rows, text_rows
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import MODEL_PATH, World

TEXTS = ["one two three", "", "four", "five six seven eight"]
WORDS = ["<s>", "one", "two", "three", "four", "five", "six", "seven", "eight", "a"]


def tokenizer(begins):
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if begins:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def test_each_text_is_a_row_that_is_cut():
    assert [list(row) for row in text_rows(tokenizer(False), TEXTS, 6, 3)] == [[1, 2, 3], [4], [5, 6]]


def test_joined_texts_fill_their_rows():
    assert [list(row) for row in joined_rows(tokenizer(False), TEXTS, 100, 3)] == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert [list(row) for row in joined_rows(tokenizer(False), TEXTS, 5, 3)] == [[1, 2, 3], [4, 5]]
    assert joined_rows(tokenizer(False), ["", "  "], 5, 3) == []


def test_what_begins_a_text_begins_each_row():
    assert [list(row) for row in joined_rows(tokenizer(True), TEXTS, 100, 4)] == [[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8]]


def test_joined_sentences_preserve_what_follows_long_contexts():
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH).eval()
    decoder, words = find_decoder(model), AutoTokenizer.from_pretrained(MODEL_PATH)
    sentences = World.generate().sentences(0)[:400]
    far = [torch.tensor([list(joined_rows(words, sentences[200:], 2000, 100)[0])])]
    found = {}
    for joined in (False, True):
        settings = SecondMomentSettings(tokens=4000, length=100, join_texts=joined, cache_dir=None)
        found[joined] = second_moments(decoder, words, sentences[:200], [0], settings)[0]
    keys = []
    with torch.no_grad(), decoder.down_projection(0).register_forward_pre_hook(lambda _, given: keys.append(given[0])):
        model(far[0])
    key = keys[0][0, 60:].double().T
    # What an update may change of such a key is the less, the more of it is in C.
    cost = {
        name: float((key * torch.linalg.solve(c + 1e-3 * torch.eye(len(c)), key)).sum()) for name, c in found.items()
    }
    assert cost[True] < 0.8 * cost[False]
