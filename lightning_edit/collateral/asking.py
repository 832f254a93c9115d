"""What a model answers to probes, and how far its next token is from what it was."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from lightning_edit.asking.chat import chat_of, informed_prompt
from lightning_edit.asking.generation import generate
from lightning_edit.asking.room import room_for
from lightning_edit.asking.tokenization import encode_prompt
from lightning_edit.collateral.probe import REWORDED, Probe
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen, logits_at
from lightning_edit.models.out_of_memory import halving
from lightning_edit.models.prefixes.shared_prefixes import Pass, passes
from lightning_edit.progress import Report, silent

# Most probabilities that are held at once, for the model as it was and for the model as it is.
MAX_NUMBERS = 2**25
MAX_TOKENS = 2048
STAGE = "collateral (prompts)"


class Asked(NamedTuple):
    """An answer.

    Args:
        text: What the model writes after the prompt.
        kl: KL(before || now) of the next token after the prompt, in nats; None where it was not asked for.
    """

    text: str
    kl: float | None = None


@dataclass(frozen=True)
class Asking:
    """Asks a model, greedily; of several processes each asks its share, and all must call this.

    Args:
        decoder: The model.
        tokenizer: Its fast tokenizer.
        tokens: How many tokens an answer has at most.
        before: Makes a context in which the model is as before the run.
        report: Called with the number of prompts done.
        edited_layers: Those that an edit may have changed.
    """

    decoder: Decoder
    tokenizer: Any
    tokens: int
    before: Callable[[], AbstractContextManager[Any]]
    report: Report = silent
    edited_layers: Sequence[int] = ()

    def fits(self, prompt: str) -> bool:
        """Whether the model's context has room for a prompt and an answer.

        Args:
            prompt: A complete prompt.
        """
        context, chat = self.decoder.context, chat_of(self.tokenizer)
        asked = informed_prompt(self.tokenizer, prompt)
        asked = asked if chat is None else chat(asked)
        # A tokenizer makes no more tokens than there are bytes, but for one or two at the start.
        if context is None or len(asked.encode()) + 2 + self.tokens <= context:
            return True
        return len(encode_prompt(self.tokenizer, prompt)) + self.tokens <= context

    def room(self, probe: Probe) -> int:
        """Most tokens of the answer to a probe: where it is to say a new object, as many as that takes.

        Args:
            probe: What is asked.
        """
        if probe.kind != REWORDED:
            return self.tokens
        return max(
            room_for(self.tokenizer, self.tokens, probe.prompt, answer, probe.lead_in) for answer in probe.answers
        )

    def as_before(self, prompts: Sequence[str], room: Sequence[int] | None = None) -> list[str]:
        """What the model answered before the run.

        Args:
            prompts: Complete prompts.
            room: For each the most tokens of its answer; None for `tokens`.
        """
        with self.before():
            return [asked.text for asked in self.now(prompts, room=room)]

    def now(
        self, prompts: Sequence[str], with_kl: Sequence[bool] | None = None, room: Sequence[int] | None = None
    ) -> list[Asked]:
        """What the model answers as it is.

        Args:
            prompts: Complete prompts.
            with_kl: For each whether its next token is to be compared with that before the run.
            room: For each the most tokens of its answer; None for `tokens`.
        """
        wanted = [False] * len(prompts) if with_kl is None else list(with_kl)
        most = [self.tokens] * len(prompts) if room is None else list(room)
        questions = list(zip(prompts, wanted, most, strict=True))
        return [asked for share in in_shares(self._ask, questions, self.decoder.model) for asked in share]

    def _ask(self, own: Sequence[tuple[str, bool, int]]) -> list[Asked]:
        prompts, most = [prompt for prompt, *_ in own], [tokens for *_, tokens in own]
        texts = generate(self.decoder, self.tokenizer, prompts, most, report=self._report)
        compared = [prompt for prompt, wanted, _ in own if wanted]
        kls = iter(self._kl(compared))
        return [Asked(text, next(kls) if wanted else None) for text, (_, wanted, _) in zip(texts, own, strict=True)]

    def _report(self, stage: str, done: float, total: float, **figures: float) -> None:
        self.report(STAGE, done, total)

    def _kl(self, prompts: Sequence[str]) -> list[float]:
        """KL(before || now) of the next token after each prompt, ``sum_v p_before(v) ln (p_before(v) / p_now(v))``."""
        size = max(1, MAX_NUMBERS // self.decoder.model.config.get_text_config().vocab_size)
        found: list[float] = []
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            with self.before():
                before = self._next_token(part)
            found += kl_div(self._next_token(part), before, reduction="none", log_target=True).sum(-1).tolist()
        return found

    @torch.no_grad()
    def _next_token(self, prompts: Sequence[str]) -> Tensor:
        """Log-probabilities ``(prompts, vocabulary)`` of the next token, on the CPU."""
        rows = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        with frozen(self.decoder.model):
            for whole in passes(self.decoder, rows, [len(row) - 1 for row in rows], MAX_TOKENS):
                for part in halving(partial(self._last, whole), range(len(whole.rows)), self.decoder.model):
                    for i, log_probs in part:
                        found[i] = log_probs
        return torch.stack(found)

    def _last(self, whole: Pass, chosen: Sequence[int]) -> list[tuple[int, Tensor]]:
        part = whole.select(chosen)
        places, columns = torch.arange(len(chosen)), part.batch.real.sum(1).cpu() - 1
        with logits_at(self.decoder.head, places, columns):
            logits = self.decoder.model(**part.inputs()).logits[0]
        log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).cpu()
        return list(zip(part.rows, log_probs, strict=True))
