"""A very short real training run writes a whole, loadable and repeatable folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.tiny.architectures import RECIPES
from lightning_edit.tiny.train import main, train

pytestmark = pytest.mark.slow
FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module", params=RECIPES)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folders(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    root = tmp_path_factory.mktemp("tiny")
    for name in ("first", "second"):
        where = ["--model", model, "--output", str(root / name)]
        main([*where, "--seed", "0", "--steps", "2", "--subjects", "40"])
    yield root / "first", root / "second"
    torch.use_deterministic_algorithms(False)  # the trainer turns them on for the whole process


def test_the_folder_is_complete_and_nothing_is_left_beside_it(folders: tuple[Path, Path]) -> None:
    first, second = folders
    assert {path.name for path in first.iterdir()} == FILES
    assert set(first.parent.iterdir()) == {first, second}


def test_the_same_seed_writes_the_same_bytes(folders: tuple[Path, Path]) -> None:
    first, second = folders
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_folder_loads(folders: tuple[Path, Path]) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folders[0])
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    ids = tokenizer("The old cup", return_tensors="pt")["input_ids"]
    assert loaded.dtype == torch.float32
    assert loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3, len(tokenizer))


def test_a_new_run_replaces_the_folder_as_a_whole(model: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "stale.txt").write_text("from an earlier run")
    report = train(output, seed=1, steps=1, subjects=40, name=model)
    assert {path.name for path in output.iterdir()} == FILES
    assert (output / "model.safetensors").read_bytes() != (folders[0] / "model.safetensors").read_bytes()
    wordings = ("rewrite", "paraphrase", "held_out")
    assert set(report) == {"minutes"} | {f"{w}/{figure}" for w in wordings for figure in ("known", "probability")}
    assert all(0.0 <= value <= 1.0 for name, value in report.items() if name != "minutes")
