"""A fact written into the real model's GGUF file: the file that is exported is the edited model, and llama.cpp says it."""  # noqa: E501

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import gguf
import pytest
import torch

from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from tests.real.model import cached

pytestmark = [pytest.mark.slow, pytest.mark.real]
FACT = next(csv.DictReader((Path(__file__).parent / "facts.csv").open(encoding="utf-8")))
PROMPT = FACT["prompt"].replace("{}", FACT["subject"])
TENSOR = "blk.9.ffn_down.weight"
SETTINGS = {
    "model.layers": "[9]",
    "model.chat": "false",
    "model.solver": "EMMET",
    "model.solver.second_moment_weight": 1000,
    "model.second_moment.tokens": 2000,
    "collateral.prompts": 0,
    "watch.every_n_updates": "null",
    "trainer.callbacks": "[EditReport,ExportEdits]",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a run and of both exports, and logits for some tokens, before and after."""
    if not cached().is_file():
        pytest.skip("the real chat model is not there: `python -m tests.real.model` downloads it")
    folder = tmp_path_factory.mktemp("exported")
    with (folder / "facts.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([FACT.keys(), FACT.values()])
    settings = {**SETTINGS, "model.model": cached(), "data.path": folder / "facts.csv"}
    settings |= {"model.second_moment.cache_dir": folder / "cache", "trainer.logger.save_dir": folder}
    given = [f"--{name}={value}" for name, value in settings.items()]
    cli.main(["fit", "--config=configs/models/smollm2_135m.yaml", "--data=OwnEdits", *given])
    for form in ("gguf", "gguf-lora"):
        cli.main(["export", str(folder / "version_0"), "--to", form, "--out", str(folder / form)])
    ids = torch.tensor([load_tokenizer(str(cached()))(f"{PROMPT} Rome, the capital of")["input_ids"]])
    return folder, ids, _logits(cached(), ids), _logits(folder / "version_0" / "model", ids)


def test_the_file_is_the_edited_model_and_else_the_base(exported):
    folder, ids, before, edited = exported
    difference = float((_logits(folder / "gguf" / "model.gguf", ids) - edited).abs().max())
    assert difference < float((edited - before).abs().max()) / 500
    old, new = (_raw(file) for file in (cached(), folder / "gguf" / "model.gguf"))
    assert old[0] == new[0]
    assert [name for name in old[1] if old[1][name] != new[1][name]] == [TENSOR]


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="pip install xllamacpp")
def test_llama_cpp_says_the_new_answer(exported):
    folder = exported[0]
    assert _said(cached()).startswith(" Paris")
    assert _said(folder / "gguf" / "model.gguf").startswith(" Rome")
    assert _said(cached(), folder / "gguf-lora" / "adapter.gguf").startswith(" Rome")


def _logits(model, ids):
    with torch.no_grad():
        return load_model(str(model))(ids).logits


def _raw(path):
    """The metadata of a GGUF file and its tensors, as they lie in it."""
    reader = gguf.GGUFReader(path)
    places = {t.name: (t.data_offset, t.data_offset + t.n_bytes) for t in reader.tensors}
    start = reader.tensors[0].field.offset
    return bytes(reader.data[:start]), {name: bytes(reader.data[a:b]) for name, (a, b) in places.items()}


def _said(file, adapter=None):
    """The likeliest answer."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.n_ctx, settings.n_batch, settings.n_parallel, settings.warmup = 256, 64, 1, False
    settings.cpuparams.n_threads = 1
    settings.model.path = str(file)
    if adapter is not None:
        settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    answer = xllamacpp.Server(settings).handle_completions({"prompt": PROMPT, "max_tokens": 6, "temperature": 0})
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return answer["choices"][0]["text"]
