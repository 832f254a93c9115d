"""Adapters on untouched models, by PEFT: the same logits as the edited ones, and what a smaller rank costs."""

import copy
import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from lightning_edit import EditError, ModelUpdate
from lightning_edit.api import EditResult
from lightning_edit.cli import main as cli
from lightning_edit.configs import CONFIGS
from lightning_edit.export.adapter import make_adapter
from lightning_edit.export.folder import lora_facts, write_lora
from lightning_edit.export.ranks import VLLM_RANKS, RankSettings
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.models.finding.sites import oriented_weight
from lightning_edit.solvers import Factors
from lightning_edit.storage.fingerprint import fingerprint
from lightning_edit.updates.files.update_list import UpdateList
from lightning_edit.updates.layer_update import LayerUpdate
from lightning_edit.updates.model_update import inserted
from tests.small_models import make_gpt2, make_llama, make_request

peft = pytest.importorskip("peft")

MODELS = {"llama": make_llama, "gpt2": make_gpt2, "experts": lambda: load_model("tiny-moe", "float64")}
IDS = torch.arange(3, 33).view(2, 15)


def update_of(model, ranks=(3, 2), seed=0):
    """A random update of the first layers, each of its own rank; ``dense`` for one without factors."""
    decoder, layers = find_decoder(model), {}
    for layer, rank in enumerate(ranks):
        weight, generator = decoder.weight(layer), torch.Generator().manual_seed(seed + layer)
        left = 0.1 * torch.randn(len(weight), rank, dtype=torch.float64, generator=generator)
        right = torch.randn(rank, weight[0].numel(), dtype=torch.float64, generator=generator)
        base = fingerprint(oriented_weight(decoder.down_projection(layer)))
        layers[layer] = LayerUpdate(decoder.names[layer], base, Factors(left, right))
    return ModelUpdate(layers, {"model": "somewhere", "solver": "EMMET()", "edits": 5})


def exported(folder, model, update, **settings):
    adapter = make_adapter(model, {one.module: one.factors for one in update.layers.values()}, RankSettings(**settings))
    write_lora(folder, adapter, lora_facts(adapter, "somewhere", None, update.info, []))
    return adapter


