"""Tasks of the lm-evaluation-harness, on local files."""

import importlib.util
import json
import multiprocessing

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lightning_edit import ChatSettings, EditError
from lightning_edit.callbacks import Harness
from lightning_edit.callbacks.measuring.harness import _figures
from lightning_edit.cli import main as cli
from lightning_edit.run.module import EditingModule
from lightning_edit.tiny import World
from tests.small_models import save_chat_model

pytestmark = pytest.mark.slow

installed = pytest.mark.skipif(not importlib.util.find_spec("lm_eval"), reason="the harness is not installed")
ROWS = 12


def rows():
    world = World.generate()
    relation = world.relations[0]
    facts = [fact for fact in world.facts if fact.relation == relation.name][:ROWS]
    return [
        {
            "question": relation.templates[0].format(fact.subject),
            "choices": list(relation.answers),
            "gold": relation.answers.index(fact.answer) if i % 3 else 0,
        }
        for i, fact in enumerate(facts)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a task file and its data."""
    made = tmp_path_factory.mktemp("harness")
    data = made / "places.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (made / "places.yaml").write_text(
        f"""
task: lightning_edit_places
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
    )
    return made


@pytest.fixture(scope="module")
def module():
    made = EditingModule("tiny", [0])
    made.configure_model()
    return made


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def measured(folder, module, cached):
    callback = Harness("lightning_edit_places", include_path=str(folder), limit=9, batch_size=4, bootstrap_iters=100)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    callback.setup(trainer, module, "fit")
    return callback, callback.measure(trainer, module)


@installed
def test_figures_are_those_of_a_plain_loop(measured, module):
    right = []
    for row in rows()[:9]:
        scores = []
        start = len(module.tokenizer(row["question"])["input_ids"])
        for choice in row["choices"]:
            ids = torch.tensor([module.tokenizer(f"{row['question']} {choice}")["input_ids"]])
            log_probs = module.model(ids).logits[0].log_softmax(-1)[start - 1 : -1]
            scores.append(float(log_probs.gather(1, ids[0, start:, None]).sum()))
        right.append(scores.index(max(scores)) == row["gold"])
    _, figures = measured
    assert 0 < sum(right) < 9
    mean = sum(right) / 9
    assert figures == pytest.approx(
        {
            "harness/lightning_edit_places/acc": mean,
            "harness/lightning_edit_places/acc_stderr": (mean * (1 - mean) / 8) ** 0.5,
        }
    )


@installed
def test_a_measurement_leaves_no_trace_and_can_be_repeated(measured, module):
    callback, figures = measured
    before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    padding, modes = module.tokenizer.pad_token, [part.training for part in module.model.modules()]
    assert callback.measure(None, module) == figures
    assert all(torch.equal(before[name], tensor) for name, tensor in module.model.state_dict().items())
    assert [part.training for part in module.model.modules()] == modes
    assert module.tokenizer.pad_token == padding


def share(rank, folder, callback, module):
    """One of two processes: measures, and counts the requests that it answered itself."""
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    answer, count = HFLM.loglikelihood, []
    HFLM.loglikelihood = lambda self, requests: [count.append(1) or given for given in answer(self, requests)]
    figures = callback.measure(None, module)
    (folder / f"{rank}.json").write_text(json.dumps([figures, len(count)]))


@installed
def test_two_processes_share_the_requests_and_have_the_same_figures(measured, module, tmp_path):
    callback, figures = measured
    # A new process would import the harness anew, which takes longer than all else here.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=share, args=(rank, tmp_path, callback, module)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    (first, of_first), (second, of_second) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second == pytest.approx(figures, rel=1e-6)
    assert of_first == of_second
    assert of_first + of_second == 9 * len(rows()[0]["choices"])


def test_a_figure_of_a_filter_has_its_error_beside_it():
    found = {"alias": "t", "em,strict": 0.5, "em_stderr,strict": 0.1, "acc,none": 1, "acc_stderr,none": "N/A"}
    names = {"harness/t/em/strict": 0.5, "harness/t/em/strict_stderr": 0.1, "harness/t/acc": 1.0}
    assert dict(_figures("t", found)) == names


