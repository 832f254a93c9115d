"""Whole runs on records that test what follows: RippleEdits over the embedded world, and records without subjects."""

import json
from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit import EMMET, ChatSettings, EditRequest, InContext, Query, Ripple, ValueSettings
from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison import compare
from lightning_edit.commands.comparison.runs import read_runs
from lightning_edit.datamodules import FEVER, EditEverything, RippleEdits, UltraEditBench
from lightning_edit.errors import EditError
from lightning_edit.metrics.descriptions import description
from lightning_edit.metrics.ripples.figures import RippleMeans, ripple_figures
from lightning_edit.report.figures import FOLLOWING, groups_of
from lightning_edit.requests import fact_of
from lightning_edit.tiny import MODEL_PATH, World
from tests.data_files import editeverything, fever, language_fact, ripple_test, ultraeditbench
from tests.small_runs import Requests, module
from tests.trainers import quiet_trainer

# The shortest template in which an answer begins a word.
CHAT = "{% for m in messages %}{{ (' ' if m['role'] == 'assistant' else '') + m['content'] }}{% endfor %}"
WORLD = World.generate()
EDITS = 4


def fact(subject, relation):
    return next(fact for fact in WORLD.facts if (fact.subject, fact.relation) == (subject, relation))


def record(place):
    """An edit of a language, and tests whose answers the embedded model knows."""
    known = fact(WORLD.subjects[place], "language")
    new = next(answer for answer in WORLD.relation("language").answers[place:] if answer != known.answer)
    other, plays = fact(WORLD.subjects[place + 100], "language"), fact(known.subject, "instrument")
    speaks = f"{other.subject} speaks the language called"
    kept = ripple_test(f"{known.subject} likes to play the", [plays.answer], [(speaks, [other.answer])])
    unmet = ripple_test(f"{known.subject} likes to play the", ["nothing at all"], [(speaks, ["no language"])])
    wordings = [prompt for prompt in WORLD.prompts(known, held_out=False) if "mother tongue" not in prompt]
    return {
        "example_type": "popular",
        "edit": language_fact(known.subject, new) | {"original_fact": language_fact(known.subject, known.answer)},
        "Relation_Specifity": [kept, unmet],
        "Logical_Generalization": [ripple_test(["Nobody says", wordings[0]], [new])],
        "Subject_Aliasing": [ripple_test(wordings[0], [new])],
        "Compositionality_I": [ripple_test(["Nobody says", wordings[0]], [new], how="AND")],
        "Compositionality_II": [],
        "Forgetfulness": [ripple_test(speaks, [other.answer])],
    }


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ripples")
    (folder / "text.txt").write_text("\n".join(WORLD.sentences()))
    (folder / "popular.json").write_text(json.dumps([record(place) for place in range(EDITS)]))
    settings = {
        "data.path": folder / "popular.json",
        "data.preservation": "TextFile",
        "data.preservation.path": folder / "text.txt",
        "model.solver.ridge": 0.01,
        "model.second_moment.tokens": 2000,
        "model.second_moment.cache_dir": folder / "cache",
        "model.evaluation.ripple_tokens": 8,
        "collateral.prompts": 0,
        "trainer.logger.save_dir": folder,
    }
    cli.main(["fit", "--data=RippleEdits", *(f"--{name}={value}" for name, value in settings.items())])
    return folder / "version_0"


def test_every_axis_is_measured_before_and_after(run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    before, after, tests = metrics["before"], metrics["after"], metrics["ripples"]
    assert after["generated_match"] == 1
    # Of each two tests of what stays one is about something that the model did not know.
    assert tests["relation_specificity"]["tests"] == 2 * EDITS
    assert tests["relation_specificity"]["condition_unmet"] == EDITS
    assert before["ripple_relation_specificity_said"] == 0.5
    stays = after["ripple_relation_specificity_score"]
    assert tests["relation_specificity"]["passed"] == stays * EDITS and stays > 0
    assert before["ripple_subject_aliasing_said"] == 0 < after["ripple_subject_aliasing_said"]
    # One of both queries is enough with OR, and not with AND.
    assert after["ripple_logical_generalization_score"] == after["ripple_subject_aliasing_score"] > 0
    assert after["ripple_compositionality_i_score"] == 0
    assert 0 < after["ripple_forgetfulness_unchanged"] <= 1
    assert not any("compositionality_ii" in name for name in after)
    axes = ("subject_aliasing", "logical_generalization", "compositionality_i")
    mean = sum(after[f"ripple_{axis}_score"] for axis in axes) / 3
    assert after["ripple_portability_score"] == pytest.approx(mean)
    assert after["ripple_portability_score_n"] == EDITS and "ripple_portability_score_stderr" in after
    assert "ripple_portability_score" not in before


def test_records_give_the_figures_again(run_folder):
    after = json.loads((run_folder / "metrics.json").read_text())["after"]
    means = RippleMeans()
    for line in (run_folder / "records.jsonl").read_text().splitlines():
        found = json.loads(line)
        if found["stage"] == "after":
            kept = {test["axis"] for test in found["ripples"] if test["kept"]}
            means.update(ripple_figures(found["ripples"]), kept)
    again = means.compute()
    assert again and again == {name: after[name] for name in again}


def test_the_report_explains_them(run_folder):
    (run,), _ = read_runs([run_folder])
    shown = {one.name: one for one in groups_of(run, {})[FOLLOWING]}
    assert shown["ripple_subject_aliasing_said"].title == "Subject aliasing: said"
    assert "by another name of its subject" in shown["ripple_subject_aliasing_score"].meaning
    assert not any("portability" in name or "token" in name for name in shown)


def test_tensorboard_and_comparisons_show_them(run_folder, tmp_path, capsys):
    events = EventAccumulator(str(run_folder)).Reload()
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("edit/ripple_")}
    assert {f"edit/ripple_{axis}_said" for axis in ("subject_aliasing", "forgetfulness", "portability")} <= tags
    assert all(events.SummaryMetadata(tag).summary_description == description(tag) != "" for tag in tags)
    assert [event.step for event in events.Scalars("edit/ripple_portability_said")] == [0, EDITS]
    compare([str(run_folder)], "ripple_subject_aliasing_score", output=str(tmp_path / "a.png"))
    shown = capsys.readouterr().out
    assert "follows" in shown and "ripple subject aliasing score (%)" in " ".join(shown.split())


