"""Runs of the memory editors: what they learn, where it holds, and what they leave."""

import json

import pytest
import torch

from lightning_edit import EditError, MemoryEditing, load_memories
from lightning_edit.asking.generation import generate
from lightning_edit.asking.tokenization import encode_prompt, encode_target
from lightning_edit.callbacks import ExportEdits
from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model
from lightning_edit.metrics.token_scores import score_targets
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.hooks import capture_input, change_output
from lightning_edit.storage.checkpoints.checkpoint_file import checkpoints
from tests.docs import shell
from tests.small_models import save_chat_model
from tests.trainers import quiet_trainer

LAYER = 1


def run(folder, method, edits=3, **changes):
    settings = {"layers": [LAYER], "dtype": "float64", "steps": 3, "early_stop_loss": 0, **changes}
    module = MemoryEditing("tiny", method, **settings)
    trainer = quiet_trainer(folder, ExportEdits())
    trainer.fit(module, datamodule=TinyWorld(edits=edits, batch_size=2))
    return module, folder / "lightning_edit_run" / "version_0" / "memories"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For each method a short run and the folder of its memories, which are only read."""
    return {method: run(tmp_path_factory.mktemp(method), method) for method in ("grace", "memoir", "memoir_closed")}


def texts_of(module):
    """Token ids of prompt and answer, and where that starts."""
    return [encode_target(module.tokenizer, r.rewrite_prompt, r.target_new) for r in module.requests]


def nll(model, ids, start):
    """In nats a token; the last token is only predicted."""
    log_probs = model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    return -sum(log_probs[i - 1, ids[i]] for i in range(start, len(ids))) / (len(ids) - start)


@pytest.mark.parametrize(
    ("method", "tail", "warned"),
    [("memoir", "\nassistant: ", True), ("memoir", "", False), ("grace", "\nassistant: ", False)],
)
def test_masks_of_prompts_that_end_alike_are_warned_of(method, tail, warned, tmp_path, caplog):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}" + tail
    model = save_chat_model(tmp_path / "chat", template)
    made = MemoryEditing(model, method, layers=[LAYER], steps=1, chat=True)
    quiet_trainer(tmp_path).fit(made, datamodule=TinyWorld(edits=2))
    assert ("which in a chat is the same for all" in caplog.text) == warned


def test_values_of_grace_are_those_of_a_plain_loop(runs):
    module, _ = runs["grace"]
    model = load_model("tiny", "float64").eval()
    site = find_decoder(model).down_projection(LAYER)
    for request, (ids, start), entry in zip(
        module.requests, texts_of(module), module.memories.memory.entries, strict=True
    ):
        value = module.loop.editor.drawn(request).double().requires_grad_(True)
        optimizer = torch.optim.Adam([value], lr=1.0)
        tried = []

        def replaced(output, value=value, start=start):
            return torch.cat([output[:, : start - 1], value[None, None], output[:, start:]], 1)

        with change_output(site, replaced):
            for _ in range(4):
                loss = nll(model, ids, start)
                tried.append((float(loss.detach()), value.detach().clone()))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.testing.assert_close(entry.tensors["value"], min(tried, key=lambda pair: pair[0])[1], rtol=0, atol=1e-9)


def test_memoir_descends_on_the_second_matrix_itself(runs):
    module, _ = runs["memoir"]
    memory, model = module.memories.memory, load_model("tiny", "float64").eval()
    site = find_decoder(model).down_projection(LAYER)
    weight = torch.zeros(site.weight.shape[::-1], dtype=torch.float64)
    masks = torch.zeros(0, weight.shape[1], dtype=torch.float64)
    for ids, start in texts_of(module):
        with torch.no_grad(), capture_input(site) as seen:
            model(torch.tensor([ids[:-1]]))
        keys = seen.value[0]
        mask = torch.zeros(1, weight.shape[1], dtype=torch.float64).scatter_(1, memory.mask(keys[start - 1])[None], 1.0)
        masks = torch.cat([masks, mask])
        owners, masked = memory.masked(keys, masks)
        own = (owners == len(masks) - 1)[:, None]
        tried, trained = [], weight
        for _ in range(4):
            # The columns of other edits answer, and are not trained.
            delta = (trained - weight).requires_grad_(True)
            gain = masked @ weight.T + (masked * own) @ delta.T + (masked * ~own) @ delta.detach().T
            with change_output(site, lambda output, gain=gain: output + gain):
                loss = nll(model, ids, start)
            tried.append((float(loss.detach()), trained))
            (gradient,) = torch.autograd.grad(loss, delta)
            trained = trained - min(1.0, 1.0 / float(gradient.norm())) * gradient
        weight = min(tried, key=lambda pair: pair[0])[1]
    torch.testing.assert_close(memory.weight(), weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["grace", "memoir_closed"])
def test_what_is_learned_does_not_depend_on_the_edits_before(method, runs):
    module, _ = runs[method]
    # It was learned by itself, after two others; now there are three in the memory.
    ((again,), _) = module.loop.editor.learn_outputs(module.requests[2:])
    stored = module.memories.memory.entries[2]
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in stored.tensors.items())


@pytest.mark.parametrize("method", ["grace", "memoir", "memoir_closed"])
def test_an_edit_holds_however_a_text_reaches_the_model(method, runs):
    module, folder = runs[method]
    model = load_model("tiny", "float64").eval()
    load_memories(folder, model)
    (ids, _), pad = texts_of(module)[0], 4
    with torch.no_grad():
        whole = model(torch.tensor([ids])).logits[0]
        cache, single = None, []
        for token in ids:
            out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            single.append(out.logits[0, -1])
        mask = torch.tensor([[0] * pad + [1] * len(ids)])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        padded = model(torch.tensor([[7] * pad + ids]), attention_mask=mask, position_ids=positions).logits[0, pad:]
        longer = model(torch.tensor([[*ids, 7, 7, 7]])).logits[0, : len(ids)]
    for other in (torch.stack(single), padded, longer):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["grace", "memoir", "memoir_closed"])
def test_a_folder_answers_as_the_run_did_and_comes_off_again(method, runs):
    module, folder = runs[method]
    model = load_model("tiny", "float64").eval()
    decoder, tokenizer = find_decoder(model), module.tokenizer
    prompts = [r.rewrite_prompt for r in module.requests]
    pairs = [(r.rewrite_prompt, r.target_new) for r in module.requests]
    ids = torch.tensor([encode_prompt(tokenizer, prompts[0])])
    unedited = model(ids).logits
    memories = load_memories(folder, model)
    assert len(memories) == 3
    edited = model(ids).logits
    assert not torch.equal(edited, unedited)
    scores = score_targets(decoder, tokenizer, pairs).log_probs
    torch.testing.assert_close(scores, score_targets(module.decoder, tokenizer, pairs).log_probs, rtol=0, atol=1e-9)
    assert generate(decoder, tokenizer, prompts, 4) == generate(module.decoder, tokenizer, prompts, 4)
    with memories.paused():
        assert torch.equal(model(ids).logits, unedited)
    memories.take_off()
    assert torch.equal(model(ids).logits, unedited)
    memories.put_on()
    assert torch.equal(model(ids).logits, edited)
    memories.remove(0)
    assert memories.edits == [entry.name for entry in module.memories.memory.entries[1:]]


def test_a_folder_for_other_weights_or_of_another_form_is_refused(runs, tmp_path):
    _, folder = runs["memoir"]
    model = load_model("tiny", "float64")
    with torch.no_grad():
        find_decoder(model).down_projection(LAYER).weight[0, 0] += 1
    with pytest.raises(EditError, match="holds other weights than these edits were made for"):
        load_memories(folder, model)
    with pytest.raises(EditError, match="holds other weights"):
        load_memories(folder, load_model("tiny", "float32"))
    model, words = load_model("tiny", "float64"), json.loads((folder / "memories.json").read_text())
    (tmp_path / "memories.safetensors").write_bytes((folder / "memories.safetensors").read_bytes())
    wrong = {"kind": "os.system", "module": "transformer.none", "settings": {"top_k": 9999, "threshold": 0.4}}
    for name, value in wrong.items():
        (tmp_path / "memories.json").write_text(json.dumps(words | {name: value}))
        with pytest.raises(EditError, match=r"memories|no module"):
            load_memories(tmp_path, model)
    with pytest.raises(EditError, match=r"holds no memories: expected memories\.json"):
        load_memories(tmp_path / "none", model)


@pytest.fixture(scope="module")
def command_run(tmp_path_factory):
    """The folder of a run of the command line, which is only read."""
    folder = tmp_path_factory.mktemp("command_run")
    arguments = ["fit", "--config", "configs/solvers/grace.yaml", "--data.edits", "4", "--data.batch_size", "2"]
    arguments += ["--collateral.prompts", "12", "--retention.every_n_micro_batches", "1"]
    assert shell.run([*arguments, "--trainer.logger.save_dir", str(folder)]) == 0
    (metrics,) = folder.glob("*/metrics.json")
    return metrics.parent


def test_a_run_of_the_command_line_leaves_memories_and_no_model(command_run):
    metrics = command_run / "metrics.json"
    figures = json.loads(metrics.read_text())
    assert figures["before"]["efficacy_score"] == 0
    assert figures["after"]["efficacy_score"] == 1
    assert figures["after"]["neighborhood_score"] == 1
    assert not (metrics.parent / "model").exists()
    assert len(load_memories(metrics.parent / "memories", load_model("tiny"))) == 4


def test_reports_and_comparisons_tell_the_updates_that_were_made(command_run, tmp_path):
    metrics = json.loads((command_run / "metrics.json").read_text())
    assert metrics["config"]["model"]["edits_per_update"] == 2
    # Runs of earlier versions did not say so.
    metrics["config"]["model"]["edits_per_update"] = None
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    for folder in (command_run, tmp_path):
        (run,), _ = read_runs([folder])
        assert (run.edits, run.batch_size) == (4, 2)
    assert shell.run(["report", str(command_run), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "in 2 steps" in page and "2 in each update" in page


@pytest.mark.parametrize("command", ["export", "survive"])
def test_a_checkpoint_of_memories_is_no_update_of_weights(command, command_run, capsys):
    checkpoint = checkpoints(command_run)[0]
    with pytest.raises(SystemExit):
        cli.main([command, str(checkpoint)])
    said = " ".join(capsys.readouterr().err.split())
    assert f"the edits of the run of {checkpoint} are in memories/, beside the weights" in said
    assert "load_memories" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "tiny-moe"}, "experts share the tokens"),
        ({"layers": [0, 1]}, "a memory is put beside one layer"),
        ({"method": "memoir", "radius": 2.0}, "`radius` means nothing with `method: memoir`, only with grace"),
        ({"method": "memoir", "top_k": 5000}, "`top_k` is at most the 1024 columns"),
    ],
)
def test_what_a_memory_cannot_be_is_refused(settings, message, tmp_path):
    with pytest.raises(EditError, match=message):
        made = MemoryEditing(**{"model": "tiny", "layers": [0], **settings})
        quiet_trainer(tmp_path).fit(made, datamodule=TinyWorld(edits=1))
