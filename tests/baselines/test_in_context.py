"""The baseline that edits nothing: prompts with facts before them."""

import pytest
import torch
from transformers import AutoTokenizer

from lightning_edit import EditRequest, InContext
from lightning_edit.asking.chat import ChatSettings, ChatTokenizer, in_plain_text, settle_chat
from lightning_edit.asking.tokenization import encode, encode_prompt, encode_target
from lightning_edit.baselines.facts import Facts, sentence
from lightning_edit.baselines.retrieval import Nearest, Own, States, TfIdf
from lightning_edit.collateral.advice import RunFigures, advice
from lightning_edit.errors import EditError
from lightning_edit.loading.pretrained import load_model, load_tokenizer
from lightning_edit.models.decoder import find_decoder
from lightning_edit.tiny import World
from tests.docs import shell

REQUESTS = [
    EditRequest(
        "The Eiffel Tower",
        "{} stands in",
        "Rome",
        "Paris",
        paraphrase_prompts=("Where is the tower of Gustave Eiffel? In",),
        neighborhood_prompts=("The Louvre stands in",),
    ),
    EditRequest("Anna Karenina", "{} was written by", "Jane Austen", "Leo Tolstoy"),
    EditRequest("Mount Etna", "{} lies on the island of", "Crete", "Sicily"),
]


def facts(retriever, requests=REQUESTS, **settings):
    made = Facts(retriever, "Fact: {}\n", **settings)
    made.known = requests
    return made


def test_an_edit_becomes_a_sentence():
    assert sentence(REQUESTS[0]) == "The Eiffel Tower stands in Rome."


def test_the_own_fact_stands_before_all_prompts_of_its_record():
    informed = facts(Own())
    for prompt in (*REQUESTS[0].paraphrase_prompts, *REQUESTS[0].neighborhood_prompts, "The Eiffel Tower stands in"):
        assert informed(prompt) == f"Fact: The Eiffel Tower stands in Rome.\n{prompt}"
    assert informed("Who wrote Anna Karenina?").startswith("Fact: Anna Karenina was written by Jane Austen.\n")
    assert informed("Two and two are") == "Two and two are"


def test_a_subject_is_found_in_whole_words_and_a_record_without_one_in_its_own_prompts_alone():
    informed = facts(Own(), (EditRequest("", "who wrote Hamlet?", "Bacon"), EditRequest("Ann", "{} lives in", "Rome")))
    assert informed("who wrote Hamlet?").startswith("Fact: who wrote Hamlet? Bacon.")
    ivory = facts(Own(), (EditRequest("C\u00f4te d'Ivoire", "{} is in", "Asia"),))
    assert "Asia" in ivory("Where is Co\u0302te d\u2019Ivoire?")
    for prompt in ("What is 2 + 2?", "Annual income is"):
        assert informed(prompt) == prompt
    assert "Rome" in informed("Where is Ann?")


def test_facts_that_are_not_known_yet_or_any_more_stand_nowhere():
    informed = facts(Own(), requests=())
    assert informed("Mount Etna lies on the island of") == "Mount Etna lies on the island of"
    informed.known = REQUESTS
    assert "Crete" in informed("Mount Etna lies on the island of")
    informed.known = REQUESTS[:2]
    assert "Crete" not in informed("Mount Etna lies on the island of")


def test_the_nearest_facts_in_words_are_found_the_nearest_last():
    informed = facts(Nearest(TfIdf(), 2))
    found = informed("Who was Anna Karenina written by, and on what island?")
    assert found.index("Crete") < found.index("Jane Austen")
    assert "Rome" not in found
    hindi = [EditRequest(name, "{} का घर", city) for name, city in (("राम", "दिल्ली"), ("रोमा", "पटना"), ("रीमा", "पुणे"))]
    assert "पटना" in facts(Nearest(TfIdf(), 1), hindi)("रोमा कहाँ है?")
    # No word in common, so no fact.
    assert informed("2 + 2 =") == "2 + 2 ="
    assert "Rome" in facts(Nearest(TfIdf(), 1), (EditRequest("日本", "{}的首都是", "Rome"),))("日本的首都在哪里？")
    assert "=" in facts(Nearest(TfIdf(), 1), (EditRequest("x", "{} =", "y"),))("x + 1")
    with pytest.raises(EditError, match="no fact has any: set `facts` to states"):
        facts(Nearest(TfIdf(), 1), (EditRequest("?", "{} =", "!"),))("x + 1")
    assert facts(Nearest(TfIdf(), 3, threshold=0.99))("Who wrote Anna Karenina?") == "Who wrote Anna Karenina?"