def asking(subject):
    """An edit of a craft, and tests of what follows and of what stays."""
    known, plays = fact(subject, "craft"), fact(subject, "instrument")
    prompt, *others = WORLD.prompts(known, held_out=False)
    new = next(answer for answer in WORLD.relation("craft").answers if answer != known.answer)
    kept = Ripple("relation_specificity", (Query(f"{subject} likes to play the", ((plays.answer,),)),), kept=True)
    follows = Ripple(
        "subject_aliasing", (Query(others[0], ((new,),)),), conditions=(Query(prompt, ((known.answer,),)),)
    )
    template = prompt.replace(subject, "{}")
    return EditRequest(subject, template, new, known.answer, subject, ripples=(follows, kept))


def measured(tmp_path, made, requests):
    trainer, data = quiet_trainer(tmp_path), requests
    trainer.test(made, datamodule=data, verbose=False)
    trainer.fit(made, datamodule=data)
    trainer.test(made, datamodule=data, verbose=False)
    return made.results["before"], made.results["after"], made.sections["ripples"]


def test_updates_from_the_unedited_model_are_each_tested_on_their_own_edits(tmp_path):
    requests = [asking(subject) for subject in WORLD.subjects[:4]]
    made = module(independent_updates=True, values=ValueSettings(steps=20), layers="auto", solver=EMMET(ridge=0.01))
    before, after, tests = measured(tmp_path, made, Requests(requests))
    assert before["ripple_subject_aliasing_said"] == 0 and after["ripple_subject_aliasing_said"] == 1
    said = round(4 * after["generated_match"])
    assert tests["subject_aliasing"]["passed"] == said > 2 and tests["subject_aliasing"]["edit_failed"] == 4 - said
    assert after["ripple_relation_specificity_unchanged"] > 0.5


@pytest.mark.parametrize(("together", "counted"), [(2, "passed"), (1, "edit_failed")])
def test_a_test_of_several_updates_from_the_unedited_model_does_not_count(tmp_path, together, counted):
    first, last = map(asking, WORLD.subjects[:2])
    last = replace(last, ripples=(replace(last.ripples[0], edits=(fact_of(first), fact_of(last))),))
    made = module(
        independent_updates=True,
        values=ValueSettings(steps=20),
        layers="auto",
        solver=EMMET(ridge=0.01),
        edits_per_update=together,
    )
    # They are measured one by one, whether they are in one update or not.
    data = Requests([replace(first, ripples=()), last], eval_batch_size=1)
    _, after, tests = measured(tmp_path, made, data)
    assert after["generated_match"] == 1 and after["ripple_subject_aliasing_said"] == 1
    assert tests["subject_aliasing"][counted] == tests["subject_aliasing"]["tests"] == 1


def test_a_chat_is_tested_in_its_turns(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "chat")
    AutoModelForCausalLM.from_pretrained(MODEL_PATH).save_pretrained(tmp_path / "chat")
    how = {"model": str(tmp_path / "chat"), "chat_settings": ChatSettings(complete="{}", answers="words")}
    made = module(**how, values=ValueSettings(steps=20), edits_per_update=None, solver=EMMET(ridge=0.01))
    before, after, tests = measured(tmp_path, made, Requests([asking(WORLD.subjects[0])]))
    assert made.chat and tests["subject_aliasing"]["passed"] == 1
    assert before["ripple_subject_aliasing_said"] == 0 < after["ripple_subject_aliasing_token_accuracy"] == 1


def test_facts_in_the_context_stand_before_the_tests_too(tmp_path):
    requests = [asking(subject) for subject in WORLD.subjects[:2]]
    made = InContext("tiny")
    _, after, tests = measured(tmp_path, made, Requests(requests))
    # The unedited model meets the conditions, as no fact stands before them there.
    assert tests["subject_aliasing"]["condition_unmet"] == 0 and tests["subject_aliasing"]["tests"] == 2
    assert after["ripple_subject_aliasing_said_n"] == 2
    kept = [entry for request in requests for entry in request.ripples[1].queries]
    assert all(made.tokenizer.informed(query.prompt) != query.prompt for query in kept)


@pytest.mark.parametrize(
    ("kind", "change"), [(EditEverything, editeverything), (FEVER, fever), (UltraEditBench, ultraeditbench)]
)
def test_records_without_subjects_are_refused_where_a_search_needs_them(kind, change, tmp_path):
    path = tmp_path / "records.json"
    path.write_text(json.dumps([change(record) for record in WORLD.records(2)]))
    with pytest.raises(EditError, match=r"2 edits .* have no subject, at whose last token a search finds values"):
        quiet_trainer(tmp_path).fit(module(), datamodule=kind(str(path)))


def test_a_prompt_without_room_is_refused_before_anything_is_edited(tmp_path):
    long = record(0) | {"Forgetfulness": [ripple_test("word " * 500, ["x"])]}
    path = tmp_path / "popular.json"
    path.write_text(json.dumps([long]))
    with pytest.raises(EditError, match=r"record 0: the prompt .* of a test has .* context"):
        quiet_trainer(tmp_path).fit(module(), datamodule=RippleEdits(str(path)))
