"""FT and FT-L against a plain loop, and that they leave what every other method leaves."""

import json

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_edit import EditError, EditRequest, ModelUpdate
from lightning_edit.asking.tokenization import encode_target
from lightning_edit.callbacks import EditReport, ExportEdits
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.run.methods import fine_tuning
from lightning_edit.run.methods.crispedit import CrispEdit
from lightning_edit.run.methods.fine_tuning import FineTuning, encode_answer, target_nll
from lightning_edit.run.methods.lora import LoRA
from lightning_edit.tiny import World
from tests.trainers import quiet_trainer


def run(folder, epochs=5, edits=4, batch_size=64, **changes):
    made = FineTuning("tiny", **{"layers": [0], "lr": 0.01, "dtype": "float64", **changes})
    data = TinyWorld(edits=edits, batch_size=batch_size)
    runner = quiet_trainer(folder, EditReport(table=False), ExportEdits(), epochs=epochs)
    runner.test(made, datamodule=data, verbose=False)
    runner.fit(made, datamodule=data)
    runner.test(made, datamodule=data, verbose=False)
    return made, folder / "lightning_edit_run" / "version_0"


def plain_loop(requests, epochs, lr, batch_size=64, eps=None):
    """Adam on W, one text at a time."""
    model, tokenizer = load_model("tiny", "float64"), load_tokenizer("tiny")
    weight = find_decoder(model).down_projection(0).weight.requires_grad_(True)
    start, optimizer = weight.detach().clone(), torch.optim.Adam([weight], lr=lr)
    for _ in range(epochs):
        for first in range(0, len(requests), batch_size):
            batch, loss = requests[first : first + batch_size], 0.0
            for request in batch:
                ids, where = encode_target(tokenizer, request.rewrite_prompt, request.target_new)
                log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
                loss -= sum(log_probs[i - 1, ids[i]] for i in range(where, len(ids))) / (len(ids) - where) / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if eps is not None:
                weight.data = torch.minimum(torch.maximum(weight.data, start - eps), start + eps)
    return weight.detach()


@pytest.mark.parametrize(("batch_size", "eps"), [(64, None), (3, None), (64, 0.02)])
@pytest.mark.slow
def test_equals_a_plain_loop(batch_size, eps, tmp_path):
    made, _ = run(tmp_path, batch_size=batch_size, norm_constraint=eps, early_stop_loss=0)
    expected = plain_loop(made.requests, 5, 0.01, batch_size, eps)
    weight = made.decoder.down_projection(0).weight.detach()
    # Adam divides rounding by rounding where a gradient is nearly zero; everywhere else they agree.
    assert float((weight - expected).abs().quantile(0.99)) < 1e-9


def test_each_epoch_can_have_an_order_of_its_own(tmp_path, monkeypatch):
    prompts = []

    def watched(decoder, tokenizer, requests, end=False):
        prompts.extend(request.rewrite_prompt for request in requests)
        return target_nll(decoder, tokenizer, requests, end)

    monkeypatch.setattr(fine_tuning, "target_nll", watched)
    more = {"early_stop_loss": 0, "shuffle": True}
    first, again, other = (run(tmp_path / f"{i}", 2, 5, 2, seed=seed, **more)[0] for i, seed in enumerate((0, 0, 1)))
    given = [request.rewrite_prompt for request in first.requests]
    epochs = [prompts[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(epoch) == sorted(given) for epoch in epochs)
    assert given != epochs[0] != epochs[1] != given
    assert epochs[2:4] == epochs[:2] != epochs[4:]
    assert torch.equal(first.decoder.weight(0), again.decoder.weight(0))
    assert not torch.equal(first.decoder.weight(0), other.decoder.weight(0))


def test_an_answer_can_end_with_the_end_of_the_text(tiny_tokenizer):
    records = World.generate().records(2)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    model = load_model("tiny", "float64")
    expected = []
    for request in requests:
        ids, start = encode_answer(tiny_tokenizer, request, end=True)
        plain = encode_target(tiny_tokenizer, request.rewrite_prompt, request.target_new)
        assert (ids, start) == ([*plain[0], tiny_tokenizer.eos_token_id], plain[1])
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(-sum(log_probs[i - 1, ids[i]] for i in range(start, len(ids))) / (len(ids) - start))
    found = target_nll(find_decoder(model), tiny_tokenizer, requests, end=True)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=0)


