"""Further ways to ask a chat model: in plain text and under other system prompts, each as an evaluation of its own."""

import pytest

from lightning_edit.asking.chat import ChatSettings, ChatTokenizer, chat_format
from lightning_edit.asking.questions import as_question
from lightning_edit.commands.sweep import Sweep
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from lightning_edit.metrics import EditMetrics, EvaluationSettings, evaluate
from lightning_edit.metrics.descriptions import description
from lightning_edit.metrics.measurable import measurable
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.metrics.table import table
from lightning_edit.metrics.ways import WayMetrics, way_of, ways_of
from lightning_edit.models.decoder import find_decoder
from tests.asking.test_chat import CHATML, INSTRUCTION, in_chat
from tests.small_models import make_llama, make_request, make_tokenizer

SYSTEMS = ["Be brief.", "Say it in one word, and be kind."]


def edits():
    prompts = {"paraphrase_prompts": ("Eiffel Tower. Its city is",), "neighborhood_prompts": ("Paris has the",)}
    return [make_request(target_true=true, case_id=true, **prompts) for true in ("Paris", "London")]


def test_each_way_is_an_evaluation_of_its_own():
    chat, decoder = in_chat(CHATML), find_decoder(make_llama(max_position_embeddings=256))
    requests = [as_question(request) for request in edits()]
    ways = WayMetrics(ways_of(chat, EvaluationSettings(systems=SYSTEMS), ChatSettings()))
    ways.check(requests, 256)
    records = [{} for _ in requests]
    ways.measure(decoder, requests, records)
    figures, expected = ways.compute(), EditMetrics(sync_on_compute=False)
    plain = evaluate(decoder, chat.plain, edits(), expected, TEACHER_FORCED)
    for name, value in expected.compute().items():
        assert figures[f"plain_{name}"] == float(value)
    assert "plain_S" in figures and [record["plain"]["efficacy"] for record in records] == [
        record["efficacy"] for record in plain
    ]
    for number, system in enumerate(SYSTEMS, start=1):
        under, metrics = ChatTokenizer(chat.plain, chat_format(chat.plain, system)), EditMetrics(sync_on_compute=False)
        found = evaluate(decoder, under, requests, metrics, TEACHER_FORCED)
        assert [record[f"system_{number}"] for record in records] == [{"efficacy": r["efficacy"]} for r in found]
        assert figures[f"system_{number}_efficacy_magnitude"] == float(metrics.compute()["efficacy_magnitude"])
    asked = ways_of(chat, EvaluationSettings(systems=SYSTEMS), ChatSettings())
    named = measurable(requests, EvaluationSettings(), chat, asked)
    assert {name for name in named if way_of(name)[0]} == {
        name for name in figures if not name.endswith(("_stderr", "_n"))
    }
    magnitudes = {figures[f"{way}_efficacy_magnitude"] for way in ("plain", "system_1", "system_2")}
    assert len(magnitudes) == 3
    ways.reset()
    assert not ways.compute()


def test_ways_are_those_of_a_chat_and_fit_the_context():
    chat = in_chat(CHATML)
    assert ways_of(make_tokenizer(), EvaluationSettings(), ChatSettings()) == []
    assert ways_of(chat, EvaluationSettings(worlds=["chat"]), ChatSettings()) == []
    with pytest.raises(EditError, match="this run is in plain text"):
        ways_of(make_tokenizer(), EvaluationSettings(systems=SYSTEMS), ChatSettings())
    with pytest.raises(EditError, match="templates know no system turn"):
        ways_of(in_chat(INSTRUCTION), EvaluationSettings(systems=SYSTEMS), ChatSettings())
    for worlds in (["plain"], [], ["chat", "chat"]):
        with pytest.raises(EditError, match=r"`evaluation\.worlds` must name chat"):
            EvaluationSettings(worlds=worlds)
    long = WayMetrics(ways_of(chat, EvaluationSettings(systems=["Be kind. " * 20]), ChatSettings()))
    with pytest.raises(EditError, match=r"Under system prompt 1, the prompt .* context holds 60"):
        long.check([as_question(request) for request in edits()], 60)


def test_figures_of_other_ways_are_named_shown_and_described(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    names = ("efficacy_score", "S", "plain_efficacy_score", "plain_S", "system_2_efficacy_score")
    terminal().print(table({"before": dict.fromkeys(names, 0.25), "after": dict.fromkeys(names, 0.75)}, 3))
    shown = capsys.readouterr().out
    for row in ("efficacy ", "S ", "efficacy, plain text", "S, plain text", "efficacy, system prompt 2"):
        assert any(row in line and "25.0 -> 75.0" in line for line in shown.splitlines())
    assert way_of("system_2_efficacy_score") == ("system_2", "efficacy_score")
    assert description("edit/plain_S") == f"asked in plain text: {description('edit/S')}"
    assert description("edit/system_12_efficacy_score").startswith("asked under system prompt 12: share of edited")
    assert description("edit/plain_nothing") == ""
    sweep = Sweep({"model.layers": [[0]]}, metric="plain_S")
    chat, settings = in_chat(CHATML), EvaluationSettings(systems=SYSTEMS)
    ways = ways_of(chat, settings, ChatSettings())
    assert sweep.for_records(edits(), settings, chat, ways) == (sweep, None)
