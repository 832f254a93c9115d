"""How good a trial is: what the edited model says by itself, to the edits and to the probes of collateral."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lightning_edit.asking.generation import generate
from lightning_edit.asking.room import room_of
from lightning_edit.asking.tokenization import without_special
from lightning_edit.collateral import Asked, figures_of, kept_by_kind
from lightning_edit.collateral.judging import says
from lightning_edit.models.decoder import Decoder
from lightning_edit.requests import EditRequest
from lightning_edit.tuning.material import Material

Favor = Literal["efficacy", "balance", "locality"]
# To be raised whenever trials come to have other scores: as answers are judged otherwise, or others are preserved.
JUDGED = "judge 4"
FAVORS: tuple[Favor, ...] = get_args(Favor)
# What collateral counts for in the mean, where efficacy and paraphrase count for one each.
COLLATERAL_WEIGHT: Mapping[Favor, float] = {"efficacy": 0.5, "balance": 1.0, "locality": 4.0}


@dataclass(frozen=True)
class Score:
    """What a model says after some edits, in shares from 0 to 1.

    Args:
        efficacy: Of the edits whose new answer it says.
        paraphrase: Mean over edits of the share of their paraphrases; None where there are none.
        collateral: Mean over the kinds of probes of those whose answer did not get worse, `kept` of a run's collateral;
            None where there are none.
        kinds: That share for each kind.
    """

    efficacy: float
    paraphrase: float | None = None
    collateral: float | None = None
    kinds: dict[str, float] = field(default_factory=dict)

    def mean(self, favor: Favor = "balance") -> float:
        """The weighted harmonic mean of the three, as far as they were measured.

        Args:
            favor: What counts more.
        """
        pairs = [(self.efficacy, 1.0), (self.paraphrase, 1.0), (self.collateral, COLLATERAL_WEIGHT[favor])]
        shares = [(share, weight) for share, weight in pairs if share is not None]
        if any(share <= 0 for share, _ in shares):
            return 0.0
        return sum(weight for _, weight in shares) / sum(weight / share for share, weight in shares)


def judge(decoder: Decoder, tokenizer: Any, material: Material, tokens: int) -> Score:
    """Asks an edited model, greedily; one that says none of the new answers is asked nothing else.

    Args:
        decoder: The model with the material's edits.
        tokenizer: Its fast tokenizer.
        material: What was edited, and what should have stayed.
        tokens: How many it may write to each prompt; more where a new answer is longer.
    """
    requests = material.requests
    targets = [without_special(tokenizer, request.target_new) for request in requests]

    def room(request: EditRequest, prompt: str) -> int:
        return room_of(tokenizer, tokens, request, prompt, request.target_new)

    asked = [request.rewrite_prompt for request in requests]
    replies = generate(decoder, tokenizer, asked, list(map(room, requests, asked)))
    efficacy = _share([says(reply, [target]) for target, reply in zip(targets, replies, strict=True)])
    if not efficacy:
        return Score(efficacy)
    others = [(edit, prompt) for edit, one in enumerate(requests) for prompt in one.paraphrase_prompts]
    asked = [*(prompt for _, prompt in others), *(probe.prompt for probe in material.kept)]
    most = [*(room(requests[edit], prompt) for edit, prompt in others), *(tokens for _ in material.kept)]
    replies = generate(decoder, tokenizer, asked, most)
    by_edit: dict[int, list[bool]] = {}
    for (edit, _), reply in zip(others, replies[: len(others)], strict=True):
        by_edit.setdefault(edit, []).append(says(reply, [targets[edit]]))
    figures = figures_of(material.kept, [Asked(reply) for reply in replies[len(others) :]])
    paraphrase = _share([_share(hits) for hits in by_edit.values()]) if by_edit else None
    return Score(efficacy, paraphrase, figures.get("kept"), kept_by_kind(figures))


def _share(hits: Sequence[float]) -> float:
    return sum(hits) / len(hits)