def test_the_nearest_facts_in_states_are_those_of_the_mean_state(tiny_tokenizer):
    model = load_model("tiny").eval()
    decoder, records = find_decoder(model), World.generate().records(12, seed=0)
    requests = [EditRequest(r["subject"], r["prompt"], r["target_new"]) for r in records]
    known = [sentence(request) for request in requests]
    nearest = Nearest(States(decoder, tiny_tokenizer), 3, threshold=-1)
    nearest.learn(requests, known)
    layer = len(decoder.blocks) // 2

    def state(text):
        ids = torch.tensor([encode(tiny_tokenizer, text)[0]])
        with torch.no_grad():
            # Entry 0 is what enters the first block.
            return model(ids, output_hidden_states=True).hidden_states[layer + 1][0, 1:].double().mean(0)

    states = torch.stack([state(text) for text in known])
    center = states.mean(0)
    unit = torch.nn.functional.normalize(states - center, dim=1)
    assert torch.allclose(torch.tensor(States(decoder, tiny_tokenizer).fit(known)), unit, rtol=0, atol=1e-6)
    prompt = requests[5].rewrite_prompt
    cosines = [torch.cosine_similarity(state(text) - center, state(prompt) - center, dim=0) for text in known]
    assert nearest(prompt) == torch.stack(cosines).argsort(descending=True)[:3].flip(0).tolist()
    assert nearest(prompt)[-1] == 5
    # A text of one token has nothing but that.
    assert len(nearest("a")) == 3


def test_demonstrations_are_of_other_facts():
    found = facts(Own(), demonstrations=3)("Mount Etna lies on the island of")
    shown, _, asked = found.rpartition("\n\n")
    assert asked == "Fact: Mount Etna lies on the island of Crete.\nMount Etna lies on the island of"
    assert shown.split("\n\n") == [
        "Fact: The Eiffel Tower stands in Rome.\nThe Eiffel Tower stands in Rome",
        "Fact: Anna Karenina was written by Jane Austen.\nAnna Karenina was written by Jane Austen",
        "Fact: The Eiffel Tower stands in Rome.\nThe Louvre stands in Paris",
    ]


def test_demonstrations_keep_the_separator_of_their_record():
    asked = EditRequest("Q1", "{}?", "Rome", separator="\n")
    made = facts(Own(), [asked, REQUESTS[1]], demonstrations=1)
    assert made("Anna Karenina was written by").startswith("Fact: Q1?\nRome.\nQ1?\nRome\n\n")


def test_facts_stand_inside_the_user_turn(tiny_tokenizer):
    plain = AutoTokenizer.from_pretrained(tiny_tokenizer.name_or_path)
    plain.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}<assistant>"
    chat = settle_chat(plain, True, ChatSettings())
    tokenizer = ChatTokenizer(plain, chat.chat, facts(Own()))
    expected = encode(plain, "<user>Fact: Mount Etna lies on the island of Crete.\nWhere is Mount Etna?</><assistant>")
    assert encode_prompt(tokenizer, "Where is Mount Etna?") == expected[0]
    text = "Fact: Mount Etna lies on the island of Crete.\nMount Etna lies on the island of"
    assert encode_prompt(in_plain_text(tokenizer), "Mount Etna lies on the island of") == encode(plain, text)[0]
    ids, start = encode_target(in_plain_text(tokenizer), "Mount Etna lies on the island of", "Crete")
    assert plain.decode(ids) == f"{text} Crete"
    assert plain.decode(ids[start:]).strip() == "Crete"


