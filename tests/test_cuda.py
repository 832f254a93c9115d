"""A GPU gives what processors give; skipped where there is none. `tests/benchmarks/gpu.sh` runs it."""

import json

import pytest
import torch

from lightning_edit import EMMET, MEMIT, AlphaEdit, EditRequest, Gradient, SecondMomentSettings, ValueSettings, edit
from lightning_edit.cli import main as cli
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.keys.own_text import sample_texts
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.values import optimize
from lightning_edit.values.optimize import optimize_values
from lightning_edit.values.recorded import Recordings
from tests.benchmarks.gpu import main as measure_sizes
from tests.shared_runs import command

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CONTEXTS = ContextTemplates(("{}", "Well. {}"))
ALIKE = {"rtol": 0, "atol": 1e-7}


def test_the_random_states_of_all_gpus_are_the_callers():
    torch.cuda.init()
    before = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    # A model on processors, beside which GPUs are at other work.
    sample_texts(load_model("tiny", "float32"), load_tokenizer("tiny"), 200, 0)
    after = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    assert torch.equal(before[0], after[0])
    assert all(torch.equal(*pair) for pair in zip(before[1], after[1], strict=True))


def requests(count=6):
    return [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in World.generate().records(count, seed=0)]


def edited(device, name="tiny", dtype=torch.float64, **settings):
    model = load_model(name, "float32").to(dtype).to(device).eval()
    # Grouped matrix products know no float64.
    model.set_experts_implementation("eager")
    settings = {"solver": EMMET(10, ridge=0.1), "layers": [0, 1], "values": ValueSettings(lr=0.5, steps=8)} | settings
    update = edit(
        model,
        load_tokenizer(name),
        requests(),
        templates=CONTEXTS,
        texts=World.generate().sentences(0),
        second_moment=SecondMomentSettings(tokens=4000, cache_dir=None),
        progress=False,
        **settings,
    )
    return model, update


def logits(model):
    return model(torch.arange(3, 20, device=model.device)[None]).logits.detach().cpu()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": MEMIT(10, ridge=0.1), "memory": "low"},
        {"solver": AlphaEdit(threshold=0.02, ridge=1)},
        {"source": Gradient(), "solver": MEMIT(1, ridge=1)},
        {"name": "tiny-moe", "layers": [1], "sites": "experts"},
    ],
    ids=("searched", "offloaded", "null space", "gradients", "experts"),
)
def test_an_edit_is_the_same_on_both(settings):
    # Routers weigh their experts in float32, whatever the model is in.
    alike = ALIKE if settings.get("sites") is None else {"rtol": 0, "atol": 1e-4}
    (there, update), (here, expected) = edited(DEVICE, **settings), edited("cpu", **settings)
    assert there.device.type == DEVICE
    torch.testing.assert_close(logits(there), logits(here), **alike)
    update.remove(there)
    expected.remove(here)
    torch.testing.assert_close(logits(there), logits(here), **alike)


@pytest.mark.parametrize(
    "settings",
    [{}, {"mpes": 2}, {"early_stop_loss": 1.0}, {"early_stop_loss": 2.0}, {"optimizer": "descent"}, {"site": "mlp"}],
    ids=("all steps", "mpes", "few early ends", "many early ends", "descent", "mlp"),
)
def test_recorded_passes_give_what_passes_give(settings, monkeypatch):
    model = load_model("tiny", "float32").to(DEVICE).eval()
    made = list[Recordings]()
    # So the texts are in three groups; a GPU would take all of them at once.
    monkeypatch.setattr(optimize, "MAX_TOKENS", 160)

    def find(possible):
        def on(*_):
            made.append(Recordings(possible))
            return made[-1]

        monkeypatch.setattr(Recordings, "on", staticmethod(on))
        wanted = ValueSettings(lr=0.5, steps=12, **settings)
        decoder, tokenizer = find_decoder(model), load_tokenizer("tiny")
        return optimize_values(decoder, tokenizer, requests(20), CONTEXTS, 1, wanted)

    plain, recorded = find(False), find(True)
    # Where a quarter of the edits has ended, the texts of the others are recorded anew.
    assert made[1].possible and made[1].recorded >= (4 if settings.get("early_stop_loss") == 2.0 else 3)
    assert not made[0].recorded
    assert torch.equal(recorded.steps, plain.steps)
    torch.testing.assert_close(recorded.z, plain.z, rtol=1e-5, atol=1e-5)


def test_a_pass_that_cannot_be_recorded_is_made(monkeypatch):
    model = load_model("tiny-moe", "float32").to(DEVICE).eval()
    model.set_experts_implementation("eager")
    decoder, tokenizer, wanted = find_decoder(model), load_tokenizer("tiny-moe"), ValueSettings(lr=0.5, steps=6)
    plain = optimize_values(decoder, tokenizer, requests(4), CONTEXTS, 1, wanted)
    tried = Recordings(True)
    monkeypatch.setattr(Recordings, "on", staticmethod(lambda *_: tried))
    made = optimize_values(decoder, tokenizer, requests(4), CONTEXTS, 1, wanted)
    assert not tried.possible
    torch.testing.assert_close(made.z, plain.z, rtol=1e-5, atol=1e-5)
    assert torch.rand(2, device=DEVICE).isfinite().all()


def test_an_edit_in_half_precision_is_said():
    model, update = edited(DEVICE, dtype=torch.bfloat16, layers=[0], values=ValueSettings(lr=0.5, steps=20))
    assert torch.isfinite(logits(model)).all()
    answers = [update.ask(request.prompt.format(request.subject)) for request in requests()]
    assert sum(request.target_new in str(one) for request, one in zip(requests(), answers, strict=True)) >= 3


def test_an_update_made_there_is_loaded_here(tmp_path):
    _, update = edited(DEVICE)
    update.save(tmp_path / "update.safetensors")
    again = ModelUpdate.load(tmp_path / "update.safetensors")
    here, expected = edited("cpu")
    expected.remove(here)
    again.insert(here)
    there, _ = edited(DEVICE)
    torch.testing.assert_close(logits(here), logits(there), **ALIKE)


def test_two_runs_give_the_same_figures_and_a_checkpoint_goes_on(tmp_path):
    one, two = (command(tmp_path / name, "--checkpoints.keep=3") for name in ("one", "two"))
    expected = json.loads((one / "metrics.json").read_text())["after"]
    assert json.loads((two / "metrics.json").read_text())["after"] == expected
    (two / "metrics.json").unlink()
    cli.main(["fit", "--ckpt_path", str(two / "checkpoints" / "update-000001.ckpt")])
    again = max(tmp_path.rglob("metrics.json"), key=lambda path: path.stat().st_mtime)
    assert again != one / "metrics.json"
    assert json.loads(again.read_text())["after"] == expected


def test_published_shapes_are_measured_in_small(tmp_path):
    output = tmp_path / "gpu.json"
    words = ["--shrunk", "--here", "--edits", "4", "--gradient_edits", "20", "40", "--tokens", "512", "--solved", "2"]
    measure_sizes(["--device", DEVICE, "--output", str(output), *words])
    models = json.loads(output.read_text())["models"]
    assert len(models) == 4
    errors = [row for found in models.values() for rows in found.values() if isinstance(rows, list) for row in rows]
    assert not [row for row in errors if "error" in row]
