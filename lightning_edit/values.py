"""Value vectors: what the hidden state at the subject's last token must become for the model to give the new answer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.architectures import Decoder
from lightning_edit.context_templates import ContextTemplates
from lightning_edit.errors import EditError
from lightning_edit.hooks import frozen
from lightning_edit.progress import Report, silent
from lightning_edit.prompts import Encoded, check_lengths, encode_subject
from lightning_edit.requests import EditRequest
from lightning_edit.value_batch import Site, ValueBatch, prepare

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValueSettings:
    """How value vectors are optimized (ROME, appendix E.5, and MEMIT, section 4.3; defaults from their GPT-2 XL).

    Args:
        lr: Learning rate of Adam.
        steps: Forward passes; the last one makes no step (`v_num_grad_steps` of the published code).
        weight_decay: Factor of ``|delta| / |z0|^2`` in the loss.
        clamp_norm_factor: After each step ``|delta|`` is at most this times ``|z0|``.
        kl_factor: Factor of the divergence on the KL prompt.
        early_stop_loss: An edit stops as soon as its loss is below this.
        kl_prompt: What the model must go on saying of the subject; one ``{}``.
        site: Where delta is added: ``block`` to the hidden state leaving the block (MEMIT, EMMET), ``mlp`` to the
            output of the down-projection itself (ROME; also exact where a norm follows the MLP, as in Gemma 2).
    """

    lr: float = 0.5
    steps: int = 20
    weight_decay: float = 0.5
    clamp_norm_factor: float = 0.75
    kl_factor: float = 0.0625
    early_stop_loss: float = 0.05
    kl_prompt: str = "{} is a"
    site: Site = "block"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.lr <= 0 or self.clamp_norm_factor <= 0:
            raise EditError(f"`steps` >= 1, `lr` > 0 and `clamp_norm_factor` > 0 are needed, got {self}.")
        if self.kl_prompt.count("{}") != 1:
            raise EditError(f"`kl_prompt` must hold exactly one {{}} for the subject, got {self.kl_prompt!r}.")


@dataclass(frozen=True)
class Values:
    """The value vectors of n edits and how they were found.

    Args:
        z: ``(n, d_model)``, z = z0 + delta, in float32 or the model's own precision if higher.
        z0: ``(n, d_model)``, the unedited state in the bare prompt.
        nll: ``(n,)`` mean negative log-likelihood of the new target, in nats, in the last pass.
        kl: ``(n,)`` the KL term of the loss, its factor included.
        decay: ``(n,)`` the weight decay term of the loss, its factor included.
        steps: ``(n,)`` forward passes used.
        finite: ``(n,)`` false for edits whose loss was not a number; their z is z0 and they must not be written.
    """

    z: Tensor
    z0: Tensor
    nll: Tensor
    kl: Tensor
    decay: Tensor
    steps: Tensor
    finite: Tensor

    def __len__(self) -> int:
        return len(self.z)

    def where(self, mask: Tensor) -> "Values":
        """The values of those edits for which ``mask (n,)`` is true."""
        return Values(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    @staticmethod
    def join(parts: Sequence["Values"]) -> "Values":
        """The values of several micro-batches, one after the other."""
        names = Values.__dataclass_fields__
        return Values(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def encode_texts(
    tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, kl_prompt: str, context: int | None
) -> list[tuple[int, Encoded]]:
    """The texts of the value loss: for each edit its templates, then its KL prompt.

    Args:
        tokenizer: A fast tokenizer.
        requests: The edits.
        templates: Their contexts.
        kl_prompt: See `ValueSettings`.
        context: The model's context in tokens.

    Returns:
        Pairs of edit number and encoded text.

    Raises:
        EditError: If a text does not fit the context.
    """
    rows: list[tuple[int, Encoded]] = []
    for edit, request in enumerate(requests):
        for template in templates.apply(request.prompt):
            rows.append((edit, encode_subject(tokenizer, template, request.subject, request.target_new)))
        rows.append((edit, encode_subject(tokenizer, kl_prompt, request.subject)))
    names = [f"{requests[edit].name} with its longest context template" for edit, _ in rows]
    check_lengths([len(text.ids) for _, text in rows], names, context)
    return rows


@dataclass
class _Search:
    """Delta, the settings and what each edit had reached when it stopped."""

    settings: ValueSettings
    z0: Tensor
    delta: Tensor
    found: Tensor
    parts: Tensor
    steps: Tensor
    active: Tensor
    finite: Tensor
    reference: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def start(z0: Tensor, settings: ValueSettings) -> "_Search":
        n, device = len(z0), z0.device
        everyone = torch.ones(n, dtype=torch.bool, device=device)
        return _Search(
            settings=settings,
            z0=z0,
            delta=torch.zeros_like(z0, requires_grad=True),
            found=torch.zeros_like(z0),
            parts=torch.zeros(3, n, dtype=z0.dtype, device=device),
            steps=torch.zeros(n, dtype=torch.long, device=device),
            active=everyone,
            finite=everyone.clone(),
        )

    def losses(self, batch: ValueBatch) -> Tensor:
        """Loss parts ``(3, n)``: likelihood, divergence and decay of every edit still in the batch."""
        log_probs = batch.logits(self.delta).log_softmax(-1)
        picks, n = batch.picks, len(self.z0)
        answers = picks.targets >= 0
        chosen = log_probs[answers].gather(1, picks.targets[answers, None])[:, 0]
        nll = chosen.new_zeros(n).index_add(0, picks.edits[answers], -chosen * picks.weights[answers].to(chosen.dtype))
        moved = log_probs[~answers]
        if "log_probs" not in self.reference:
            self.reference["log_probs"] = moved.detach().clone()
        before = self.reference["log_probs"][picks.edits[~answers]]
        divergence = (moved.exp() * (moved - before)).sum(1)
        kl = nll.new_zeros(n).index_add(0, picks.edits[~answers], divergence)
        # |delta| has no derivative at 0, where the search begins; torch gives 0 there, as the published code has it.
        decay = self.delta.norm(dim=1) / self.z0.norm(dim=1) ** 2
        return torch.stack([nll, self.settings.kl_factor * kl, self.settings.weight_decay * decay])

    def settle(self, parts: Tensor, last: bool) -> Tensor:
        """Notes where edits end; returns which of all edits go on, ``(n,)``."""
        total = parts.detach().sum(0)
        sound = total.isfinite()
        done = self.active & (last | ~sound | (total < self.settings.early_stop_loss))
        self.steps += self.active
        self.found[done] = self.delta.detach()[done]
        self.parts[:, done] = parts.detach()[:, done]
        self.finite &= sound | ~self.active
        self.active = self.active & ~done
        return self.active

    def clamp(self) -> None:
        """Projects every delta into its ball, ``|delta| <= clamp_norm_factor |z0|``."""
        with torch.no_grad():
            limit = self.settings.clamp_norm_factor * self.z0.norm(dim=1, keepdim=True)
            norm = self.delta.norm(dim=1, keepdim=True)
            self.delta.copy_(torch.where(norm > limit, self.delta * limit / norm, self.delta))

    def result(self) -> Values:
        found = torch.where(self.finite[:, None], self.found, torch.zeros_like(self.found))
        nll, kl, decay = self.parts
        return Values(self.z0 + found, self.z0, nll, kl, decay, self.steps, self.finite)


def _means(parts: Tensor) -> dict[str, float]:
    nll, kl, decay = parts.nanmean(1).tolist()
    return {"loss": nll + kl + decay, "nll": nll, "kl": kl, "weight_decay": decay}


def optimize_values(
    decoder: Decoder,
    tokenizer: Any,
    requests: Sequence[EditRequest],
    templates: ContextTemplates,
    layer: int,
    settings: ValueSettings,
    report: Report = silent,
) -> Values:
    """Finds the value vectors of a micro-batch of edits, all edits at once.

    For each edit, over delta (d_model), with Adam (ROME, equation 4; MEMIT, equation 16):

        mean_t NLL(o* | t(p)) + kl_factor KL(P_delta || P_0) + weight_decay |delta| / |z0|^2

    where t runs over the context templates and P is the model's distribution at the subject's last token of the KL
    prompt, with and without delta.

    Args:
        decoder: The model as it is at the time of the edit.
        tokenizer: Its fast tokenizer.
        requests: The n edits.
        templates: Contexts over which the likelihood is averaged.
        layer: The block where delta is added, the highest edited one.
        settings: See `ValueSettings`.
        report: Told about finished edits and the loss.

    Returns:
        The values; edits whose loss was not finite are named in a warning and marked.

    Raises:
        EditError: If a text does not fit the model's context.
    """
    rows = encode_texts(tokenizer, requests, templates, settings.kl_prompt, decoder.context)
    with frozen(decoder.model):
        batch, states = prepare(decoder, layer, settings.site, rows, len(templates.texts))
        bare = torch.arange(0, len(rows), len(templates.texts) + 1, device=states.device)
        z0 = states[bare].to(torch.promote_types(states.dtype, torch.float32))
        search = _Search.start(z0, settings)
        optimizer = torch.optim.Adam([search.delta], lr=settings.lr)
        for step in range(settings.steps):
            with torch.enable_grad():
                parts = search.losses(batch)
                before = search.active
                going = search.settle(parts, last=step == settings.steps - 1)
                report(
                    "values (edits)",
                    float((~going).sum() + going.sum() * (step + 1) / settings.steps),
                    len(requests),
                    **_means(parts.detach()[:, before]),
                )
                if not going.any():
                    break
                (search.delta.grad,) = torch.autograd.grad(parts.sum(0)[going].sum(), [search.delta])
            optimizer.step()
            search.clamp()
            if int(going.sum()) < int(before.sum()):
                batch = batch.keep(going)
    values = search.result()
    for edit in (~values.finite).nonzero()[:, 0].tolist():
        logger.warning("%s: the loss is not a finite number; this edit is left out.", requests[edit].name)
    return values
