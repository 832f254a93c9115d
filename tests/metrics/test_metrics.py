"""Metrics against short independent references, alone and shared between processes."""

import doctest
import importlib
import math

import pytest
import torch
from torch import distributed

from lightning_edit.errors import EditError
from lightning_edit.keys.second_moment import SecondMoment
from lightning_edit.metrics import EditMetrics, evaluate, score_targets, token_scores
from lightning_edit.metrics.answers import preference
from lightning_edit.models.decoder import find_decoder
from tests.killing import CONTEXT
from tests.small_models import make_gpt2, make_llama, make_request, make_tokenizer

KINDS = ("efficacy", "paraphrase", "neighborhood", "attribute")
PAIRS = [
    ("The Eiffel Tower is located in the city of", "Rome"),
    ("Paris", "is"),
    ("The mother tongue of Danielle Darrieux is", "the old Berlin violin, which plays"),
    ("I think that you know where Anna's brother went to school in", "Paris"),
    ("The headquarters of Toyota are in ", "London"),
    ("You play the", "çà et là"),
]


def random_record(generator, prompts):
    wanted, other = torch.rand(2, prompts, dtype=torch.float64, generator=generator)
    return wanted.log(), other.log(), torch.rand(prompts, generator=generator) < 0.5


def random_records(count, seed=0):
    """(kind, wanted, other, correct) of records with different numbers of prompts."""
    generator = torch.Generator().manual_seed(seed)
    return [(kind, *random_record(generator, 1 + i % 3)) for i in range(count) for kind in KINDS]


def mean(values):
    return sum(values) / len(values)


def reference(records):
    """Score, magnitude and accuracy of (wanted, other, correct) records, in plain Python."""
    rows = [[(math.exp(w), math.exp(o), c) for w, o, c in zip(*map(list, record), strict=True)] for record in records]
    return {
        "score": mean([mean([float(w > o) for w, o, _ in row]) for row in rows]),
        "magnitude": mean([mean([w - o for w, o, _ in row]) for row in rows]),
        "accuracy": mean([mean([float(c) for _, _, c in row]) for row in rows]),
    }


def plain(figures):
    return {name: float(value) for name, value in figures.items()}


def means(figures):
    return {name: value for name, value in plain(figures).items() if not name.endswith(("_stderr", "_n"))}


def named(kind, *record):
    return {f"{kind}_{name}": value for name, value in preference(*record).items()}


def measured(records):
    """The figures of records of one kind, under their bare names."""
    metrics = EditMetrics()
    for record in records:
        metrics.update(named("attribute", *record))
    return {name.removeprefix("attribute_"): value for name, value in means(metrics.compute()).items()}


def test_preference_is_the_mean_over_records_of_the_means_over_prompts():
    records = [record[1:] for record in random_records(5)]
    assert measured(records) == pytest.approx(reference(records))


def test_a_record_counts_once_however_many_prompts_it_has():
    one = torch.tensor([-1.0]), torch.tensor([-2.0]), torch.tensor([True])
    nine = torch.full((9,), -2.0), torch.full((9,), -1.0), torch.zeros(9, dtype=torch.bool)
    figures = measured([one, nine])
    assert figures["score"] == figures["accuracy"] == 0.5
    assert figures["magnitude"] == pytest.approx(0, abs=1e-7)


def test_equal_probabilities_are_no_preference():
    equal = torch.tensor([-1.0]), torch.tensor([-1.0]), torch.tensor([True])
    assert preference(*equal) == {"score": 0, "magnitude": 0, "accuracy": 1}


def test_edit_metrics_keep_the_kinds_apart():
    records = random_records(6)
    metrics = EditMetrics()
    for record in records:
        metrics.update(named(*record))
    expected = {
        f"{kind}_{name}": value
        for kind in KINDS
        for name, value in reference([record[1:] for record in records if record[0] == kind]).items()
    }
    scores = [expected[f"{kind}_score"] for kind in KINDS[:3]]
    assert means(metrics.compute()) == pytest.approx(expected | {"S": 3 / sum(1 / score for score in scores)})


