"""How much of its world a model knows, by kind of wording."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_edit.tiny.world import World


@torch.no_grad()
def answer_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    batch_size: int = 256,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score each answer behind its prompt.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompts: Complete prompts, without a trailing space.
        answers: One per prompt, without a leading space.
        batch_size: Prompts a forward pass.

    Returns:
        Whether every token of the answer is the most probable one, (len(prompts),) bool, and the answer's probability
        per token, exp(mean log-probability), (len(prompts),).
    """
    greedy, probability = [], []
    for start in range(0, len(prompts), batch_size):
        heads = [tokenizer(prompt)["input_ids"] for prompt in prompts[start : start + batch_size]]
        tails = [tokenizer(" " + answer)["input_ids"] for answer in answers[start : start + batch_size]]
        length = max(len(head) + len(tail) for head, tail in zip(heads, tails, strict=True))
        ids = torch.zeros(len(heads), length, dtype=torch.long)
        is_answer = torch.zeros(len(heads), length, dtype=torch.bool)
        for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
            is_answer[row, len(head) : len(head) + len(tail)] = True
        # Right padding needs no mask under causal attention: nothing that is scored can see it.
        mask = torch.ones_like(ids).to(model.device)
        log_p = model(input_ids=ids.to(model.device), attention_mask=mask).logits[:, :-1].float().log_softmax(-1).cpu()
        target, scored = ids[:, 1:], is_answer[:, 1:]
        token_log_p = log_p.gather(-1, target[..., None])[..., 0].masked_fill(~scored, 0.0)
        greedy.append(((log_p.argmax(-1) == target) | ~scored).all(-1))
        probability.append((token_log_p.sum(-1) / scored.sum(-1)).exp())
    return torch.cat(greedy), torch.cat(probability)


def measure_knowledge(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World) -> dict[str, float]:
    """Measure the share of facts known and the mean probability of the true answer.

    Returns:
        ``{wording}/known`` and ``{wording}/probability`` for the wordings ``rewrite``, ``paraphrase`` (others that the
        text uses with the subject) and ``held_out`` (never seen with the subject).
    """
    groups: dict[str, list[tuple[str, str]]] = {"rewrite": [], "paraphrase": [], "held_out": []}
    for fact in world.facts:
        rewrite, *paraphrases = world.prompts(fact, held_out=False)
        groups["rewrite"].append((rewrite, fact.answer))
        groups["paraphrase"] += [(prompt, fact.answer) for prompt in paraphrases]
        groups["held_out"] += [(prompt, fact.answer) for prompt in world.prompts(fact, held_out=True)]
    result = {}
    for name, pairs in groups.items():
        greedy, probability = answer_scores(model, tokenizer, [p for p, _ in pairs], [a for _, a in pairs])
        result[f"{name}/known"] = greedy.float().mean().item()
        result[f"{name}/probability"] = probability.mean().item()
    return result
