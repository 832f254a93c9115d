"""The callback that measures downstream tasks in the middle of a run."""

import json

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from tokenizers import normalizers

from lightning_edit import EMMET, EditError, ValueSettings
from lightning_edit.callbacks import Downstream
from lightning_edit.datamodules import TinyWorld
from lightning_edit.keys.layer_stats import SecondMomentSettings
from lightning_edit.run.module import EditingModule
from lightning_edit.tiny import World
from tests.downstream_reference import write_rows, write_task
from tests.trainers import quiet_trainer

FIGURES = {
    f"downstream/places/{name}"
    for name in (
        *(f"{way}_{figure}" for way in ("generated", "likelihood") for figure in ("accuracy", "f1", "mcc")),
        "invalid",
    )
}


@pytest.fixture
def places(tmp_path):
    """A task about what the embedded model knows."""
    world = World.generate()
    relation = world.relations[0]
    facts = [fact for fact in world.facts if fact.relation == relation.name]
    rows = [{"question": relation.templates[0].format(fact.subject), "label": fact.answer} for fact in facts[:20]]
    write_rows(tmp_path / "places.jsonl", rows)
    return write_task(tmp_path, "places", answers={answer: answer for answer in relation.answers})


def made(**changes):
    settings = {"solver": EMMET(1.0, ridge=0.01), "values": ValueSettings(steps=8, clamp_norm_factor=4.0)}
    return EditingModule("tiny", [0], second_moment=SecondMomentSettings(tokens=4000), **{**settings, **changes})


def run(folder, *callbacks, edits=4, step="fit", module=None, **changes):
    module = module or made(**changes)
    trainer = quiet_trainer(folder, *callbacks)
    getattr(trainer, step)(module, datamodule=TinyWorld(edits=edits), **({"verbose": False} if step == "test" else {}))
    return module


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_it_measures_before_during_and_after(places, tmp_path):
    run(tmp_path, Downstream(places, shots=1, tests=5, every_n_updates=2), edits_per_update=1)
    folder = tmp_path / "lightning_edit_run" / "version_0"
    curve = lines(folder / "curves.jsonl")
    assert [line["edits"] for line in curve] == [0, 2, 4]
    assert all(set(line["figures"]) == FIGURES for line in curve)
    records = lines(folder / "downstream.jsonl")
    assert [(r["edits"], r["row"]) for r in records] == [(edits, row) for edits in (0, 2, 4) for row in range(2, 7)]
    keys = ["task", "edits", "row", "shots", "label", "generated", "parsed", "likelihood_choice", "log_probs"]
    assert all(list(record) == keys for record in records)
    for line in curve:
        shown = [r["likelihood_choice"] == r["label"] for r in records if r["edits"] == line["edits"]]
        assert line["figures"]["downstream/places/likelihood_accuracy"] == pytest.approx(sum(shown) / 5)


def test_the_edits_show(tmp_path):
    """The questions are those that are edited, the answers the new ones."""
    records = World.generate().records(4, 0)
    words = sorted({record[key] for record in records for key in ("target_new", "target_true")})
    rows = [{"question": r["prompt"].format(r["subject"]), "label": r["target_new"]} for r in records]
    write_rows(tmp_path / "edited.jsonl", rows)
    task = write_task(tmp_path, "edited", answers={word: word for word in words}, pool=0)
    run(tmp_path, Downstream(task, shots=0, tests=4), edits_per_update=2)
    curve = lines(tmp_path / "lightning_edit_run" / "version_0" / "curves.jsonl")
    assert [line["figures"]["downstream/edited/likelihood_accuracy"] for line in curve] == [0, 0.5, 1]
    assert [line["figures"]["downstream/edited/generated_accuracy"] for line in curve] == [0, 0.5, 1]


