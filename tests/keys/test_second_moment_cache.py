"""The cache of second moments: the same numbers for the same question, and never for another one."""

import logging

import pytest
import torch

from lightning_edit import SecondMomentSettings
from lightning_edit.keys.layer_stats import second_moments
from lightning_edit.models.decoder import find_decoder
from tests.small_models import SENTENCES, make_gpt2, make_tokenizer


class Cached:
    """A model whose forward passes are counted, and its second moments through a cache."""

    def __init__(self, folder):
        self.model = make_gpt2()
        self.folder = folder
        self.count = 0
        self.model.register_forward_pre_hook(self.counted)

    def counted(self, *_):
        self.count += 1

    def moments(self, texts=SENTENCES, layers=(0, 1), tokens=60, length=512):
        settings = SecondMomentSettings(tokens, length, str(self.folder))
        return second_moments(find_decoder(self.model), make_tokenizer(), texts, list(layers), settings)

    def passes(self, **changes):
        before = self.count
        self.moments(**changes)
        return self.count - before


def test_a_cache_hit_gives_the_same_numbers_without_a_forward_pass(tmp_path):
    cached = Cached(tmp_path / "new")
    first = cached.moments()
    assert cached.passes() == 0
    again = cached.moments(layers=(1, 0))
    assert cached.passes(layers=(1,)) == 0
    assert sorted(again) == [0, 1]
    assert all(torch.equal(first[layer], again[layer]) for layer in again)
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"texts": [SENTENCES[0] + "!", *SENTENCES[1:]]},
        {"texts": SENTENCES[1:]},
        {"layers": (2,)},
        {"layers": (0, 2)},
        {"tokens": 59},
        {"length": 5},
    ],
    ids=["text", "fewer texts", "layer", "one layer more", "tokens", "length"],
)
def test_another_input_misses_the_cache(tmp_path, change):
    cached = Cached(tmp_path)
    cached.moments()
    assert cached.passes(**change) == 1
    assert cached.passes(**change) == cached.passes() == 0


@pytest.mark.parametrize(
    "name", ["transformer.wte.weight", "transformer.h.0.mlp.c_fc.bias", "transformer.h.2.ln_1.bias"]
)
def test_a_changed_weight_misses_the_cache(tmp_path, name):
    cached = Cached(tmp_path)
    old = cached.moments()
    with torch.no_grad():
        cached.model.get_parameter(name).view(-1)[::3] += 0.5
    assert cached.passes() == 1
    below = name.startswith(("transformer.wte", "transformer.h.0"))
    assert torch.equal(cached.moments()[1], old[1]) != below


def flip_last_bit(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [lambda data: data[:-50], lambda data: data[:10], lambda data: b"", flip_last_bit])
def test_a_damaged_cache_file_is_computed_again_with_a_warning(tmp_path, caplog, damage):
    cached = Cached(tmp_path)
    first = cached.moments(layers=(1,))
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = cached.moments(layers=(1,))
    assert torch.equal(first[1], again[1])
    assert [str(file) in record.getMessage() for record in caplog.records] == [True]
    assert cached.passes(layers=(1,)) == 0


def test_another_precision_of_the_model_or_of_its_products_misses_the_cache(tmp_path):
    cached = Cached(tmp_path)
    cached.moments()
    known = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert cached.passes() == 1
    finally:
        torch.set_float32_matmul_precision(known)
    assert cached.passes() == 0
    cached.model.float()
    assert cached.passes() == 1


def test_one_bit_of_any_weight_misses_the_cache(tmp_path):
    cached = Cached(tmp_path)
    cached.moments(layers=(0,))
    for parameter in cached.model.parameters():
        parameter.data.view(-1)[:1].view(torch.int64)[0] ^= 1
        assert cached.passes(layers=(0,)) == 1


def test_a_file_of_another_layer_under_this_name_is_not_used(tmp_path, caplog):
    cached = Cached(tmp_path)
    first = cached.moments(layers=(0,))
    (file,) = tmp_path.iterdir()
    cached.moments(layers=(1,))
    (other,) = set(tmp_path.iterdir()) - {file}
    other.replace(file)
    assert torch.equal(cached.moments(layers=(0,))[0], first[0])
    assert "it was written as" in caplog.text


def test_a_folder_that_takes_no_file_loses_no_numbers(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    found = Cached(tmp_path / "file" / "cache").moments()
    expected = Cached(tmp_path / "cache").moments()
    assert all(torch.equal(found[layer], expected[layer]) for layer in (0, 1))
    assert ["cannot be stored" in record.getMessage() for record in caplog.records] == [True]
