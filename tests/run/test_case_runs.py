"""Whole runs on cases of several edits: what their tests count is the same in any parts and in several processes."""

import json

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.metrics.edit_metrics import has_failed
from lightning_edit.metrics.ripples.figures import RippleMeans, ripple_figures
from lightning_edit.tiny import World
from tests.killing import Command

WORLD = World.generate()
CASES = 4
# What no value brings about.
HARD = " ".join(f"{a}{b}q" for a in "xzw" for b in "kvj")


def rewrite(subject, relation, place):
    """An edit of a fact of the embedded world, to another answer."""
    fact = next(fact for fact in WORLD.facts if (fact.subject, fact.relation) == (subject, relation))
    prompt = WORLD.prompts(fact, held_out=False)[0].replace(subject, "{}")
    new = [answer for answer in WORLD.relation(relation).answers if answer != fact.answer][place]
    return {"subject": subject, "prompt": prompt, "target_new": {"str": new}, "target_true": {"str": fact.answer}}


def cases():
    """Cases of two edits, of which the first one of the first case fails.

    Each asks for its second one, which in the last case is the first one of the second case.
    """
    made = []
    for place in range(CASES):
        edits = [rewrite(WORLD.subjects[2 * place + i], "craft", place) for i in range(2)]
        made.append(edits if place < CASES - 1 else [edits[0], made[1][0]])
    made[0][0]["target_new"]["str"] = HARD
    return [
        {
            "case_id": place,
            "requested_rewrite": edits,
            "questions": [edits[1]["prompt"].replace("{}", edits[1]["subject"])],
            "new_answer": edits[1]["target_new"]["str"],
        }
        for place, edits in enumerate(made)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cases")
    (made / "text.txt").write_text("\n".join(WORLD.sentences()))
    (made / "cases.json").write_text(json.dumps(cases()))
    return made


def words(folder, name, size):
    settings = {
        "data.path": folder / "cases.json",
        "data.preservation": "TextFile",
        "data.preservation.path": folder / "text.txt",
        "data.eval_batch_size": size,
        "model.dtype": "float64",
        "model.edits_per_update": 100,
        "model.values.steps": 20,
        "model.solver.ridge": 0.01,
        "model.second_moment.tokens": 2000,
        "model.second_moment.cache_dir": folder / "cache",
        "model.evaluation.ripple_tokens": 8,
        "collateral.prompts": 0,
        "trainer.logger.save_dir": folder / name,
    }
    return ["fit", "--data=MQuAKE", *(f"--{name}={value}" for name, value in settings.items())]


def found(run):
    """What became of each test with the edits of its case, and the figures, which records give again."""
    metrics = json.loads((run / "metrics.json").read_text())
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    after = {(one["subject"], one["prompt"]): one for one in records if one["stage"] == "after"}
    counted, means = {}, RippleMeans()
    for record in (record for record in after.values() if "ripples" in record):
        means.update(ripple_figures(record["ripples"]))
        for test in record["ripples"]:
            counted[test["queries"][0]["prompt"]] = test["counted"]
    assert means.compute() == {name: metrics["after"][name] for name in means.compute()}
    assert metrics["ripples"]["multi_hop"]["edit_failed"] == list(counted.values()).count("edit_failed")
    failed = [
        [has_failed(after[edit["subject"], edit["prompt"]]) for edit in case["requested_rewrite"]] for case in cases()
    ]
    return [counted[case["questions"][0]] for case in cases()], failed, metrics["ripples"]


@pytest.fixture(scope="module")
def of_one(folder):
    cli.main(words(folder, "one", 256))
    return found(folder / "one" / "version_0")


def test_a_test_counts_only_if_all_edits_of_its_case_succeeded(of_one):
    counted, failed, _ = of_one
    assert [one == "edit_failed" for one in counted] == [any(edits) for edits in failed]
    # Among them is a case whose tests would count by their own edit, and one whose tests do.
    assert [True, False] in failed and [False, False] in failed


def test_one_record_at_a_time_gives_the_same(folder, of_one):
    cli.main(words(folder, "single", 1))
    assert found(folder / "single" / "version_0") == of_one


@pytest.mark.slow
def test_two_processes_give_the_same(folder, of_one):
    (folder / "two").mkdir()
    command = Command(words(folder, "two", 3), folder / "two.log", 2)
    assert command.wait() == [0, 0], command.output
    assert found(folder / "two" / "version_0") == of_one
