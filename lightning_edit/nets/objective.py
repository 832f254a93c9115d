"""What a net is trained for: how a model answers that was edited with it, and the gradient of that.

An update Delta = R W, with R and W from the net, is written into the model, and the gradient G of the loss with respect
to Delta is taken there, once. The gradient with respect to the net is then that of <G, R W>, which needs no model: only
the n x n system of the update is differentiated (MALMEN, section 4.2; equal to the gradient through everything).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax

from lightning_edit.gradients.gradient import Gradient
from lightning_edit.gradients.net import GradientNet
from lightning_edit.gradients.passes import Answered, answer_groups
from lightning_edit.gradients.source import Asked
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.models.batches import pad
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.fast_ops import fast
from lightning_edit.models.hooks import frozen, logits_at
from lightning_edit.models.out_of_memory import halving
from lightning_edit.nets.lessons import Lesson
from lightning_edit.nets.settings import NetSettings
from lightning_edit.solvers import Solver
from lightning_edit.values.settings import ValueSettings

Deltas = dict[int, Tensor]


@dataclass(frozen=True, repr=False)
class Pupil:
    """The model that is edited while a net is trained, and how it is edited.

    Args:
        decoder: The unedited model, whose weights stay as they are.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`.
        source: How keys and gradients are found and scaled, without a net.
        solver: `Ridge` or `Sum`.
        places: The edited places, ascending.
        templates: The contexts of edits.
    """

    decoder: Decoder
    tokenizer: Any
    source: Gradient
    solver: Solver
    places: Sequence[int]
    templates: ContextTemplates

    def factors(
        self, net: GradientNet, found: Mapping[int, tuple[Tensor, Tensor]], seen: Mapping[str, Statistics]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """R ``(d_out, n)`` and W ``(n, d_in)`` of each place, with gradients of the net."""
        names = self.decoder.names
        pairs = {place: self.source.pair(h, g, seen, net, names[place]) for place, (h, g) in found.items()}
        return {place: (residual, self._writer(keys)) for place, (keys, residual) in pairs.items()}

    def _writer(self, keys: Tensor) -> Tensor:
        if not self.solver.solves:
            return keys.T
        gram = keys.T @ keys
        system = gram + self.solver.ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.cholesky_solve(keys.T, torch.linalg.cholesky(system))


@dataclass
class Outcome:
    """What a sequence of updates came to.

    Args:
        surrogate: Its gradient with respect to the net is that of the loss.
        statistics: What was seen of keys and gradients.
        loss: The loss, a sum over all edits.
        same: Of that the nats a token of the new answers after the last update, a mean over its edits.
        unrelated: The KL divergence there.
    """

    surrogate: Tensor
    statistics: dict[str, Statistics]
    loss: float
    same: float
    unrelated: float


def sequence_loss(
    pupil: Pupil,
    net: GradientNet,
    statistics: Mapping[str, Statistics],
    turns: Sequence[Sequence[Lesson]],
    settings: NetSettings,
) -> Outcome:
    """Updates that follow each other, each judged by its own facts and those of the updates before.

    The loss of update t, with Delta its own part of what is written and all before it as it stands, is

        sum_(k < reach) discount^k sum_i [CE(same_i) + locality KL(unrelated_i)] + penalty |Delta|^2

    over the edits i of update t - k; CE is a mean over an edit's texts and their tokens, in nats, and so is KL, that of
    the unedited model's distribution from the edited one's. One update is MALMEN's objective, several RLEdit's.

    Args:
        pupil: The model.
        net: What is trained.
        statistics: What was seen of keys and gradients so far.
        turns: For each update its facts.
        settings: See `NetSettings`.
    """
    decoder, seen = pupil.decoder, dict(statistics)
    added: Deltas = {}
    outcome = Outcome(torch.zeros((), dtype=torch.float64, device=decoder.device), seen, 0.0, 0.0, 0.0)
    for turn, lessons in enumerate(turns):
        asked = Asked(
            decoder,
            pupil.tokenizer,
            [lesson.request for lesson in lessons],
            pupil.templates,
            pupil.places,
            ValueSettings(),
        )
        with rewritten(decoder, added):
            found, _ = pupil.source.states(asked)
        seen = pupil.source.seen(found, {}, seen)
        factors = pupil.factors(net, found, seen)
        own = {place: (left @ right).detach() for place, (left, right) in factors.items()}
        added = {place: added.get(place, 0) + delta for place, delta in own.items()}
        gradients = {place: 2 * settings.penalty * delta for place, delta in own.items()}
        outcome.loss += settings.penalty * sum(float(delta.square().sum()) for delta in own.values())
        for age in range(min(settings.reach, turn + 1)):
            _judge(decoder, turns[turn - age], added, settings, settings.discount**age, gradients, outcome, age == 0)
        for place, (left, right) in factors.items():
            outcome.surrogate = outcome.surrogate + ((gradients[place] @ right.T) * left).sum()
    outcome.statistics = seen
    return outcome


def _judge(
    decoder: Decoder,
    lessons: Sequence[Lesson],
    added: Deltas,
    settings: NetSettings,
    weight: float,
    gradients: Deltas,
    outcome: Outcome,
    newest: bool,
) -> None:
    """Adds the loss of some facts to the outcome, and its gradients to the others."""
    sums = []
    for kept, strength in ((False, 1.0), (True, settings.locality)):
        texts = [(lesson.unrelated if kept else lesson.same) for lesson in lessons]
        weights = [weight * strength / len(of_edit) for of_edit in texts for _ in of_edit]
        whole = [text for of_edit in texts for text in of_edit]
        loss, found = loss_and_gradients(decoder, whole, weights, added, kept) if whole and strength else (0.0, {})
        for place, gradient in found.items():
            gradients[place] = gradients[place] + gradient
        outcome.loss += loss
        sums.append(loss / (weight * strength * len(lessons)) if weight * strength else 0.0)
    if newest:
        outcome.same, outcome.unrelated = sums


def loss_and_gradients(
    decoder: Decoder, texts: Sequence[Answered], weights: Sequence[float], added: Deltas, kept: bool
) -> tuple[float, Deltas]:
    """A loss of the edited model on answers, and its gradients with respect to what was added.

    Args:
        decoder: The unedited model.
        texts: The texts with their answers.
        weights: What the mean over the tokens of each counts.
        added: For each edited place Delta ``(d_out, d_in)`` in float64.
        kept: Whether it is the KL divergence from the unedited model; else the cross entropy.

    Returns:
        The loss, and for each place G ``(d_out, d_in)`` in float64.
    """
    leaves = {place: delta.detach().requires_grad_() for place, delta in added.items()}
    total, gradients = 0.0, {place: torch.zeros_like(delta) for place, delta in added.items()}

    def run(chosen: Sequence[int]) -> tuple[float, tuple[Tensor, ...]]:
        loss = _loss(decoder, [texts[i] for i in chosen], [weights[i] for i in chosen], leaves, kept)
        return float(loss.detach()), torch.autograd.grad(loss, list(leaves.values()))

    with torch.enable_grad(), frozen(decoder.model), fast(decoder):
        for together in answer_groups(decoder, texts):
            for loss, found in halving(run, together, decoder.model):
                total += loss
                for place, gradient in zip(leaves, found, strict=True):
                    gradients[place] += gradient
    return total, gradients


def _loss(decoder: Decoder, texts: Sequence[Answered], weights: Sequence[float], leaves: Deltas, kept: bool) -> Tensor:
    batch = pad([ids[:-1] for ids, _ in texts], decoder.device)
    at = [
        (row, start - 1 + i, token, weights[row] / (len(ids) - start))
        for row, (ids, start) in enumerate(texts)
        for i, token in enumerate(ids[start:])
    ]
    *places, counts = zip(*at, strict=True)
    rows, columns, tokens = (torch.tensor(column, device=decoder.device) for column in places)

    def log_probabilities() -> Tensor:
        with logits_at(decoder.head, rows, columns):
            logits = decoder.model(**batch.inputs()).logits[0]
        return log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)

    if kept:
        with torch.no_grad():
            before = log_probabilities()
    with rewritten(decoder, leaves):
        after = log_probabilities()
    each = (before.exp() * (before - after)).sum(1) if kept else -after.gather(1, tokens[:, None])[:, 0]
    return (each * torch.tensor(counts, dtype=each.dtype, device=each.device)).sum()


@contextmanager
def rewritten(decoder: Decoder, added: Mapping[int, Tensor]) -> Iterator[None]:
    """The model as if its weights had been changed, so that gradients with respect to the change can be taken.

    Args:
        decoder: The model.
        added: For each edited place Delta ``(d_out, d_in)``.
    """

    def adding(delta: Tensor) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return output + linear(args[0], delta.to(args[0].device, args[0].dtype))

        return hook

    with ExitStack() as stack:
        for place, delta in added.items():
            stack.enter_context(decoder.down_projection(place).register_forward_hook(adding(delta)))
        yield