def test_s_is_zero_as_soon_as_one_score_is():
    metrics = EditMetrics()
    for kind, other in zip(KINDS[:3], (-2.0, -2.0, -0.5), strict=True):
        metrics.update(named(kind, torch.tensor([-1.0]), torch.tensor([other]), torch.tensor([True])))
    assert plain(metrics.compute())["S"] == 0


@pytest.mark.parametrize("missing", KINDS)
def test_a_kind_without_prompts_is_left_out(missing):
    metrics = EditMetrics()
    for record in random_records(3):
        if record[0] != missing:
            metrics.update(named(*record))
    found = means(metrics.compute())
    assert {name.rpartition("_")[0] for name in found if name != "S"} == set(KINDS) - {missing}
    assert ("S" in found) == (missing == "attribute")


def test_an_unknown_true_target_counts_for_accuracy_alone():
    known, other = [record[1:] for record in random_records(2)[:2]]
    unknown = (other[0], None, other[2])
    assert measured([unknown]) == pytest.approx({"accuracy": float(other[2].double().mean())})
    expected = reference([known]) | {"accuracy": reference([known, other])["accuracy"]}
    assert measured([unknown, known]) == pytest.approx(expected)


def test_a_model_that_answers_nan_prefers_nothing():
    broken = torch.full((2,), float("nan"))
    figures = measured([(broken, broken, torch.tensor([False, False]))])
    assert figures["score"] == 0
    assert math.isnan(figures["magnitude"])