def test_a_run_tells_the_model_its_facts_and_leaves_it_as_it_was(tmp_path, capsys):
    arguments = ["fit", "--config", "configs/solvers/retrieval.yaml", "--data.edits", "6"]
    assert shell.run([*arguments, "--trainer.logger.save_dir", str(tmp_path), "--collateral.prompts", "12"]) == 0
    (run,) = tmp_path.glob("*/metrics.json")
    assert not (run.parent / "model").exists()
    # A model that was trained on sentences alone reads the fact; what it makes of it is its own affair.
    assert '"after"' in run.read_text()


def test_the_context_is_too_small_for_the_facts(tmp_path, capsys):
    arguments = ["fit", "--config", "configs/solvers/retrieval.yaml", "--data.edits", "40"]
    preface = "Here is one more of many facts. " * 40 + "{}"
    assert shell.run([*arguments, "--model.preface", preface, "--trainer.logger.save_dir", str(tmp_path)]) == 2
    assert "with its facts has" in " ".join(capsys.readouterr().err.split())


def test_facts_that_do_not_fit_are_left_out_the_farthest_first():
    near = Facts(Nearest(TfIdf(), 3), "{}\n", fits=lambda text: len(text) <= 150)
    far = Facts(Nearest(TfIdf(), 3), "{}\n")
    near.known = far.known = REQUESTS
    prompt = "On the island of Mount Etna the Eiffel Tower stands in what Anna Karenina"
    assert far(prompt).endswith(near(prompt))
    assert 1 <= near(prompt).count("\n") < far(prompt).count("\n")
    assert (near.shortened, far.shortened) == ({prompt}, set())


def test_a_run_says_how_many_prompts_get_fewer_facts(tmp_path, caplog):
    arguments = ["fit", "--config", "configs/solvers/retrieval.yaml", "--data.edits", "40", "--model.nearest", "30"]
    assert shell.run([*arguments, "--trainer.logger.save_dir", str(tmp_path), "--collateral.prompts", "12"]) == 0
    assert "prompts get fewer facts than `nearest`, as the model's context has 128 tokens." in caplog.text


def test_a_run_says_how_many_edits_find_no_fact(tmp_path, caplog):
    arguments = ["fit", "--config", "configs/solvers/retrieval.yaml", "--data.edits", "4", "--collateral.prompts", "0"]
    for threshold in (0.0, 0.99):
        folder = tmp_path / str(threshold)
        words = ["--model.threshold", str(threshold), "--trainer.logger.save_dir", str(folder)]
        assert shell.run([*arguments, *words]) == 0
        told = "facts: the own prompt of 4 of 4 edits finds none"
        assert (told in caplog.text and "lower `model.threshold`" in caplog.text) == (threshold > 0)


def test_a_threshold_that_no_cosine_reaches_is_refused():
    with pytest.raises(EditError, match=r"`model.threshold` must be a number of 0 or more and below 1, got 1.5"):
        InContext("tiny", facts="tfidf", threshold=1.5)


def test_advice_speaks_of_what_such_a_run_can_change():
    (line,) = advice(RunFigures(edits=4, failed=4, kind="told"))
    assert "demonstrations" in line


@pytest.mark.parametrize("preface", ["Fact:", "{} {}"])
def test_a_preface_has_one_place_for_the_fact(preface, tmp_path, capsys):
    arguments = ["fit", "--config", "configs/solvers/in_context.yaml", "--model.preface", preface]
    assert shell.run([*arguments, "--trainer.logger.save_dir", str(tmp_path)]) == 2
    assert "`preface` must hold exactly one {}" in " ".join(capsys.readouterr().err.split())


def test_the_tokenizer_of_a_run_is_the_models(tiny_tokenizer):
    assert ChatTokenizer(load_tokenizer("tiny"), None, facts(Own()))("a text") == tiny_tokenizer("a text")