def test_a_measurement_leaves_no_trace(places, tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    module = made()
    module.configure_model()
    module.model.transformer.h[0].train()
    module.model.transformer.h[1].requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    modes = [part.training for part in module.model.modules()]
    gradients = [parameter.requires_grad for parameter in module.model.parameters()]
    tokenizer = module.tokenizer.backend_tokenizer.to_str()
    callback = Downstream(places, shots=1, tests=4)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
    callback.setup(trainer, module, "fit")
    module.trainer = trainer
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = callback.measure(trainer, module)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()
    assert [part.training for part in module.model.modules()] == modes
    assert [parameter.requires_grad for parameter in module.model.parameters()] == gradients
    assert all(torch.equal(before[name], tensor) for name, tensor in module.model.state_dict().items())
    assert tokenizer == module.tokenizer.backend_tokenizer.to_str()
    assert callback.measure(trainer, module) == first


@pytest.mark.slow
def test_a_run_with_it_writes_the_same_update(places, tmp_path):
    measured = run(tmp_path / "a", Downstream(places, shots=1, tests=4), edits_per_update=2)
    alone = run(tmp_path / "b", edits_per_update=2)
    assert torch.equal(measured.decoder.weight(0), alone.decoder.weight(0))


@pytest.mark.slow
def test_several_callbacks_share_a_run(places, tmp_path):
    folder = tmp_path / "lightning_edit_run" / "version_0"
    write_rows(tmp_path / "others.jsonl", [{"question": "Is it?", "label": i % 2} for i in range(6)])
    others = write_task(tmp_path, "others")
    both = Downstream(places, 0, 2, every_n_updates=1), Downstream(others, 0, 2, every_n_updates=2, before=False)
    run(tmp_path, *both, edits_per_update=1)
    found = {(record["edits"], record["task"]) for record in lines(folder / "downstream.jsonl")}
    assert found == {(n, "places") for n in range(5)} | {(n, "others") for n in (2, 4)}


def test_generations_can_be_left_out(places, tmp_path):
    run(tmp_path, Downstream(places, 0, 2, generations=False), step="test")
    assert (tmp_path / "lightning_edit_run" / "version_0" / "curves.jsonl").exists()
    assert not (tmp_path / "lightning_edit_run" / "version_0" / "downstream.jsonl").exists()


def test_without_tasks_nothing_happens(tmp_path):
    run(tmp_path, Downstream(), step="test")
    assert not (tmp_path / "lightning_edit_run" / "version_0" / "curves.jsonl").exists()


def test_fewer_shots_are_said(places, tmp_path, caplog):
    run(tmp_path, Downstream(places, shots=2, tests=2), step="test")
    assert "fewer than" not in caplog.text
    long = [{"question": "Because " * 50 + "it?", "label": i % 2} for i in range(6)]
    write_rows(tmp_path / "long.jsonl", long)
    run(tmp_path, Downstream(write_task(tmp_path, "long"), shots=2, tests=3), step="test")
    assert "long: 3 of 3 questions have fewer than 2 shots" in caplog.text


def test_a_folder_of_data_takes_the_place_of_the_hub(shared, tmp_path):
    callback = Downstream("sst, cola", "1,2", [3, 2], data_dir=str(shared / "data" / "downstream"), too_long="cut")
    run(tmp_path, callback, step="test")
    records = lines(tmp_path / "lightning_edit_run" / "version_0" / "downstream.jsonl")
    assert [record["task"] for record in records] == ["sst"] * 3 + ["cola"] * 2
    assert max(record["shots"] for record in records if record["task"] == "cola") <= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": "nli,sts"}, r"Downstream: `tasks`: There is no task sts\. Did you mean sst\?"),
        ({"tasks": "nli,,sst"}, "empty name"),
        ({"tasks": "nli,nli"}, "names nli twice"),
        ({"tasks": "nli,sst,mmlu", "shots": "2,3"}, r"`shots` has 2 numbers \(2, 3\) for 3 tasks \(nli, sst, mmlu\)"),
        ({"tasks": ["nli"], "tests": [20, 20]}, "`tests` has 2 numbers"),
        ({"tasks": "nli", "shots": -1}, "`shots` must be a whole number of 0 or more, .*got -1"),
        ({"tasks": "nli", "tests": "0"}, "`tests` must be 1 or more"),
        ({"tasks": "nli", "tests": "many"}, "`tests` must be numbers separated by commas, got 'many'"),
        ({"tasks": "nli", "tests": ""}, "`tests` must be numbers separated by commas"),
        ({"tasks": "nli", "every_n_updates": 0}, "every_n_updates"),
    ],
)
def test_bad_settings_are_refused_when_it_is_made(settings, message):
    with pytest.raises(EditError, match=message):
        Downstream(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 3}, "Downstream: `shots`: the few-shot pool of places has 2 rows, got 3"),
        ({"tests": 19}, "Downstream: `tests`: .* has 18 rows"),
        ({"data_dir": "nowhere"}, "Downstream: `data_dir`: there is no folder nowhere"),
    ],
)
def test_bad_data_are_refused_before_anything_is_measured(places, settings, message, tmp_path):
    with pytest.raises(EditError, match=message):
        run(tmp_path, Downstream(places, **{"shots": 1, "tests": 2, **settings}))
    assert not (tmp_path / "lightning_edit_run" / "version_0" / "curves.jsonl").exists()


def test_answers_that_the_tokenizer_drops_are_refused(tmp_path):
    module = made()
    module.configure_model()
    module.tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" Perhaps", "")
    write_rows(tmp_path / "own.jsonl", [{"question": "Is it?", "label": 0}] * 4)
    task = write_task(tmp_path, answers={0: "No", 1: "Perhaps"})
    with pytest.raises(EditError, match="own: the answer 'Perhaps' has no token of its own"):
        run(tmp_path, Downstream(task, 0, 1), step="test", module=module)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--d.tasks", "nli,sst,mmlu", "--d.shots", "2,3,3", "--d.tests", "20"], (3, [2, 3, 3], [20, 20, 20])),
        (["--d.tasks=[nli, sst]", "--d.shots=[2, 3]"], (2, [2, 3], [20, 20])),
        (["--d.tasks", "sst", "--d.shots", "0", "--d.every_n_updates", "4"], (1, [0], [20])),
        ([], (0, [], [])),
    ],
)
def test_the_command_line_takes_lists_with_commas(arguments, expected):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Downstream, "d")
    callback = Downstream(**parser.parse_args(arguments).d.as_dict())
    assert (len(callback.tasks), callback.shots, callback.tests) == expected
    assert callback.every_n_updates == (4 if "4" in arguments else 1)
