"""C from questions: counted behind their common beginning, mixed with C of text, about nothing that is edited."""

import pytest
import torch

from lightning_edit import probes
from lightning_edit.asking.chat import ChatTokenizer, chat_format
from lightning_edit.asking.questions import as_question
from lightning_edit.asking.tokenization import encode_subject
from lightning_edit.errors import EditError
from lightning_edit.keys.layer_stats import SecondMomentSettings, prepare_second_moments
from lightning_edit.keys.question_moment import common_prefix, mixed_with_questions, question_moments
from lightning_edit.keys.questions import read_subjects, run_questions
from lightning_edit.models.decoder import find_decoder
from lightning_edit.solvers import EMMET
from lightning_edit.storage.cache import Cache
from tests.small_models import make_llama, make_request, make_tokenizer

CHATML = (
    "<s>system\nBe kind.</s>\n{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def chat_tokenizer():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    return ChatTokenizer(tokenizer, chat_format(tokenizer))


def questions(tokenizer):
    pairs = [("Where is {}?", "Anna"), ("Who is {}, the old king?", "Bo of London"), ("Tell me of {}", "Cy")]
    return [encode_subject(tokenizer, *pair) for pair in pairs]


def keys_of(model, ids, layer):
    kept = []
    handle = model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(lambda _, args: kept.append(args[0][0]))
    with torch.no_grad():
        model(torch.tensor([ids]))
    handle.remove()
    return kept[0]


def plain_moments(model, group, layer):
    begin = common_prefix([text.ids for text in group])
    keys = [keys_of(model, text.ids, layer) for text in group]
    tokens = torch.cat([each[begin:] for each in keys])
    lasts = torch.stack([each[text.subject_last] for each, text in zip(keys, group, strict=True)])
    return tokens.T @ tokens / len(tokens), lasts.T @ lasts / len(lasts)


def test_both_moments_are_those_of_a_plain_loop():
    model, group = make_llama(), questions(chat_tokenizer())
    found = question_moments(find_decoder(model), [q.ids for q in group], [q.subject_last for q in group], [0, 1])
    for layer in (0, 1):
        for moment, expected in zip(found[layer], plain_moments(model, group, layer), strict=True):
            torch.testing.assert_close(moment, expected, rtol=1e-9, atol=1e-12)


def test_the_mixture_has_the_shares_asked_for(tmp_path):
    model, tokenizer = make_llama(), chat_tokenizer()
    decoder, groups = find_decoder(model), [questions(tokenizer), questions(tokenizer.plain)]
    text = torch.eye(decoder.weight(1).shape[1], dtype=torch.float64)
    expected = 0.4 * text
    for group in groups:
        tokens, subjects = plain_moments(model, group, 1)
        expected = expected + 0.3 * (0.75 * tokens + 0.25 * subjects)
    cache = Cache(tmp_path)
    for _ in range(2):
        mixed = mixed_with_questions(decoder, {1: text}, groups, 0.6, 0.25, cache)
        torch.testing.assert_close(mixed[1], expected, rtol=1e-9, atol=1e-12)
    assert len(list(cache.entries())) == 2
    assert mixed_with_questions(decoder, {1: text}, groups, 0.0, 0.25)[1] is text
    # Other questions are not those in the cache.
    others = [group[1:] for group in groups]
    kept, anew = (mixed_with_questions(decoder, {1: text}, others, 0.6, 0.25, one)[1] for one in (cache, None))
    assert torch.equal(kept, anew) and not torch.equal(kept, mixed[1])


def test_text_alone_is_what_a_plain_run_takes():
    assert SecondMomentSettings().share_of_questions(chat=False) == 0
    assert SecondMomentSettings().share_of_questions(chat=True) == 0.7
    assert SecondMomentSettings(question_share=0.2).share_of_questions(chat=False) == 0.2
    assert SecondMomentSettings(source="identity").share_of_questions(chat=True) == 0


def test_a_run_prepares_the_mixture():
    tokenizer, model = chat_tokenizer(), make_llama()
    settings = SecondMomentSettings(tokens=60, length=20, cache_dir=None, question_share=0.5)
    decoder, solver, group = find_decoder(model), EMMET(1.0, ridge=1.0), questions(tokenizer)
    texts = ["Anna lives in London and has an old house there."] * 20
    text, mixed = (
        prepare_second_moments(decoder, tokenizer, texts, [1], settings, solver, 0, questions=asked)[1]
        for asked in ([], [group])
    )
    tokens, subjects = plain_moments(model, group, 1)
    torch.testing.assert_close(mixed, 0.5 * text + 0.25 * (tokens + subjects), rtol=1e-9, atol=1e-12)


@pytest.fixture
def edits():
    edit = make_request(subject="Germany", prompt="{} has its capital in", question="What is the capital of {}?")
    return [as_question(edit)]


def test_questions_are_about_others_in_the_edits_own_wordings_and_in_shipped_ones(edits):
    tokenizer = chat_tokenizer()
    chat, plain = run_questions(edits, tokenizer, ["chat", "plain"], 200, 0, read_subjects(None))
    shown = [[tokenizer.plain.decode(list(question.ids)) for question in group] for group in (chat, plain)]
    assert len(chat) == len(plain) == 200
    assert not any("Germany" in text for group in shown for text in group)
    assert sum("user\nWhat is the capital of" in text for text in shown[0]) >= 90
    assert sum(" has its capital in" in text for text in shown[1]) >= 90
    assert sum(question.subject_last < 0 for question in chat) == 20
    judging = {prompt.prompt for prompt in probes.judging_prompts()}
    assert not any(text in judging for text in shown[1])


def test_a_name_that_is_part_of_other_words_leaves_their_questions():
    tokenizer, listed = chat_tokenizer(), ["Tirana", "Iran", "Chicago", "Iran Air"]
    edit = as_question(make_request(subject="Iran", prompt="{} lies in", question="Where is {}?"))
    (group,) = run_questions([edit], tokenizer, ["chat"], 60, 0, listed)
    shown = [tokenizer.plain.decode(list(question.ids)) for question in group]
    assert {name for name in listed if any(f"Where is {name}?" in text for text in shown)} == {"Tirana", "Chicago"}


def test_questions_are_the_same_for_the_same_seed(edits):
    first, second, other = (
        run_questions(edits, chat_tokenizer(), ["chat"], 50, seed, read_subjects(None)) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_the_users_own_subjects_are_asked_about(tmp_path, edits):
    file = tmp_path / "subjects.txt"
    file.write_text("Freedonia\n\nSylvania\nGermany\n", encoding="utf-8")
    tokenizer = chat_tokenizer()
    (group,) = run_questions(edits, tokenizer, ["chat"], 40, 0, read_subjects(str(file)))
    own = [text for q in group if "capital of" in (text := tokenizer.plain.decode(list(q.ids)))]
    assert {name for name in ("Freedonia", "Sylvania", "Germany") if any(name in text for text in own)} == {
        "Freedonia",
        "Sylvania",
    }
    file.write_text("\n")
    with pytest.raises(EditError, match="names no subject"):
        read_subjects(str(file))
    with pytest.raises(EditError, match="all 1 subjects are edited"):
        run_questions(edits, tokenizer, ["chat"], 40, 0, ["germany"])


def test_a_common_beginning_leaves_each_row_a_token():
    assert common_prefix([[1, 2, 3], [1, 2], [1, 2, 4]]) == 1
    assert common_prefix([[1, 2, 3]]) == 2
    assert common_prefix([[5], [6]]) == 0
