"""How likely a model finds given answers: teacher-forced, batched, right under any padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.architectures import Decoder
from lightning_edit.batches import by_length, pad
from lightning_edit.hooks import change_input, frozen
from lightning_edit.prompts import check_lengths, encode_target

MAX_TOKENS = 4096


@dataclass(frozen=True)
class TargetScores:
    """What a model thinks of m (prompt, answer) pairs.

    Args:
        log_probs: ``(m,)`` length-normalized log-probability, -mean NLL over the answer's tokens, in nats.
        correct: ``(m,)`` whether every token of the answer is the argmax.
    """

    log_probs: Tensor
    correct: Tensor


@torch.no_grad()
def score_targets(decoder: Decoder, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> TargetScores:
    """Scores answers after prompts, P(o | prompt) = exp(-mean NLL over o's tokens) (ROME, section 3.3).

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        pairs: Complete prompts and their answers (without leading space).

    Returns:
        The scores in the order of the pairs, on the CPU.

    Raises:
        EditError: If a text does not fit the model's context.
    """
    encoded = [encode_target(tokenizer, prompt, target) for prompt, target in pairs]
    # The last token of the answer is predicted and never read.
    rows = [ids[:-1] for ids, _ in encoded]
    check_lengths(
        [len(row) for row in rows], [f"The prompt {prompt[:80]!r} ..." for prompt, _ in pairs], decoder.context
    )
    log_probs = torch.zeros(len(pairs), dtype=torch.float64)
    correct = torch.zeros(len(pairs), dtype=torch.bool)
    with frozen(decoder.model):
        for group in by_length([len(row) for row in rows], MAX_TOKENS):
            batch = pad([rows[i] for i in group], decoder.device)
            chosen, right, owner = _answers(decoder, batch.inputs(), [encoded[i] for i in group])
            count = torch.bincount(owner, minlength=len(group))
            mean = torch.zeros(len(group), dtype=torch.float64).index_add(0, owner, chosen) / count
            wrong = torch.bincount(owner[~right], minlength=len(group))
            log_probs[group], correct[group] = mean, wrong == 0
    return TargetScores(log_probs, correct)


def _answers(
    decoder: Decoder, inputs: dict[str, Any], encoded: Sequence[tuple[list[int], int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, argmax hit and row of every answer token of a batch, logits taken only there."""
    places = [
        (row, start - 1 + i, token) for row, (ids, start) in enumerate(encoded) for i, token in enumerate(ids[start:])
    ]
    rows, columns, tokens = (torch.tensor(column, device=decoder.device) for column in zip(*places, strict=True))
    with change_input(decoder.head, lambda hidden: hidden[rows, columns][None]):
        logits = decoder.model(**inputs).logits[0]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return chosen.double().cpu(), (logits.argmax(-1) == tokens).cpu(), rows.cpu()
