"""A damaged model folder ends in one message that names the file or the setting, never in a traceback."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_edit import EditError, edit
from lightning_edit.cli.main import main
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from tests.small_models import make_llama, make_request, make_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
JSON = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "sound"
    make_llama(torch.float32).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "model")
    return tmp_path / "model"


def load(folder):
    load_tokenizer(str(folder))
    load_model(str(folder))


def change(file, **settings):
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


CONTENTS = {
    r", line 1, column \d+: not JSON": (b'{"a": ', bytes(100)),
    ": nested more than 100 levels deep": (b"[" * 100_000,),
    ": a number has too many digits": (b'{"a": ' + b"9" * 5000 + b"}",),
    " is not UTF-8 text": (b"\xff{}",),
    " is UTF-16 text": (b"\xff\xfe{}",),
    " is empty": (b"", b" \n"),
    " is a pointer of Git LFS": (POINTER,),
    " must hold a JSON object": (b"[]", b"null", b"3", b'"x"'),
}


@pytest.mark.parametrize("message", CONTENTS)
@pytest.mark.parametrize("name", JSON)
def test_a_damaged_json_file_is_named(name, message, folder):
    for content in CONTENTS[message]:
        (folder / name).write_bytes(content)
        with pytest.raises(EditError, match=rf"{name}{message}"):
            load(folder)


@pytest.mark.parametrize("name", JSON)
def test_an_empty_object_is_refused_or_means_the_defaults(name, folder):
    (folder / name).write_text("{}")
    try:
        load(folder)
    except EditError as error:
        assert str(folder) in str(error)
        assert name in ("config.json", "tokenizer.json")
    else:
        assert name in ("generation_config.json", "tokenizer_config.json")


def test_a_cut_or_empty_weight_file_is_named(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(EditError, match=r"model\.safetensors is cut short or damaged"):
            load(folder)
    for content, message in ((b"", "is empty"), (POINTER, "git lfs pull")):
        file.write_bytes(content)
        with pytest.raises(EditError, match=message):
            load(folder)


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("the file's code was run",))


@pytest.mark.parametrize("content", [b"garbage", pickle.dumps(Payload()), POINTER, b""])
def test_a_damaged_or_malicious_pickle_is_refused(content, folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(EditError, match=r"no causal language model could be loaded|pytorch_model\.bin is"):
        load(folder)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_named(index, folder):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(EditError, match=r"index\.json must"):
        load(folder)


def test_a_missing_part_is_named(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    with pytest.raises(EditError, match=r"names model-00002-of-00002\.safetensors, which is not there"):
        load(folder)


def test_a_weight_of_another_shape_is_named_with_both(folder):
    file, name = folder / "model.safetensors", "model.layers.1.mlp.down_proj.weight"
    save_file({**load_file(file), name: torch.ones(3, 4)}, file, {"format": "pt"})
    with pytest.raises(EditError, match=r"layers\.1\.mlp\.down_proj\.weight of shape \(3, 4\), where .* \(16, 24\)"):
        load(folder)


SETTINGS = [
    {"hidden_size": "x"},
    {"hidden_size": -16},
    {"num_hidden_layers": None},
    {"num_attention_heads": 0},
    {"vocab_size": -1},
    {"dtype": "float9"},
    {"hidden_act": "foo"},
    {"model_type": "nothing"},
    {"model_type": "t5"},
    {"rope_parameters": 3},
    {"pad_token_id": 100_000},
    {"quantization_config": 3},
    {"attn_implementation": "somebody/kernel"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_impossible_configuration_is_refused(settings, folder):
    change(folder / "config.json", **settings)
    with pytest.raises(EditError, match=r"^`model`: no (tokenizer|causal language model) could be loaded from"):
        load(folder)


PACKAGES = {"gptq": "gptqmodel", "awq": "gptqmodel", "compressed-tensors": "compressed_tensors"}


@pytest.mark.parametrize("method", PACKAGES)
def test_a_missing_quantization_library_is_named(method, folder):
    change(folder / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(EditError, match=rf"needs {PACKAGES[method]}.*missing: pip install "):
        load(folder)


def test_a_quantization_that_needs_a_library_which_only_transformers_knows(folder):
    change(folder / "config.json", quantization_config={"quant_method": "hqq"})
    with pytest.raises(EditError, match=r"a library that its config\.json asks for is missing"):
        load(folder)


@pytest.mark.parametrize("settings", [{"tokenizer_class": 3}, {"added_tokens_decoder": 3}, {"bos_token": 3}], ids=str)
def test_an_impossible_tokenizer_is_refused(settings, folder):
    change(folder / "tokenizer_config.json", **settings)
    with pytest.raises(EditError, match="no tokenizer could be loaded"):
        load(folder)


def test_a_part_of_the_tokenizer_that_its_library_refuses(folder):
    for settings in ({"model": {}}, {"added_tokens": 3}, {"pre_tokenizer": {"type": "Nothing"}}):
        (folder / "tokenizer.json").write_bytes(make_tokenizer().backend_tokenizer.to_str().encode())
        change(folder / "tokenizer.json", **settings)
        with pytest.raises(EditError, match="no tokenizer could be loaded"):
            load(folder)


def test_tokens_without_an_embedding_are_refused_and_added_ones_may_be_beyond():
    model, tokenizer = make_llama(), make_tokenizer()
    model.resize_token_embeddings(400)
    with pytest.raises(EditError, match=r"tokens up to number 445, and LlamaForCausalLM has 400 embeddings"):
        edit(model, tokenizer, [make_request()], progress=False)
    tokenizer.add_tokens(["<image>"])
    edit(make_llama(), tokenizer, [make_request()], moments={0: torch.eye(24).double()}, progress=False)


@pytest.mark.parametrize("settings", [{"eos_token_id": "x"}, {"eos_token_id": [1, "x"]}], ids=str)
def test_an_end_that_is_no_token_is_refused(settings, folder, capsys):
    change(folder / "generation_config.json", **settings)
    with pytest.raises(SystemExit) as refused:
        main(["fit", f"--model.model={folder}", f"--trainer.logger.save_dir={folder.parent / 'runs'}"])
    assert refused.value.code == 2
    assert "`eos_token_id`" in capsys.readouterr().err


def test_the_command_line_shows_one_message(folder, capsys):
    (folder / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(SystemExit) as refused:
        main(["fit", f"--model.model={folder}", f"--trainer.logger.save_dir={folder.parent / 'runs'}"])
    assert refused.value.code == 2
    shown = capsys.readouterr().err
    assert "git lfs pull" in shown
    assert "Traceback" not in shown


def test_a_file_is_no_model_folder(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"GGUF")
    with pytest.raises(EditError, match=r"m\.safetensors is a file\. Give the folder of a transformers model"):
        load_tokenizer(str(tmp_path / "m.safetensors"))
