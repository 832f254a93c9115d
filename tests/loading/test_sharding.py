"""Models whose weights are divided between processes: each holds a part, and nothing else is different."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from lightning_edit import ContextTemplates, EditError, ModelUpdate, ValueSettings
from lightning_edit.asking.generation import Sampling, generate
from lightning_edit.loading.editable import ModelSource
from lightning_edit.loading.fingerprints import fingerprint_model
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.loading.sharding import gathered_weights, load_sharded
from lightning_edit.metrics.token_scores import score_targets
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.sites import capture_keys
from lightning_edit.models.hooks import run_until
from lightning_edit.updates.edited_weights import EditedWeights
from lightning_edit.values.optimize import optimize_values
from tests.architectures import build
from tests.killing import CONTEXT, Command, free_port, outcome
from tests.small_models import make_factors, make_llama, make_request, make_tokenizer

STRATEGY = "ModelParallelStrategy"
# Conv1D and tied weights; rotary, learned and no positions; buffers; norms without a bias.
FAMILIES = ("GPT2", "GPTJ", "Llama", "Gemma2", "OPT", "Falcon", "Qwen3Moe", "GptOss")
IDS = torch.arange(1, 41).view(2, 20)


def in_group(rank, job, folder, *args):
    """One of two processes that run a job together."""
    with (folder / "log").open("a", buffering=1) as log:
        os.dup2(log.fileno(), 2)
        sys.stderr = log
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", f"file://{folder / 'store'}", world_size=2, rank=rank)
        job(folder, *args)
        torch.distributed.destroy_process_group()


def together(job, folder, *args):
    """Exit statuses of two processes that run a job together, and what they wrote if one has failed."""
    processes = [CONTEXT.Process(target=in_group, args=(rank, job, folder, *args)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    statuses = [process.exitcode for process in processes]
    return statuses, (folder / "log").read_text() if any(statuses) else ""


DONE = ([0, 0], "")


def saved(model, folder):
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def divided(folder, down_projection=None):
    return load_sharded(ModelSource(str(folder), down_projection=down_projection), "cpu")


# -- loading -----------------------------------------------------------------------------------------------------------


def compare_families(folder):
    for family in FAMILIES:
        plain, model = load_model(str(folder / family)), divided(folder / family)
        parameters = list(model.parameters())
        assert all(isinstance(p, DTensor) and not p.requires_grad for p in parameters), family
        assert fingerprint_model(model) == fingerprint_model(plain), family
        decoder, known = find_decoder(model), find_decoder(plain)
        weights, expected = EditedWeights(decoder, [1]), EditedWeights(known, [1])
        with torch.no_grad():
            torch.testing.assert_close(model(IDS).logits, plain(IDS).logits, rtol=0, atol=0)
            # What a pass that was ended early had gathered must not hide what is written next.
            run_until(model, {"input_ids": IDS}, capture_keys(decoder.down_projection(1), stop=True))
            for each in (weights, expected):
                each.add(1, make_factors(*each.base[1].shape))
            edited = plain(IDS).logits
            assert torch.equal(model(IDS).logits, edited), family
            with weights.unedited(), expected.unedited():
                assert torch.equal(model(IDS).logits, plain(IDS).logits), family
            assert torch.equal(model(IDS).logits, edited), family
        assert torch.equal(decoder.weight(1), known.weight(1)), family
        assert isinstance(decoder.parameter(1), DTensor), family


@pytest.mark.slow
def test_a_model_is_loaded_edited_and_given_back_like_the_whole_model(tmp_path):
    for family in FAMILIES:
        saved(build(family), tmp_path / family)
    assert together(compare_families, tmp_path) == DONE


def peak(name):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def load_large(folder, size):
    Path("/proc/self/clear_refs").write_text("5")
    before = peak("VmRSS")
    model = divided(folder)
    grown = peak("VmHWM") - before
    own = sum(p.to_local().numel() * p.element_size() for p in model.parameters())
    assert own < 0.51 * size
    if torch.distributed.get_rank() == 1:
        assert 0.5 * size < grown < 0.75 * size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for memory")
@pytest.mark.slow
def test_no_process_but_the_first_ever_holds_the_whole_model(tmp_path):
    model = make_llama(torch.float32, hidden_size=512, intermediate_size=2048, num_hidden_layers=10)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    assert size > 100e6
    assert together(load_large, saved(model, tmp_path), size) == DONE


def load_nothing(folder):
    with pytest.raises(EditError, match=r"no causal language model|Process 0 failed"):
        divided(folder)


def test_a_model_that_is_not_there_is_told_by_all_processes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert together(load_nothing, tmp_path) == DONE


# -- the stages --------------------------------------------------------------------------------------------------------


def compare_stages(folder, dtype, tolerance):
    tokenizer = load_tokenizer(str(folder))
    plain, model = find_decoder(load_model(str(folder))), find_decoder(divided(folder))
    requests = [make_request(), make_request(subject="Toyota", prompt="The {} are in", target_new="Berlin")]
    templates, settings = ContextTemplates(("{}", "You play. {}")), ValueSettings(steps=4, early_stop_loss=1e-9)
    for site in ("block", "mlp"):
        at = ValueSettings(steps=4, early_stop_loss=1e-9, site=site)
        found = [optimize_values(each, tokenizer, requests, templates, 1, at) for each in (plain, model)]
        assert settings.steps == int(found[1].steps.max())
        torch.testing.assert_close(found[1].z, found[0].z, rtol=tolerance, atol=tolerance)
    texts = [generate(each, tokenizer, ["The Eiffel", "I"], 8, Sampling()) for each in (plain, model)]
    assert texts[0] == texts[1]
    pairs = [(request.rewrite_prompt, request.target_new) for request in requests]
    scores = [torch.stack(list(score_targets(each, tokenizer, pairs).log_probs)) for each in (plain, model)]
    torch.testing.assert_close(scores[1], scores[0], rtol=tolerance, atol=tolerance)
    assert model.model.dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), pytest.param(torch.float32, 1e-5, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_values_texts_and_scores_are_those_of_the_whole_model(dtype, tolerance, tmp_path):
    assert together(compare_stages, saved(make_llama(dtype), tmp_path), dtype, tolerance) == DONE


def insert_and_remove(folder):
    plain, model = load_model(str(folder / "model")), divided(folder / "model")
    update = ModelUpdate.load(folder / "update.safetensors")
    for each in (plain, model):
        update.insert(each)
        inserted = fingerprint_model(each)
        update.remove(each)
        assert fingerprint_model(each) != inserted
    assert fingerprint_model(model) == fingerprint_model(plain)
    update.insert(model)
    with pytest.raises(EditError, match="in the model already"):
        update.insert(model)
    weights = gathered_weights(model)
    if torch.distributed.get_rank() == 0:
        model.save_pretrained(folder / "edited", state_dict=weights)


def test_an_update_file_goes_in_and_out_of_a_divided_model_and_is_exported(tmp_path):
    model = make_llama(torch.float32, tie_word_embeddings=True)
    saved(model, tmp_path / "model")
    weights = EditedWeights(find_decoder(model), [1])
    weights.add(1, make_factors(16, 24))
    weights.update().save(tmp_path / "update.safetensors")
    assert together(insert_and_remove, tmp_path) == DONE
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    assert type(exported) is type(model)
    assert torch.equal(exported(IDS).logits, model(IDS).logits)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("model", "edited")]
    assert abs(sizes[0] - sizes[1]) < 100


# -- the command line --------------------------------------------------------------------------------------------------


def command(folder, run, *args, strategy=None):
    """A small sequential run; with a strategy in two processes."""
    given = ["fit", *args, "--trainer.logger.save_dir", folder / run]
    if strategy is None:
        made = Command(given, folder / f"{run}.log")
    else:
        shared = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        given += ["--trainer.devices", 2, "--trainer.accelerator", "cpu", "--trainer.strategy", strategy]
        ranks = [{"LOCAL_RANK": str(rank), **shared} for rank in range(2)]
        made = Command(given, folder / f"{run}.log", environments=ranks)
    statuses = made.wait(200)
    made.kill()
    return statuses, made.output


SETTINGS = {
    "data.edits": 6,
    "data.batch_size": 4,
    "model.edits_per_update": 3,
    "model.layers": "[0,1]",
    "model.previous_keys": "true",
    "model.solver.ridge": 0.01,
    "model.values.steps": 3,
    "model.second_moment.tokens": 2000,
    "model.evaluation.generated_match": "true",
    "retention.every_n_updates": 1,
}


@pytest.mark.slow
def test_a_run_in_two_processes_ends_like_one_in_one_process_and_goes_on(tmp_path):
    args = [f"--{name}={value}" for name, value in SETTINGS.items()]
    args += [f"--model.second_moment.cache_dir={tmp_path / 'cache'}"]
    for run, strategy, processes in (("one", None, 1), ("two", STRATEGY, 2)):
        statuses, output = command(tmp_path, run, *args, strategy=strategy)
        assert statuses == [0] * processes, output
    one, two = (tmp_path / run / "version_0" for run in ("one", "two"))
    expected = outcome(one)
    same_outcome(outcome(two), expected)
    models = [AutoModelForCausalLM.from_pretrained(folder / "model") for folder in (one, two)]
    torch.testing.assert_close(models[1](IDS).logits, models[0](IDS).logits, rtol=1e-4, atol=1e-4)

    shutil.copytree(two, tmp_path / "again" / "version_0")
    newest = tmp_path / "again" / "version_0" / "checkpoints" / "update-000001.ckpt"
    statuses, output = command(tmp_path, "again", "--ckpt_path", newest, "--trust_config", strategy=STRATEGY)
    assert statuses == [0, 0], output
    assert "Going on" in output
    same_outcome(outcome(newest.parents[1]), expected)


def same_outcome(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected["weights"].items():
        bits = (bytearray(found["weights"][name]), bytearray(weight))
        torch.testing.assert_close(*(torch.frombuffer(b, dtype=torch.float32) for b in bits), rtol=1e-5, atol=1e-5)
    for stage in ("before", "after"):
        assert found[stage] == pytest.approx(expected[stage], rel=1e-4, abs=1e-6)
    assert found["edits"] == expected["edits"]
    assert found["updates"] == expected["updates"]
    assert len(found["lines"]["records.jsonl"]) == len(expected["lines"]["records.jsonl"])


def test_lightning_s_own_strategy_is_refused_before_anything_is_loaded(tmp_path):
    config = tmp_path / "strategy.yaml"
    config.write_text("trainer:\n  strategy:\n    class_path: lightning.pytorch.strategies.ModelParallelStrategy\n")
    made = Command(["fit", "--config", config, "--trainer.devices", 2], tmp_path / "log")
    assert made.wait(60) == [2], made.output
    assert "`trainer.strategy: ModelParallelStrategy`, the name alone" in " ".join(made.output.split())
