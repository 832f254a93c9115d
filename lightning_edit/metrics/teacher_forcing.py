"""How likely a model finds given answers: teacher-forced, batched, right under any padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.tokenization import check_lengths, encode_target
from lightning_edit.progress import Report, silent


@dataclass(frozen=True)
class TargetScores:
    """What a model thinks of m (prompt, answer) pairs.

    Args:
        log_probs: ``(m,)`` length-normalized log-probability, -mean NLL over the answer's tokens, in nats.
        correct: ``(m,)`` whether every token of the answer is the argmax.
        tokens: ``(m,)`` number of the answer's tokens.
        tokens_correct: ``(m,)`` how many of them are the argmax.
        predicted: For each pair the argmax in the place of each of the answer's tokens.
    """

    log_probs: Tensor
    correct: Tensor
    tokens: Tensor
    tokens_correct: Tensor
    predicted: tuple[tuple[int, ...], ...]


def score_targets(
    decoder: Decoder,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    report: Report = silent,
    stage: str = "score answers (tokens)",
) -> TargetScores:
    """Scores answers after prompts, P(o | prompt) = exp(-mean NLL over o's tokens) (ROME, section 3.3).

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        pairs: Complete prompts and their answers (without leading space).
        report: Told how many tokens the model has read.
        stage: What the report calls it.

    Returns:
        The scores in the order of the pairs, on the CPU.

    Raises:
        EditError: If a text does not fit the model's context.
    """
    encoded = [encode_target(tokenizer, prompt, target) for prompt, target in pairs]
    check_lengths(
        [len(ids) - 1 for ids, _ in encoded],
        [f"The prompt {prompt[:80]!r} ..." for prompt, _ in pairs],
        decoder.context,
    )
    scores = score_tokens(decoder, [ids for ids, _ in encoded], [start for _, start in encoded], report, stage)
    tokens, hits = scores.counts, scores.sum(scores.hits).long()
    predicted = tuple(tuple(part.tolist()) for part in scores.predicted.split(tokens.tolist()))
    return TargetScores(scores.sum(scores.log_probs) / tokens, hits == tokens, tokens, hits, predicted)