@installed
def test_unknown_tasks_are_refused(folder, module):
    callback = Harness("lightning_edit_placs", include_path=str(folder))
    with pytest.raises(EditError, match=r"knows no task lightning_edit_placs.* lightning_edit_places"):
        callback.check(None, module)


@pytest.mark.skipif(bool(importlib.util.find_spec("lm_eval")), reason="the harness is installed")
def test_without_the_harness_the_message_says_how_to_get_it(module):
    with pytest.raises(EditError, match=r"pip install 'lightning-edit\[harness\]'"):
        Harness("hellaswag").check(None, module)


def test_without_tasks_nothing_is_asked_for(module):
    callback = Harness()
    callback.setup(None, module, "fit")
    assert not callback.active


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "`limit` must be a whole number of 1 or more or null, got 0"),
        ({"num_fewshot": -1}, "`num_fewshot` must be a whole number of 0 or more"),
        ({"batch_size": "many"}, "`batch_size` must be a number or auto, got 'many'"),
        ({"include_path": "nowhere"}, "`include_path`: there is no folder nowhere"),
        ({"tasks": "a,,b"}, "Harness: `tasks` has an empty name"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(EditError, match=message):
        Harness(**{"tasks": "hellaswag", **settings})


TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{{ '!' if loud else '' }}{% endif %}"
)


@pytest.fixture(scope="module")
def chat_module(tmp_path_factory):
    folder = save_chat_model(tmp_path_factory.mktemp("chat"), TEMPLATE)
    made = EditingModule(folder, [0], chat_settings=ChatSettings(system="Be brief.", arguments={"loud": True}))
    made.configure_model()
    return made


@installed
@pytest.mark.parametrize(("chat", "shots"), [(True, 0), ("auto", 1), (False, 0)])
def test_tasks_are_asked_in_the_chat(chat, shots, folder, chat_module, cached, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    asked, answer = [], HFLM.loglikelihood
    monkeypatch.setattr(
        HFLM, "loglikelihood", lambda self, requests: asked.extend(r.args for r in requests) or answer(self, requests)
    )
    callback = Harness("lightning_edit_places", include_path=str(folder), limit=2, num_fewshot=shots, chat=chat)
    callback.check(None, chat_module)
    assert callback.measure(None, chat_module).keys() == {"harness/lightning_edit_places/acc"}
    contexts = list(dict.fromkeys(context for context, _ in asked))
    questions = [row["question"] for row in rows()[:2]]
    assert len(contexts) == 2
    for context, question in zip(contexts, questions, strict=True):
        if not chat:
            assert context == question
            continue
        assert context.startswith("[system] Be brief.\n[user] ") and context.endswith(
            f"[user] {question}\n[assistant]!"
        )
        assert context.count("[user]") == 1 + shots and context.count("[assistant] ") == shots


@installed
def test_a_chat_needs_a_template(folder, module, cached):
    with pytest.raises(EditError, match="needs a tokenizer with a chat template"):
        Harness("lightning_edit_places", include_path=str(folder), chat=True).check(None, module)
    found = Harness("lightning_edit_places", include_path=str(folder), limit=2, chat="auto")
    found.check(None, module)
    plain = Harness("lightning_edit_places", include_path=str(folder), limit=2)
    plain.check(None, module)
    assert found.measure(None, module) == plain.measure(None, module)


@installed
def test_the_preset_names_tasks_of_the_harness(capsys):
    from lm_eval.tasks import TaskManager

    with pytest.raises(SystemExit):
        cli.main(["fit", "--config", "configs/harness/capability.yaml", "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)["harness"]
    assert settings["chat"] == "auto" and len(settings["tasks"]) == 5
    assert set(settings["tasks"]) <= set(TaskManager().all_tasks)
