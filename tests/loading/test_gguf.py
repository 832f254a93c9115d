"""A GGUF file is opened like a folder: dequantized, as transformers opens it, and saved as an ordinary model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.errors import EditError
from lightning_edit.loading.gguf_reader import read_once
from lightning_edit.loading.pretrained import depth_of, load_model, load_tokenizer

pytest.importorskip("gguf")

from tests.gguf_files import TEMPLATE, write


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small Llama with random weights as llama.cpp would write it, its matrices in 8 bits."""
    path = tmp_path_factory.mktemp("gguf") / "small.Q8_0.gguf"
    write(path)
    return path


def test_a_gguf_file_agrees_with_transformers_own_loader(file):
    model, tokenizer = load_model(str(file)), load_tokenizer(str(file))
    own = {"gguf_file": file.name}
    reference = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **own)
    ids = tokenizer("abba")["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(file.parent, **own)("abba")["input_ids"]
    assert model.dtype is torch.float32
    assert torch.equal(model(torch.tensor([ids])).logits, reference(torch.tensor([ids])).logits)
    assert depth_of(str(file)) == 2
    assert tokenizer.chat_template == TEMPLATE


def test_what_was_a_gguf_file_is_saved_as_an_ordinary_folder(file, tmp_path):
    model, tokenizer = load_model(str(file), "bfloat16"), load_tokenizer(str(file))
    assert model.dtype is torch.bfloat16
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, ids = load_model(str(tmp_path)), load_tokenizer(str(tmp_path))("abba")["input_ids"]
    assert ids == tokenizer("abba")["input_ids"]
    assert torch.equal(model(torch.tensor([ids])).logits, again(torch.tensor([ids])).logits)
    assert not hasattr(again.config, "quantization_config")
    assert load_tokenizer(str(tmp_path)).chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"GG"), "does not begin like a GGUF file"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "no tokenizer could be loaded"),
        (lambda path: write(path, "rwkv6"), "rwkv6 is not supported"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path, damage, message):
    path = tmp_path / "m.gguf"
    write(path)
    damage(path)
    with pytest.raises(EditError, match=message):
        load_tokenizer(str(path))


def test_the_package_that_reads_it_is_named_where_it_is_missing(file, monkeypatch):
    monkeypatch.setattr("lightning_edit.loading.gguf_file.find_spec", lambda name: None)
    with pytest.raises(EditError, match=r"pip install 'lightning-edit\[gguf\]'"):
        load_tokenizer(str(file))


def test_a_file_is_read_once_while_it_is_asked_for(file, monkeypatch):
    import gguf

    read, reader_of, named, names_of = [], gguf.GGUFReader, [], gguf.get_tensor_name_map

    def counted(path, mode="r"):
        read.append(path)
        return reader_of(path, mode)

    def counted_names(architecture, layers):
        named.append(layers)
        return names_of(architecture, layers)

    monkeypatch.setattr(gguf, "GGUFReader", counted)
    monkeypatch.setattr(gguf, "get_tensor_name_map", counted_names)
    with read_once(str(file)):
        load_tokenizer(str(file))
        model = load_model(str(file))
    assert len(read) == 1 and len(named) == 1
    assert gguf.GGUFReader is counted and gguf.get_tensor_name_map is counted_names
    again = load_model(str(file))
    assert len(read) > 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
