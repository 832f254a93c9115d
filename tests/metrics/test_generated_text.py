"""Metrics of texts against short independent references."""

import math
import unicodedata

import nltk
import numpy
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from lightning_edit.errors import EditError
from lightning_edit.metrics.generated_text import (
    generated_match,
    generation_entropy,
    reference_score,
    rouge_l,
    words_of,
)
from lightning_edit.metrics.perplexity import cut_windows, essence_nll, perplexity
from lightning_edit.metrics.token_scores import shared_rows
from lightning_edit.models.decoder import find_decoder
from tests.small_models import make_gpt2, make_llama, make_tokenizer

TEXTS = (
    "Anna lives in Rome. She doesn't play the violin in Rome. She lives in Rome.",
    "You play the violin, which the old musician plays, which the old musician plays as well!",
)
RUNNING = "The Eiffel Tower is located in the city of Paris, and Paris is the capital of France. " * 3


def entropy_reference(text):
    """The published code's, its frequencies from NLTK."""
    entropies = []
    for n in (2, 3):
        counts = numpy.array(list(nltk.FreqDist(nltk.ngrams(words_of(text), n)).values()))
        shares = counts / counts.sum()
        entropies.append(numpy.sum(-shares * numpy.log(shares) / numpy.log(2)))
    return float(numpy.mean(numpy.array(entropies) * numpy.array([2 / 3, 4 / 3])))


def test_entropy_is_that_of_the_published_code():
    assert generation_entropy(TEXTS) == pytest.approx(sum(map(entropy_reference, TEXTS)) / 2)


def lcs(a, b):
    """The length of the longest common subsequence, by its recursion."""
    if not a or not b:
        return 0
    return 1 + lcs(a[1:], b[1:]) if a[0] == b[0] else max(lcs(a[1:], b), lcs(a, b[1:]))


def test_rouge_l_is_the_share_of_words_in_their_order():
    said, answer = "The old tower, it is said, stands in Rome.", "the tower (old) stood in Rome"
    words = [
        text.lower().replace(",", "").replace(".", "").replace("(", "").replace(")", "").split()
        for text in (said, answer)
    ]
    assert rouge_l(said, answer) == pytest.approx(lcs(*words) / len(words[1]))
    assert rouge_l(answer, answer) == 1 and rouge_l("", answer) == 0
    assert rouge_l("\u7f57\u9a6c\u5728\u610f\u5927\u5229", "\u7f57\u9a6c\u610f\u5927") == 1
    assert rouge_l("Z\u00fcrich caf\u00e9", "caf\u00e9 Z\u00fcrich") == 0.5


def test_vowel_signs_tell_words_apart_and_either_way_of_writing_them_will_do():
    right, other = "राम की किताब", "रोम का कातिब"
    assert rouge_l(right, right) == 1 and rouge_l(other, right) == 0
    assert reference_score([right], [right]) == pytest.approx(1) and reference_score([other], [right]) == 0
    text = "Caf\u00e9 Z\u00fcrich"
    assert rouge_l(unicodedata.normalize("NFD", text), text) == rouge_l(text, unicodedata.normalize("NFD", text)) == 1
    assert rouge_l("a snake_case", "snake case") == 1


def test_entropy_by_hand():
    # Four different bigrams and three different trigrams.
    assert generation_entropy(["one two three four five"]) == pytest.approx((2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2)


@pytest.mark.parametrize("text", ["", "one", "the the the the the"])
def test_a_text_that_says_nothing_new_has_no_entropy(text):
    assert generation_entropy([text]) == 0


def test_words_are_split_as_by_sentences():
    text = 'She doesn\'t know Rome. He said "yes." Then (why?) nothing!'
    expected = "She does n't know Rome . He said `` yes . '' Then ( why ? ) nothing !"
    assert words_of(text) == expected.split()


def test_where_no_spaces_are_written_each_character_is_a_word():
    assert words_of("我是Anna。") == ["我", "是", "Anna", "。"]
    assert generation_entropy(["巴黎是法国的首都。"]) > 2 > generation_entropy(["巴巴巴巴巴巴巴巴巴"]) == 0
    assert reference_score(["巴黎是法国的首都"], ["巴黎是法国首都"]) > 0.8


def cosine_reference(a, b):
    """TF-IDF by hand: idf = ln((1 + documents) / (1 + documents with the word)) + 1."""
    counts = CountVectorizer().fit_transform([a, b]).toarray()
    one, two = counts * (numpy.log(3 / (1 + (counts > 0).sum(0))) + 1)
    return float(one @ two / numpy.linalg.norm(one) / numpy.linalg.norm(two))


def test_reference_score_is_the_cosine_of_tfidf_vectors():
    expected = cosine_reference(" ".join(TEXTS), "The old violin. Rome plays.")
    assert reference_score(TEXTS, ["The old violin.", "Rome plays."]) == pytest.approx(expected)


def test_reference_score_ends():
    assert reference_score(["Anna plays."], ["Anna plays."]) == pytest.approx(1)
    assert reference_score(["Anna plays."], ["nothing here"]) == 0
    assert reference_score(["! ?"], ["Anna"]) == reference_score(["! ?"], ["."]) == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" Rome, the capital", True),
        (" ROME", False),
        (" Romeo", False),
        (" in New\nYork.", False),
        (" Jerome Rome", True),
        ("", False),
    ],
)
def test_a_match_is_a_word_of_the_text(text, found):
    assert generated_match(text, "Rome") == found