def test_ft_l_keeps_every_entry_within_eps(tmp_path):
    made, _ = run(tmp_path, norm_constraint=0.003)
    change = made.decoder.weight(0).detach() - made.weights.base[0]
    assert 0.0029 < float(change.abs().max()) <= 0.003 * (1 + 1e-9)


def test_leaves_a_report_an_update_and_a_model_that_answers(tmp_path):
    made, folder = run(tmp_path, epochs=20, dtype="float32")
    written = json.loads((folder / "metrics.json").read_text())
    assert written["edits"] == 4
    assert written["seconds"]["training"] > 0
    assert written["before"]["efficacy_score"] == 0
    assert written["after"]["efficacy_score"] == 1
    model, update = load_model("tiny"), ModelUpdate.load(folder / "update.safetensors")
    update.insert(model)
    assert torch.equal(find_decoder(model).weight(0), made.decoder.weight(0))


def test_stops_once_the_edits_are_learned(tmp_path):
    made, _ = run(tmp_path, epochs=50, early_stop_loss=0.5, dtype="float32")
    assert made.trainer.current_epoch < 49
    assert float(made.trainer.callback_metrics["efficacy_accuracy"]) > 0.0


def test_loss_has_gradients_for_the_edited_weights_only(tmp_path):
    made, _ = run(tmp_path, epochs=2)
    made.model.zero_grad()
    target_nll(made.decoder, made.tokenizer, made.requests).sum().backward()
    trained = [name for name, parameter in made.model.named_parameters() if parameter.grad is not None]
    assert trained == [f"{made.decoder.names[0]}.weight"]


@pytest.mark.parametrize("settings", [{"lr": 0}, {"weight_decay": -1}, {"norm_constraint": 0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(EditError, match=next(iter(settings))):
        FineTuning("tiny", [0], **settings)


def test_the_last_block_can_be_trained(tmp_path):
    made, _ = run(tmp_path, epochs=2, layers=[2])
    assert not torch.equal(made.decoder.weight(2), made.weights.base[2])


def test_training_that_diverges_is_refused_and_undone(tmp_path):
    made = FineTuning("tiny", [0], lr=3e36)
    runner = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False
    )
    with pytest.raises(EditError, match=r"Lower `model\.lr`"):
        runner.fit(made, datamodule=TinyWorld(edits=2))
    assert torch.equal(made.decoder.weight(0), made.weights.base[0])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_steps": 0}, r"before 4 of 4 edits had their turn, so nothing is edited"),
        ({"max_time": {"seconds": 0}}, r"`trainer\.max_time` leaves no time for the first edit"),
    ],
)
def test_a_trainer_that_ends_before_the_first_edit_is_refused(limit, message, tmp_path):
    made = FineTuning("tiny", layers=[0])
    with pytest.raises(EditError, match=message):
        trainer_with(tmp_path, **limit).fit(made, datamodule=TinyWorld(edits=4))


def test_a_trainer_that_ends_before_the_last_edit_says_so(tmp_path):
    made = FineTuning("tiny", layers=[0])
    with pytest.warns(UserWarning, match="before 2 of 4 edits had their turn"):
        trainer_with(tmp_path, max_steps=1).fit(made, datamodule=TinyWorld(edits=4, batch_size=2))
    assert made.loop.edits_written == 2


def trainer_with(folder, **options):
    return Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "logger": False, "default_root_dir": folder, **options},
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )


@pytest.mark.parametrize("make", [FineTuning, LoRA, CrispEdit])
def test_a_precision_in_which_adam_divides_by_zero_is_refused(make, tmp_path):
    made = make("tiny", layers=[0], dtype="float16", lr=1e-12)
    epochs = 1 if make is CrispEdit else 2
    with pytest.raises(EditError, match=r"Weights in float16 cannot be trained by Adam.*`model.dtype: float32`"):
        trainer_with(tmp_path, max_epochs=epochs).fit(made, datamodule=TinyWorld(edits=2))