def sharded(rank, folder):
    """One of two processes: feeds its share of the records and keeps what it computes together with the other."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    records = random_records(5)
    edits, moment = EditMetrics(), SecondMoment(3)
    for kind, *record in records[rank::2]:
        edits.update(named(kind, *record))
    moment.update(second_moment_keys()[:7] if rank == 0 else second_moment_keys()[7:])
    torch.save({"edits": edits.compute(), "moment": moment.compute()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def second_moment_keys():
    return torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_two_processes_agree_with_one_that_sees_all(tmp_path):
    processes = [CONTEXT.Process(target=sharded, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    edits, moment = EditMetrics(), SecondMoment(3)
    for kind, *record in random_records(5):
        edits.update(named(kind, *record))
    moment.update(second_moment_keys())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert plain(found["edits"]) == pytest.approx(plain(edits.compute()))
        assert torch.allclose(found["moment"], moment.compute())


def score_one(model, tokenizer, prompt, target):
    """Reference: one unpadded text, the answer's tokens counted from the end, the model's default positions."""
    start = len(tokenizer(prompt.rstrip(), add_special_tokens=True)["input_ids"])
    ids = torch.tensor([tokenizer(f"{prompt.rstrip()} {target}")["input_ids"]])
    with torch.no_grad():
        log_probs = model(input_ids=ids).logits[0].log_softmax(-1)[start - 1 : -1]
    chosen = log_probs.gather(1, ids[0, start:, None])[:, 0]
    return float(chosen.mean()), bool((log_probs.argmax(-1) == ids[0, start:]).all())


@pytest.mark.parametrize("make_model", [make_gpt2, make_llama])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"padding_side": "right"}, id="right"),
        pytest.param({"padding_side": "left"}, id="left"),
        pytest.param({"token_type_ids": True}, id="token-type-ids"),
        pytest.param({"bos": True}, id="bos"),
    ],
)
@pytest.mark.parametrize("max_tokens", [1, 40, 4096])
def test_batched_scores_equal_those_of_one_prompt_at_a_time(monkeypatch, make_model, settings, max_tokens):
    monkeypatch.setattr(token_scores, "MAX_TOKENS", max_tokens)
    model, tokenizer = make_model(), make_tokenizer(**settings)
    assert ("token_type_ids" in tokenizer("Paris")) == ("token_type_ids" in settings)
    scores = score_targets(find_decoder(model), tokenizer, PAIRS)
    expected = [score_one(model, tokenizer, prompt, target) for prompt, target in PAIRS]
    assert scores.log_probs.tolist() == pytest.approx([value for value, _ in expected], rel=1e-9)
    assert scores.correct.tolist() == [right for _, right in expected]


@pytest.mark.parametrize("tokens", [1, 4])
def test_an_answer_is_correct_only_if_all_its_tokens_are_the_argmax(tokens):
    model, tokenizer = make_gpt2(), make_tokenizer()
    prompt = "The capital of France is"
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    count = ids.shape[1]
    # What the model says by itself, where that is text that the tokenizer reads back as the same tokens.
    words = [i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).lstrip().isalpha()]
    marked = {i for i in words if tokenizer.convert_ids_to_tokens(i).startswith("Ġ") and len(tokenizer.decode([i])) > 3}
    with torch.no_grad():
        others = [i for i in range(model.config.vocab_size) if i not in marked]
        model.transformer.wte.weight[others] *= 0.01
        said = model.generate(input_ids=ids, max_new_tokens=tokens, do_sample=False, pad_token_id=1)[0]
    answer = tokenizer.decode(said[count:]).strip()
    assert tokenizer(f"{prompt} {answer}")["input_ids"] == said.tolist()
    wrong = answer.rsplit(" ", 1)[0] + " violin" if tokens > 1 else "violin"
    scores = score_targets(find_decoder(model), tokenizer, [(prompt, answer), (prompt, wrong)])
    assert scores.correct.tolist() == [True, False]


def test_nothing_to_score_is_an_empty_answer():
    scores = score_targets(find_decoder(make_gpt2()), make_tokenizer(), [])
    assert len(scores.log_probs) == len(scores.correct) == 0


def test_a_prompt_longer_than_the_context_is_refused():
    with pytest.raises(EditError, match=r"The prompt 'Paris Paris.* tokens but the model's context holds 64"):
        score_targets(find_decoder(make_gpt2()), make_tokenizer(), [("Paris " * 70, "Rome")])


def records():
    full = {
        "paraphrase_prompts": ("You visit the Eiffel Tower in", "The Eiffel Tower is in the old city of"),
        "neighborhood_prompts": ("The Louvre is located in the city of", "The Seine is in"),
        "attribute_prompts": ("The Colosseum is in",),
    }
    violin = {
        "subject": "Anna",
        "prompt": "{} plays the",
        "target_new": "violin",
        "paraphrase_prompts": ("Anna plays",),
    }
    return [make_request(target_true="Paris", **full), make_request(**violin)]


def test_evaluation_swaps_the_roles_for_neighbors_and_skips_unknown_answers():
    model, tokenizer = make_llama(), make_tokenizer()
    metrics = EditMetrics()
    evaluate(find_decoder(model), tokenizer, records(), metrics)

    def record(prompts, wanted, other):
        right = [score_one(model, tokenizer, prompt, wanted) for prompt in prompts]
        wrong = [score_one(model, tokenizer, prompt, other)[0] for prompt in prompts]
        return [value for value, _ in right], wrong, [hit for _, hit in right]

    first, second = records()
    expected = {
        "efficacy": record(["The Eiffel Tower is located in the city of"], "Rome", "Paris"),
        "paraphrase": record(first.paraphrase_prompts, "Rome", "Paris"),
        "neighborhood": record(first.neighborhood_prompts, "Paris", "Rome"),
        "attribute": record(first.attribute_prompts, "Rome", "Paris"),
    }
    found = plain(metrics.compute())
    for kind, figures in expected.items():
        for name, value in reference([figures]).items():
            if name != "accuracy":
                assert found[f"{kind}_{name}"] == pytest.approx(value)
    also = {"efficacy": "Anna plays the", "paraphrase": second.paraphrase_prompts[0]}
    for kind, prompt in also.items():
        hit = float(score_one(model, tokenizer, prompt, "violin")[1])
        assert found[f"{kind}_accuracy"] == mean([mean(expected[kind][2]), hit])


def test_evaluation_leaves_the_model_as_it_was():
    model = make_gpt2().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(find_decoder(model), make_tokenizer(), records(), EditMetrics())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "name",
    ["metrics.answers", "metrics.edit_metrics", "metrics.generated_text", "metrics.perplexity", "keys.second_moment"],
)
def test_examples_in_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(f"lightning_edit.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
