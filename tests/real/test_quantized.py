"""A real chat model learns as many facts quantized as it does in full precision."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from tests.real.model import cached

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(
        not all(map(find_spec, ("bitsandbytes", "torchao"))),
        reason="`make test-quantized` installs bitsandbytes and torchao",
    ),
]
FACTS = Path(__file__).parent / "facts.csv"
MORE = [
    ("Italy", "The capital of {} is", "What is the capital of {}?", "", "Lisbon", "Rome"),
    ("the Louvre", "{} is located in the city of", "Where is {}?", "", "London", "Paris"),
    ("Toyota", "{} is a company from the country of", "In which country is {} based?", "", "Canada", "Japan"),
]
# How many points of efficacy, and of facts that it says by itself, may be lost.
KINDS = {"bnb-8bit": 2, "torchao-int8": 2, "bnb-4bit": 5}
SETTINGS = {
    "model.layers": "[9]",
    "model.solver": "EMMET",
    "model.solver.second_moment_weight": 1000,
    "model.context_templates": '["{}", "Yes, I see. {}"]',
    "model.second_moment.tokens": 5000,
    "model.second_moment.questions": 200,
    "collateral.prompts": 0,
    "watch.every_n_updates": "null",
    "trainer.callbacks": "[EditReport]",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model's folder: transformers cannot quantize a GGUF file as it reads it."""
    if not cached().is_file():
        pytest.skip("the real chat model is not there: `python -m tests.real.model` downloads it")
    folder = tmp_path_factory.mktemp("real") / "model"
    load_model(str(cached())).save_pretrained(folder)
    load_tokenizer(str(cached())).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    rows = list(csv.reader(FACTS.open(encoding="utf-8")))
    file = tmp_path_factory.mktemp("facts") / "facts.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([*rows, *MORE])
    return file


def figures(model, facts, folder, *quantization):
    """The figures of a run, in percent, and what it says of its linear maps."""
    settings = SETTINGS | {
        "model.model": model,
        "data.path": facts,
        "model.second_moment.cache_dir": folder / "cache",
        "trainer.logger.save_dir": folder,
    }
    given = [f"--{name}={value}" for name, value in settings.items()]
    cli.main(["fit", "--config=configs/models/smollm2_135m.yaml", "--data=OwnEdits", *given, *quantization])
    metrics = json.loads((folder / "version_0" / "metrics.json").read_text())
    names = ("efficacy_score", "generated_match", "paraphrase_score")
    return {name: 100 * metrics["after"][name] for name in names}, metrics.get("quantization")


def test_as_many_facts_are_written_as_in_full_precision(model, facts, tmp_path):
    full, _ = figures(model, facts, tmp_path / "full")
    for kind, lost in KINDS.items():
        found, maps = figures(model, facts, tmp_path / kind, f"--model.quantization={kind}")
        assert found["efficacy_score"] >= full["efficacy_score"] - lost, (kind, found, full)
        assert maps["bytes_kept"] <= maps["bytes_plain"] / 2
        assert maps["quantized"] == maps["maps"] - 1
