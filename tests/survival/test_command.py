"""``lightning-edit survive`` on a run of the embedded model: its figures, how it goes on, and mistakes."""

import io
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

from lightning_edit.cli import main as cli
from lightning_edit.cli.measured_run import MeasuredRun, measured_run, other_records
from lightning_edit.loading import quantization
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.survival import survive as at_work
from lightning_edit.survival.measuring import Measures
from tests import shared_runs
from tests.killing import Command

pytest.importorskip("peft")

FAST = ["--steps=2", "--text_tokens=2000", "--perplexity_tokens=300", "--batch_size=2"]
ALL = ["--variants=edited,base,lora,merged", "--weights=0,0.5,1"]


def survive(run, output, *args):
    cli.main(["survive", str(run), f"--output={output}", *FAST, *map(str, args)])
    return results(output)


def results(output):
    content = json.loads(output.read_text())
    return {entry["variant"]: entry for entry in content["variants"]}


HOLD = """
import sys, time
from pathlib import Path
from lightning_edit.storage.run_lock import RunLock
lock = RunLock.of_file(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def survived(finished, tmp_path_factory):
    """A file of results."""
    output = tmp_path_factory.mktemp("survived") / "survival.json"
    survive(finished, output, *ALL)
    return output


def test_merging_at_the_ends_is_the_edited_model_and_the_base(survived):
    found = results(survived)
    assert list(found) == ["edited", "base", "lora", "merged-0", "merged-0.5", "merged-1"]
    for name, end in (("merged-1", "edited"), ("merged-0", "base")):
        for part in ("figures", "answers"):
            assert found[name][part] == found[end][part]
    assert found["edited"]["figures"]["efficacy_score"] > found["base"]["figures"]["efficacy_score"]


def test_the_figures_are_those_of_the_run(survived, finished):
    metrics, found = json.loads((finished / "metrics.json").read_text()), results(survived)
    for name, stage in (("edited", "after"), ("base", "before")):
        measured = {key: value for key, value in found[name]["figures"].items() if key != "perplexity"}
        assert measured.keys() == metrics[stage].keys()
        for key, value in measured.items():
            assert value == pytest.approx(metrics[stage][key], rel=1e-5), key
        assert found[name]["figures"]["perplexity"] > 1


def test_a_fine_tuned_model_was_trained(survived):
    found = results(survived)
    assert found["lora"]["notes"]["last_loss"] > 0
    assert found["lora"]["figures"]["perplexity"] != found["edited"]["figures"]["perplexity"]
    assert found["lora"]["settings"]["steps"] == 2


def test_there_is_a_figure(survived):
    with Image.open(survived.with_suffix(".png")) as picture:
        assert picture.width > picture.height > 100


def test_the_same_command_measures_nothing_again(survived, finished, monkeypatch, capsys):
    before = survived.read_text()
    monkeypatch.setattr(Measures, "measure", lambda *args: pytest.fail("measured again"))
    survive(finished, survived, *ALL, "--figure", survived.with_suffix(".svg"))
    assert survived.read_text() == before
    shown = capsys.readouterr()
    assert "6 models were measured before" in shown.err
    assert "merged, 0.5" in shown.out
    assert "of 6" in shown.out
    assert "<svg" in survived.with_suffix(".svg").read_text()


def test_another_fine_tuning_is_kept_beside_the_first(survived, finished, tmp_path):
    output = tmp_path / "survival.json"
    shutil.copy(survived, output)
    cli.main(["survive", str(finished), f"--output={output}", *FAST, "--variants=lora", "--steps=3"])
    kept = [entry for entry in json.loads(output.read_text())["variants"] if entry["variant"] == "lora"]
    assert sorted(entry["settings"]["steps"] for entry in kept) == [2, 3]


def test_a_killed_command_goes_on_where_it_was(survived, finished, tmp_path):
    output = tmp_path / "survival.json"
    args = ["survive", finished, f"--output={output}", *FAST, *ALL]
    killed = Command(args, tmp_path / "log", kill="survival:2:after")
    assert killed.wait() == [-9], killed.output
    first = results(output)
    assert list(first) == ["edited", "base"]
    whole, expected = survive(finished, output, *ALL), results(survived)
    assert {name: whole[name] for name in first} == first
    for name, entry in expected.items():
        assert whole[name]["figures"] == entry["figures"], name


def test_a_file_that_another_command_works_on_is_refused_before_a_model_is_loaded(
    survived, finished, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "survival.json"
    shutil.copy(survived, output)
    before, words = output.read_bytes(), [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with monkeypatch.context() as patch:
            patch.setattr(
                "lightning_edit.updates.base_model.load_base", lambda *_, **__: pytest.fail("a model was loaded")
            )
            said = refused(capsys, finished, f"--output={output}", *FAST, *ALL)
        assert f"{output} is in use: process {process.pid}" in said
        # Results in another file of the same folder are none of its business.
        assert survive(finished, tmp_path / "other.json", "--variants=base")["base"]["figures"]
        assert output.read_bytes() == before
        process.kill()
    assert survive(finished, output, *ALL) == results(survived)
    assert not any(path.name.endswith(".lock") for path in tmp_path.iterdir())


def test_a_variant_that_fails_loses_no_other_and_is_tried_again(finished, tmp_path, monkeypatch, capsys):
    output = tmp_path / "survival.json"

    def broken(*args):
        raise RuntimeError("no room for it")

    with monkeypatch.context() as patch:
        patch.setattr(at_work, "fine_tuned", broken)
        found = survive(finished, output, "--variants=lora,edited")
    assert found["lora"]["not_run"] == "RuntimeError: no room for it"
    assert found["edited"]["figures"]
    assert "LoRA, 2 steps, not run: RuntimeError: no room for it" in capsys.readouterr().out
    again = survive(finished, output, "--variants=lora,edited")
    assert again["lora"]["figures"]
    assert again["edited"] == found["edited"]


@pytest.mark.skipif(not find_spec("bitsandbytes"), reason="`make test-quantized` installs bitsandbytes")
def test_quantized_models_are_measured(finished, tmp_path):
    found = survive(finished, tmp_path / "survival.json", "--variants=edited,8-bit,4-bit,base")
    for name in ("8-bit", "4-bit"):
        assert found[name]["not_run"] == ""
        assert 0.5 < found[name]["figures"]["perplexity"] / found["edited"]["figures"]["perplexity"] < 3
        assert found[name]["figures"]["efficacy_magnitude"] != found["edited"]["figures"]["efficacy_magnitude"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.skipif(not find_spec("bitsandbytes"), reason="`make test-quantized` installs bitsandbytes")
@pytest.mark.parametrize("write", ["merged", "beside"])
def test_a_run_on_a_quantized_model_is_measured_and_merged_alone(write, tmp_path):
    run = shared_runs.command(tmp_path, **{"model.quantization": "bnb-4bit", "model.write": write})
    found = survive(run, run / "survival.json", *ALL, "--variants=edited,base,8-bit,lora,merged")
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("8-bit", "lora"):
        assert found[name]["not_run"].startswith("the run's model is quantized already")
    for name, stage in (("edited", "after"), ("base", "before")):
        measured = {key: value for key, value in found[name]["figures"].items() if key != "perplexity"}
        assert measured == pytest.approx(metrics[stage], rel=1e-4), name
    for name, end in (("merged-1", "edited"), ("merged-0", "base")):
        assert found[name]["figures"] == found[end]["figures"]
    assert found["merged-0.5"]["figures"] != found["edited"]["figures"]
    assert found["edited"]["figures"]["efficacy_score"] > found["base"]["figures"]["efficacy_score"]


def test_what_is_not_installed_is_said(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantization, "find_spec", lambda package: None)
    found = survive(finished, tmp_path / "survival.json", "--variants=bnb-4bit,base")
    assert "pip install 'lightning-edit[bnb]'" in found["bnb-4bit"]["not_run"]
    assert found["base"]["figures"]
    assert "bnb-4bit, not run: " in capsys.readouterr().out


def test_an_update_a_checkpoint_and_the_model_folder_are_the_run_too(finished, survived, tmp_path):
    expected = results(survived)["edited"]
    for name in ("update.safetensors", "edited.ckpt", "model"):
        found = survive(finished / name, tmp_path / f"{name}.json", "--variants=edited")["edited"]
        assert found["figures"] == pytest.approx(expected["figures"], rel=1e-4), name


@pytest.mark.slow
def test_a_checkpoint_alone_says_what_it_was_measured_on(finished, survived, tmp_path):
    shutil.copy(finished / "edited.ckpt", tmp_path / "edited.ckpt")
    found = survive(tmp_path / "edited.ckpt", tmp_path / "survival.json", "--variants=edited")["edited"]
    assert found["figures"] == pytest.approx(results(survived)["edited"]["figures"], rel=1e-4)


def test_own_answers_are_those_that_the_run_kept(finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished / "config.yaml", run)
    metrics = json.loads((finished / "metrics.json").read_text())
    metrics["config"]["own_answers"] = ["It is so.", *[None] * 5]
    (run / "metrics.json").write_text(json.dumps(metrics))
    measured = measured_run(run, None)
    assert isinstance(measured, MeasuredRun)
    requests = measured.requests(True)
    assert requests[0].said == "It is so."
    assert requests[0].learned == "It is so."
    assert requests[1].learned != "It is so."
    # In a chat they are asked as questions.
    assert requests[0].original is not None


def test_records_that_the_run_did_not_measure_are_counted(finished):
    requests = measured_run(finished, None).requests(False)
    assert other_records(finished, requests) == 0
    changed = [requests[0], *(type(one)(one.subject, one.prompt, "elsewhere") for one in requests[1:])]
    assert other_records(finished, changed) == 5


@pytest.mark.slow
def test_a_gpt_that_knows_facts_of_counterfact(shared, tmp_path):
    model = shared / "models" / "cf-gpt"
    if not model.is_dir():
        pytest.skip("cf-gpt is absent")
    facts = [
        {"subject": "Danielle Darrieux", "prompt": "The mother tongue of {} is", "target_new": "English"},
        {"subject": "Toyota", "prompt": "{} is headquartered in", "target_new": "Berlin"},
    ]
    (tmp_path / "edits.json").write_text(json.dumps(facts))
    settings = {
        "data": "OwnEdits",
        "data.path": tmp_path / "edits.json",
        "model.model": model,
        "model.values.steps": 5,
        "model.second_moment.tokens": 2000,
        "model.solver.ridge": 0.01,
        "model.second_moment.cache_dir": tmp_path / "cache",
        "collateral.prompts": 0,
        "trainer.logger.save_dir": tmp_path,
    }
    cli.main(["fit", *(f"--{name}={value}" for name, value in settings.items())])
    # There is no ordinary text, so the model writes its own.
    found = survive(tmp_path / "version_0", tmp_path / "survival.json", *ALL)
    assert not any(entry["not_run"] for entry in found.values())
    assert found["merged-1"]["figures"] == found["edited"]["figures"]
    assert found["merged-0"]["figures"] == found["base"]["figures"]
    assert found["lora"]["figures"]["perplexity"] != found["edited"]["figures"]["perplexity"]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def refused(capsys, *args):
    with pytest.raises(SystemExit) as left:
        cli.main(["survive", *map(str, args)])
    assert left.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--variants", "edited,pruned"], "There is no variant 'pruned'"),
        (["--weights", "0.5,1.2"], "from 0 to 1"),
        (["--weights", "half"], "numbers with commas"),
        (["--steps", "0"], "`survival.steps` must be"),
        (["--output", "results.txt"], "ends in .json"),
        (["--figure", "figure.bmp"], "ends in .png"),
        (["--text", "none.txt"], "there is no file none.txt"),
        (["--device", "tpu"], "invalid choice"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(args, message, finished, capsys):
    assert message in refused(capsys, finished, *args)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert "there is nothing at" in refused(capsys, tmp_path / "none")
    assert "holds no" in refused(capsys, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_class_path": "lightning_edit.InContext"}, "puts facts before prompts and edits no weight"),
        ({"independent_updates": True}, "made by itself"),
    ],
)
def test_runs_whose_edits_are_in_no_weights_are_refused(settings, message, tmp_path, capsys):
    (tmp_path / "metrics.json").write_text(json.dumps({"config": {"model": settings}}))
    said = refused(capsys, tmp_path)
    assert message in said
    assert "`survive` takes runs that leave an edited model" in said


def test_memories_are_refused(tmp_path, capsys):
    (tmp_path / "memories").mkdir()
    said = refused(capsys, tmp_path)
    assert "beside the weights" in said
    assert "load_memories" in said


def test_a_base_model_that_has_changed_is_refused(finished, tmp_path, capsys):
    model = load_model("tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    model.save_pretrained(tmp_path / "other")
    load_tokenizer("tiny").save_pretrained(tmp_path / "other")
    output = tmp_path / "survival.json"
    said = refused(capsys, finished, "--model", tmp_path / "other", "--output", output)
    assert "holds other weights than the update was made for" in said
    assert not output.exists()


def test_results_of_something_else_are_not_gone_on_with(survived, finished, tmp_path, capsys):
    before = survived.read_text()
    said = refused(capsys, finished, "--output", survived, *FAST, "--variants=base", "--perplexity_tokens=600")
    assert "text of perplexity changed since" in said
    assert survived.read_text() == before
    for content in ("[]", "{", json.dumps({"format": "lightning-edit survival 1", "identity": 3})):
        (tmp_path / "other.json").write_text(content)
        assert "other.json" in refused(capsys, finished, "--output", tmp_path / "other.json", *FAST)
        assert (tmp_path / "other.json").read_text() == content


def test_classes_of_others_are_imported_only_if_the_user_says_so(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = (run / "config.yaml").read_text()
    assert "lightning_edit.datamodules.TinyWorld" in config
    (run / "config.yaml").write_text(config.replace("lightning_edit.datamodules.TinyWorld", "somewhere.Data"))
    assert "--trust_config" in refused(capsys, run)


def test_a_table_shows_what_is_still_said():
    from rich.console import Console

    from lightning_edit.survival.figure import draw
    from lightning_edit.survival.results import Result
    from lightning_edit.survival.table import still_said, table

    def result(name, *said, **others):
        answers = [{"case_id": str(i), "said": one} for i, one in enumerate(said)]
        return Result(name, name, answers=answers, figures={"efficacy_score": sum(said) / 4}, **others)

    edited, merged = result("edited", True, True, True, False), result("merged", True, False, False, True)
    missing = Result("8-bit", "8-bit", not_run="install it")
    assert still_said(merged, edited) == (1, 3)
    shown = io.StringIO()
    Console(file=shown, width=80).print(table([edited, merged, missing]))
    assert "2 of 4" in shown.getvalue()
    assert "1 of 3" in shown.getvalue()
    assert "not run" in shown.getvalue()
    assert len(draw([edited, merged, missing]).axes) == 1
