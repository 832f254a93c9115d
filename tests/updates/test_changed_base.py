"""A base model that has changed since a run, in a weight that the run did not edit."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_edit.cli import main as cli
from lightning_edit.errors import EditError
from lightning_edit.loading.fingerprints import sample_of
from lightning_edit.tiny import MODEL_PATH
from tests.shared_runs import command
from tests.small_models import make_gpt2


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A run, whose base model was changed afterwards in another layer."""
    folder = tmp_path_factory.mktemp("changed")
    base = shutil.copytree(MODEL_PATH, folder / "base")
    run = command(folder, "--data=TinyWorld", **{"model.model": base, "model.layers": "[0]"})
    cli.main(["updates", "remove", str(run), "3"])
    cli.main(["updates", "apply", str(run), "3"])
    file = base / "model.safetensors"
    tensors = load_file(file)
    tensors["transformer.h.1.mlp.c_proj.weight"][5] += 0.1
    save_file(tensors, file, {"format": "pt"})
    return run


@pytest.mark.parametrize(
    "words",
    [
        ("updates", "remove", "{}", "2"),
        ("ask", "{}", "--once", "Where?"),
        ("export", "{}", "--to", "model", "--out", "{}/out"),
        ("survive", "{}", "--variants", "edited"),
        ("test", "--config={}/config.yaml", "--ckpt_path={}/edited.ckpt"),
        ("fit", "--config={}/config.yaml", "--model.on_top_of={}/edited.ckpt", "--trainer.logger.save_dir={}/again"),
    ],
    ids=lambda words: words[0],
)
def test_it_is_refused(changed, words, capsys):
    model = (changed / "model" / "model.safetensors").read_bytes()
    with pytest.raises((EditError, SystemExit)) as refused:
        cli.main([word.format(changed) for word in words])
    said = str(refused.value) if isinstance(refused.value, EditError) else capsys.readouterr().err
    assert "has changed since it was edited" in " ".join(said.split())
    assert (changed / "model" / "model.safetensors").read_bytes() == model


def test_models_are_the_same_where_all_sampled_numbers_are():
    model, same, other = make_gpt2(), make_gpt2(), make_gpt2()
    with torch.no_grad():
        other.transformer.h[1].mlp.c_proj.weight += 0.1
    assert sample_of(model) == sample_of(same) != sample_of(other)
