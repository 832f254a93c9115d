"""llama.cpp itself reads the files: the edited one and the adapter say what the edited model says.

It is no dependency: ``pip install xllamacpp``, which brings llama.cpp built for CPUs, lets these tests run.
"""

import json

import pytest
import torch

from lightning_edit.cli import main as cli
from lightning_edit.updates.model_update import inserted

pytest.importorskip("gguf")
llama_cpp = pytest.importorskip("xllamacpp")

from tests.gguf_files import MODELS, TYPES, edit  # noqa: E402

IDS = [5, 17, 33, 80, 121, 44, 9]
SAMPLE = 40
MAPS = [f"model.layers.{block}.self_attn.{part}_proj" for block in (0, 1) for part in "qkvo"]


def said_by_llama_cpp(file, adapter=None):
    """The log probabilities of the likeliest next tokens."""
    settings = llama_cpp.CommonParams()
    settings.n_ctx, settings.n_batch, settings.n_parallel, settings.warmup = 128, 64, 1, False
    settings.cpuparams.n_threads = 1
    settings.model.path = str(file)
    if adapter is not None:
        settings.lora_adapters = [llama_cpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    # The probabilities are those before the bias, which chooses a token that ends nothing.
    asked = {"prompt": IDS, "max_tokens": 1, "temperature": 0, "logprobs": SAMPLE, "logit_bias": [[40, 1000.0]]}
    answer = llama_cpp.Server(settings).handle_completions(asked)
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    (token,) = answer["choices"][0]["logprobs"]["content"]
    return {one["id"]: one["logprob"] for one in token["top_logprobs"]}


def said_by_transformers(model):
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([IDS])).logits[0, -1], -1)


def furthest(said, expected):
    assert len(said) == SAMPLE
    return max(abs(value - float(expected[token])) for token, value in said.items())


@pytest.mark.parametrize(("made", "maps"), [*((made, None) for made in sorted(MODELS)), ("llama", MAPS)])
def test_llama_cpp_says_what_the_edited_model_says(made, maps, tmp_path):
    model, update, base = edit(tmp_path, made, TYPES.F32, maps, size=3.0)
    for form in ("gguf", "gguf-lora"):
        cli.main(["export", str(tmp_path / "update.safetensors"), "--to", form, "--out", str(tmp_path / form)])
    before = said_by_transformers(model)
    with inserted(model, update):
        after = said_by_transformers(model)
    assert furthest(said_by_llama_cpp(base), before) < 1e-3
    assert furthest(said_by_llama_cpp(base), after) > 0.1
    assert furthest(said_by_llama_cpp(tmp_path / "gguf" / "model.gguf"), after) < 1e-3
    assert furthest(said_by_llama_cpp(base, tmp_path / "gguf-lora" / "adapter.gguf"), after) < 1e-3
