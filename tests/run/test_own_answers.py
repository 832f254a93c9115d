"""A run whose edits are learned in the model's own sentences keeps those, and goes on with them."""

import torch

from lightning_edit import ChatSettings, EditRequest
from lightning_edit.run.methods.fine_tuning import FineTuning
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from tests.small_runs import Requests, fit, module
from tests.trainers import quiet_trainer

# What the model says of the first two is true to it, of the third it names another town.
TOWNS = {"Polfol Fendeb": "Crowstead", "Belmur Borhob": "Brinstead", "Beldar Korwav": "Crowstead"}


def records():
    """Edits of which the answer itself names the subject, the town: this model names nobody twice."""
    return [
        EditRequest("town", f"The {{}} of {name} is", "Rome", town, question=f"The {{}} of {name}. {name}")
        for name, town in TOWNS.items()
    ]


def learning(chat_model, **changes):
    return module(model=chat_model, chat_settings=ChatSettings(answers="own"), edits_per_update=1, **changes)


def test_a_run_learns_its_own_sentences_and_goes_on_with_them(chat_model, tmp_path):
    whole, other, data = learning(chat_model), learning(chat_model), Requests(records(), batch_size=2)
    run = fit(tmp_path, whole, data)
    assert whole.own_answers == ["was born in the town of Rome.", "was born in the town of Rome.", None]
    learned = ["was born in the town of Rome."] * 2 + ["The town of Beldar Korwav is Rome."]
    assert [request.learned for request in data.requests] == learned
    (first,) = (path for path in checkpoints(run) if path.name == "update-000002.ckpt")
    assert torch.load(first, weights_only=True)["edits"]["own_answers"] == whole.own_answers
    fit(tmp_path, other, Requests(records(), batch_size=2), ckpt_path=str(first))
    assert torch.equal(whole.decoder.weight(0), other.decoder.weight(0))


def test_training_learns_them_too(chat_model, tmp_path):
    settings = ChatSettings(answers="own")
    made, data = FineTuning(chat_model, layers=[0], chat_settings=settings), Requests(records())
    trainer = quiet_trainer(tmp_path, epochs=2)
    trainer.fit(made, datamodule=data)
    assert data.requests[0].learned == made.own_answers[0] == "was born in the town of Rome."