def test_a_match_may_have_several_words_and_signs():
    assert generated_match(" born in New\nYork City", "New York")
    assert generated_match(" the U.S. (1776)", "U.S.")
    assert not generated_match(" New Yorker", "New York")


def nll_reference(model, ids):
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return -log_probs.gather(1, torch.tensor(ids)[1:, None])[:, 0]


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
@pytest.mark.parametrize("bos", [False, True])
def test_perplexity_counts_the_predicted_tokens_of_each_window(make_model, bos):
    model, tokenizer, window = make_model(), make_tokenizer(bos=bos), 11
    lead = [tokenizer.bos_token_id] * bos
    nll = []
    for text in (RUNNING, "Anna's brother went to school"):
        ids, size = tokenizer(text, add_special_tokens=False)["input_ids"], window - bos
        nll += [nll_reference(model, lead + ids[i : i + size]) for i in range(0, len(ids), size)]
    found = perplexity(find_decoder(model), tokenizer, [RUNNING, "Anna's brother went to school"], window)
    assert found == pytest.approx(float(torch.cat(nll).mean().exp()), rel=1e-9)


def test_perplexity_with_a_stride_predicts_each_token_once_with_more_context():
    model, tokenizer = make_llama(), make_tokenizer()
    ids = tokenizer(RUNNING)["input_ids"]
    nll = [nll_reference(model, ids[max(0, _begin(i)) : i + 1])[-1] for i in range(1, len(ids))]
    found = perplexity(find_decoder(model), tokenizer, [RUNNING], window=12, stride=4)
    assert found == pytest.approx(float(torch.stack(nll).mean().exp()), rel=1e-9)


def _begin(token):
    """Where the first of the windows 0-11, 4-15, 8-19, ... that holds a token begins."""
    return 0 if token < 12 else 4 * ((token - 12) // 4 + 1)


@pytest.mark.parametrize("length", [1, 9, 10, 11, 40])
@pytest.mark.parametrize("stride", [None, 1, 3, 10])
def test_windows_predict_every_token_but_those_with_nothing_before_them(length, stride):
    cut = cut_windows(list(range(length)), [], 10, stride)
    predicted = [token for ids, start in cut for token in ids[start:]]
    first = set(range(0, length, 10)) if stride in (None, 10) else {0}
    assert predicted == [token for token in range(length) if token not in first]
    with_lead = cut_windows(list(range(length)), [-1], 11, stride)
    assert [token for ids, start in with_lead for token in ids[start:]] == list(range(length))
    assert all(len(ids) <= 11 and ids[0] == -1 for ids, _ in with_lead)


@pytest.mark.parametrize(
    ("settings", "message"), [({"window": 1}, "window"), ({"stride": 0}, "stride"), ({"stride": 70}, "stride")]
)
def test_windows_that_cannot_be_are_refused(settings, message):
    with pytest.raises(EditError, match=message):
        perplexity(find_decoder(make_gpt2()), make_tokenizer(), [RUNNING], **settings)


def test_a_text_without_a_token_to_predict_is_refused():
    with pytest.raises(EditError, match="no token to predict"):
        perplexity(find_decoder(make_gpt2()), make_tokenizer(), ["a"])


@pytest.mark.parametrize("bos", [False, True])
def test_essence_texts_are_joined_cut_and_predicted_but_for_the_first_token(bos):
    model, tokenizer = make_gpt2(), make_tokenizer(bos=bos)
    texts = [["Anna lives in Rome.", "She plays the violin."], ["Paris is old"]]
    found = essence_nll(find_decoder(model), tokenizer, texts, length=9)
    for nll, some in zip(found, texts, strict=True):
        expected = nll_reference(model, tokenizer(" ".join(some))["input_ids"][:9])
        assert nll.tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_rows_that_begin_another_are_run_with_it():
    rows = [[1, 2], [1, 2, 3], [2], [1, 2], [1, 3], []]
    kept, host = shared_rows(rows)
    assert sorted(kept) == [(1, 2, 3), (1, 3), (2,)]
    assert all(list(kept[at][: len(row)]) == row for row, at in zip(rows, host, strict=True))