def put_on(model, folder, name="default"):
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), folder, adapter_name=name)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pad_rank", ["auto", "none"])
def test_peft_gives_the_logits_of_the_edited_model(name, pad_rank, tmp_path):
    model = MODELS[name]()
    update, before = update_of(model), logits(model)
    exported(tmp_path / "lora", model, update, pad_rank=pad_rank)
    with inserted(model, update):
        edited = logits(model)
    wrapped = put_on(model, tmp_path / "lora")
    assert float((edited - before).abs().max()) > 1e-2
    torch.testing.assert_close(logits(wrapped), edited, rtol=0, atol=1e-9)
    with wrapped.disable_adapter():
        assert torch.equal(logits(wrapped), before)
    torch.testing.assert_close(logits(wrapped.merge_and_unload()), edited, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_two_adapters_together_are_both_updates(name, tmp_path):
    model = MODELS[name]()
    first, second = update_of(model), update_of(model, (2, 4), seed=9)
    exported(tmp_path / "first", model, first)
    exported(tmp_path / "second", model, second)
    with inserted(model, first):
        for layer, one in second.layers.items():
            second.layers[layer] = LayerUpdate(
                one.module, fingerprint(oriented_weight(model.get_submodule(one.module))), one.factors
            )
        with inserted(model, second):
            both = logits(model)
    wrapped = put_on(model, tmp_path / "first", "first")
    wrapped.load_adapter(tmp_path / "second", adapter_name="second")
    wrapped.base_model.set_adapter(["first", "second"])
    torch.testing.assert_close(logits(wrapped), both, rtol=0, atol=1e-9)


def test_float32_to_rounding(tmp_path):
    model = make_llama(torch.float32)
    update = update_of(model)
    exported(tmp_path / "lora", model, update)
    with inserted(model, update):
        edited = logits(model)
    torch.testing.assert_close(logits(put_on(model, tmp_path / "lora")), edited, rtol=0, atol=1e-4)


def test_a_smaller_rank_is_the_best_of_its_rank_and_says_what_it_lacks(tmp_path):
    model = make_gpt2()
    update = update_of(model, (6, 20))
    adapter = exported(tmp_path / "lora", model, update, rank=4)
    assert not adapter.exact
    written = adapter.truncated()
    for one in update.layers.values():
        dense = one.factors.dense()
        values = torch.linalg.svdvals(dense)
        kept, ranks = written[one.module].dense(), adapter.ranks[one.module]
        assert torch.linalg.matrix_rank(kept) == 4
        assert float((dense - kept).norm()) == pytest.approx(float(values[4:].norm()), rel=1e-9)
        assert ranks.error == pytest.approx(float((dense - kept).norm() / dense.norm()), rel=1e-9)
        assert (ranks.full, ranks.kept, ranks.written) == (int(torch.linalg.matrix_rank(dense)), 4, 8)
    assert "left out" in (tmp_path / "lora" / "README.md").read_text()


def test_an_error_decides_on_the_rank_and_a_rank_too_small_for_it_is_refused():
    model = make_llama()
    update = {one.module: one.factors for one in update_of(model, (8, 8)).layers.values()}
    adapter = make_adapter(model, update, RankSettings(max_error=0.3, pad_rank="none"))
    for name, ranks in adapter.ranks.items():
        assert ranks.error <= 0.3 < adapter.updates[name].error(ranks.kept - 1)
    needed = max(ranks.kept for ranks in adapter.ranks.values())
    with pytest.raises(EditError, match=f"`--rank {needed}` would do"):
        make_adapter(model, update, RankSettings(rank=1, max_error=0.3))
    assert make_adapter(model, update, RankSettings(rank=needed, max_error=0.3)).ranks.keys() == update.keys()


def test_ranks_are_filled_up_to_what_vllm_takes(caplog):
    model = make_llama(hidden_size=640, intermediate_size=640, num_hidden_layers=1, num_attention_heads=2)
    for rank, written in ((1, 8), (9, 16), (300, 320), (513, 513)):
        update = {
            find_decoder(model).names[0]: Factors(torch.eye(640).double()[:, :rank], torch.eye(640)[:rank].double())
        }
        (ranks,) = make_adapter(model, update, RankSettings()).ranks.values()
        assert (ranks.kept, ranks.written) == (rank, written)
        assert written in VLLM_RANKS or "vLLM" in caplog.text
    with pytest.raises(EditError, match=r"`--pad_rank 8`.*--rank 8"):
        make_adapter(model, update, RankSettings(pad_rank=8))


def test_stacked_experts_may_share_a_rank_but_not_their_factors():
    model = load_model("tiny-moe", "float64")
    adapter = make_adapter(model, {(one := update_of(model).layers[0]).module: one.factors}, RankSettings(rank=2))
    experts = find_decoder(model).experts(0)
    down, up = (adapter.tensors()[f"base_model.model.{one.module}.lora_{part}.weight"] for part in "AB")
    assert (len(down), up.shape[1]) == (8 * experts, 8 * experts)
    dense = one.factors.dense().view(len(up), experts, -1)
    for number in range(experts):
        values = torch.linalg.svdvals(dense[:, number])
        made = up.view(len(up), 8, experts)[..., number] @ down.view(experts, 8, -1)[number]
        assert float((dense[:, number] - made).norm()) == pytest.approx(float(values[2:].norm()), rel=1e-9)


def test_what_is_no_matrix_is_refused():
    model = make_llama()
    with pytest.raises(EditError, match=r"model\.norm, a LlamaRMSNorm.*--to model"):
        make_adapter(model, {"model.norm": Factors(torch.ones(16, 1).double())}, RankSettings())
    with pytest.raises(EditError, match="edits no matrix"):
        make_adapter(model, {}, RankSettings())


def test_a_result_in_memory_becomes_an_adapter_whether_inserted_or_not(tmp_path):
    model = make_llama()
    update = update_of(model)
    request = make_request(subject="a | b")
    result = EditResult(update, find_decoder(model), load_tokenizer("tiny"), [request])
    before = copy.deepcopy(model)
    result.insert(model)
    adapter = result.to_lora(tmp_path / "inserted")
    assert adapter.exact
    torch.testing.assert_close(logits(put_on(before, tmp_path / "inserted")), logits(model), rtol=0, atol=1e-9)
    result.remove(model)
    result.to_lora(tmp_path / "removed", rank=1)
    assert r"| The a \| b is located in the city of | Rome |" in (tmp_path / "inserted" / "README.md").read_text()
    with pytest.raises(EditError, match="is there already"):
        result.to_lora(tmp_path / "removed")
    with pytest.raises(EditError, match="rank"):
        result.to_lora(tmp_path / "other", rank=0)
    assert {path.name for path in tmp_path.iterdir()} == {"inserted", "removed"}


# -- the command ------------------------------------------------------------------------------------------------------


def command(capsys, *words):
    cli.main(["export", *map(str, words)])
    return " ".join(capsys.readouterr().out.split())


def refused(capsys, *words):
    with pytest.raises(SystemExit):
        cli.main(["export", *map(str, words)])
    return " ".join(capsys.readouterr().err.split())


def test_a_run_becomes_an_adapter_with_a_card(finished, tmp_path, capsys):
    out = command(capsys, finished, "--out", tmp_path / "lora")
    assert "It is put on" in out
    model, edited = load_model("tiny"), load_model(str(finished / "model"))
    torch.testing.assert_close(logits(put_on(model, tmp_path / "lora")), logits(edited), rtol=0, atol=1e-4)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (8, 8, True)
    card = ModelCard.load(tmp_path / "lora" / "README.md")
    assert card.data.library_name == "peft"
    for said in ("EMMET", "6 edited facts", "| says the new answer by itself |", "## Undo", "## Limits"):
        assert said in card.content


def test_a_card_calls_the_method_by_its_published_name(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    metrics = json.loads((finished / "metrics.json").read_text())
    encore = yaml.safe_load((CONFIGS / "solvers" / "encore.yaml").read_text())["model"]["init_args"]
    metrics["config"]["model"] |= encore
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    command(capsys, tmp_path / "run", "--out", tmp_path / "lora")
    assert "were changed with ENCORE by Lightning Edit" in ModelCard.load(tmp_path / "lora" / "README.md").content


def test_a_truncated_run_says_how_many_answers_are_left(finished, tmp_path, capsys):
    out = command(capsys, finished, "--rank", 1, "--check", 4, "--out", tmp_path / "lora")
    assert "of 3 edits asked again the whole update says" in out
    assert "asked again" in (tmp_path / "lora" / "README.md").read_text()


def test_checkpoints_and_files_are_exported_like_their_run(finished, tmp_path, capsys):
    command(capsys, finished / "update.safetensors", "--out", tmp_path / "file")
    command(capsys, finished / "edited.ckpt", "--out", tmp_path / "end")
    model = load_model("tiny")
    expected = logits(put_on(model, tmp_path / "file"))
    torch.testing.assert_close(logits(put_on(model, tmp_path / "end")), expected, rtol=0, atol=1e-5)
    first = sorted((finished / "checkpoints").glob("update-*.ckpt"))[0]
    command(capsys, first, "--out", tmp_path / "first")
    assert float((logits(put_on(model, tmp_path / "first")) - expected).abs().max()) > 1e-3


def test_the_edited_model_is_written_with_a_card(finished, tmp_path, capsys):
    command(capsys, finished, "--to", "model", "--out", tmp_path / "model", "--all_edits")
    assert torch.equal(logits(load_model(str(tmp_path / "model"))), logits(load_model(str(finished / "model"))))
    load_tokenizer(str(tmp_path / "model"))
    assert ModelCard.load(tmp_path / "model" / "README.md").data.library_name == "transformers"


def test_what_was_removed_from_a_run_is_in_neither_adapter_nor_card(finished, tmp_path, capsys):
    run = tmp_path / "version_0"
    shutil.copytree(finished, run)
    cli.main(["updates", "remove", str(run), "3"])
    command(capsys, run)
    config = json.loads((run / "export-lora" / "adapter_config.json").read_text())
    removed = UpdateList(run / "updates").record(3).edits
    card = (run / "export-lora" / "README.md").read_text()
    assert config["r"] == 8
    assert "4 edited facts" in card
    assert "measured: update 3 of the run" in card
    assert not any(edit["subject"] in card for edit in removed)
    model, edited = load_model("tiny"), load_model(str(run / "model"))
    torch.testing.assert_close(logits(put_on(model, run / "export-lora")), logits(edited), rtol=0, atol=1e-4)
    cli.main(["updates", "apply", str(run), "3"])
    assert "export-lora may lack updates that are in the run again" in capsys.readouterr().out.replace("\n", " ")


def test_another_base_is_refused_and_nothing_is_written(finished, tmp_path, capsys):
    other = make_gpt2(torch.float32, n_embd=192, n_layer=3, n_head=4, n_inner=512)
    other.save_pretrained(tmp_path / "other")
    load_tokenizer("tiny").save_pretrained(tmp_path / "other")
    for run in (finished, finished / "edited.ckpt"):
        said = refused(capsys, run, "--model", tmp_path / "other", "--out", tmp_path / "lora")
        assert "holds other weights than" in said
    assert not (tmp_path / "lora").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", 0], "`--rank` must be"),
        (["--max_error", 2], "`--max_error` is a share"),
        (["--pad_rank", "many"], "`--pad_rank` must be"),
        (["--to", "model", "--rank", 3], "for --to lora"),
        (["--rank", 1, "--max_error", 0.01], "would do"),
        (["--pad_rank", 2], "can only be filled up"),
    ],
)
def test_bad_arguments_are_refused(words, said, finished, tmp_path, capsys):
    assert said in refused(capsys, finished, *words, "--out", tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_what_holds_no_update_is_refused(tmp_path, capsys):
    assert "there is nothing at" in refused(capsys, tmp_path / "none")
    (tmp_path / "memories").mkdir()
    assert "load_memories" in refused(capsys, tmp_path)
