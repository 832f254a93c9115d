"""Values from gradients: UltraEdit and StableEdit, and with a net MALMEN, RLEdit and MEND."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import WITH_TEMPLATES, check_lengths
from lightning_edit.errors import EditError
from lightning_edit.gradients.net import GradientNet, named
from lightning_edit.gradients.net_check import check_net, net_settings, warn_of_solver
from lightning_edit.gradients.net_file import load_net
from lightning_edit.gradients.passes import MAX_LOGITS, MAX_TOKENS, AtTokens, check_backward, gradients_at_answers
from lightning_edit.gradients.source import Asked, AtPlace, Pairs, Source
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.context_templates import ContextTemplates
from lightning_edit.messages import listed
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.places import blocks_of, weight_shape
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Count, CountOrZero, Positive
from lightning_edit.solvers import Solver
from lightning_edit.values.memory import DOUBLE, LOGITS, activation_width
from lightning_edit.without_effect import refuse_changed

logger = logging.getLogger(__name__)

UNTRAINED = (
    "`source.scale: %s` without a net: MALMEN, RLEdit and MEND change keys and gradients by a trained one, and these "
    "edits are not theirs. `lightning-edit train-net` trains a net; name its folder in `source.net`."
)
# Tokens of which there is a mean and a variance.
SEEN = 2
ALONE = (
    ", so there is nothing to compare its key and gradient with. Write more edits in one update, set `source.warmup`, "
    "or `source.normalize: none`."
)


@dataclass(frozen=True)
class GradientPairs(Pairs):
    """Pairs of all places, found on the same weights.

    Args:
        keys: For each place K ``(d_in, n)`` in float64.
        residuals: For each place R ``(d_out, n)`` in float64.
        owners: See `Pairs`.
        statistics: See `Pairs`.
    """

    keys: dict[int, Tensor]
    residuals: dict[int, Tensor]
    owners: tuple[int, ...]
    statistics: dict[str, Statistics]

    def at(self, place: int) -> AtPlace:
        """Those of one place, which are not kept; see `Pairs.at`."""
        return AtPlace(self.keys.pop(place), self.residuals.pop(place))


@dataclass(frozen=True)
class Gradient(Source):
    """Values from one pass forward and one backward: a step against the gradient, with a length of its own.

    At every token that predicts one of the answer, h enters an edited map W and g is the gradient, with respect to what
    W gives there, of the mean cross entropy over the answer tokens of a mini-batch of edits. The key is h, and the
    residual

        v = -eta |h'|^2 g'        (`squared_key`)        or        v = -eta (h . h') g'        (`key_product`)

    where h' and g' are h and g brought to one scale by the statistics of all tokens so far, those of this update
    included. The pairs of all maps are found on the same weights. No edit needs a subject.

    UltraEdit (Gu et al., 2025, arXiv 2505.14679) is this with the solver `Ridge` (1); StableEdit (2026, arXiv
    2605.11836) `whitened`, with a larger ridge and a warm-up; MALMEN (Tan et al., 2024, arXiv 2311.04661) and RLEdit
    (arXiv 2502.05759) take `key_product` and change h' and g' by a `net`; MEND (Mitchell et al., 2022, arXiv
    2110.11309) takes `alone`, all tokens and the solver `Sum`. There are as many keys as tokens, not as edits.
    """

    maps: list[str] = field(default_factory=list)
    """Linear maps of each layer to edit, as named in a block: ``mlp.{gate,up}_proj``; none for the down-projection."""

    eta: Positive = 1e-6
    """The length of the step; 1e-6 as published, for models of billions of parameters."""

    normalize: Literal["standard", "whitened", "none"] = "standard"
    """How h and g are brought to one scale: ``standard`` in each dimension, ``none``, or ``whitened``.

    ``whitened`` takes h like ``standard`` and multiplies g, less its mean, by the inverse square root of its
    covariance, as soon as more tokens were seen than g has dimensions (StableEdit).
    """

    scale: Literal["squared_key", "key_product", "alone"] = "squared_key"
    """The length that a residual takes from its key: |h'|^2 (UltraEdit, StableEdit) or h . h' (MALMEN, RLEdit).

    ``alone`` takes none: v = -eta g', for the key h' in place of h (MEND).
    """

    tokens: Literal["answer", "all"] = "answer"
    """Which tokens give keys: those that predict one of the ``answer``, or ``all`` of prompt and answer (MEND)."""

    mini_batch: Count = 10
    """Edits over whose answer tokens the loss is a mean; without normalization it scales the residual."""

    floor: Positive = 1e-6
    """The smallest eigenvalue of the covariance of g that ``whitened`` takes."""

    warmup: CountOrZero = 0
    """Facts that are not edited, with other answers, that the statistics see before the first update."""

    net: str | None = None
    """A folder that ``lightning-edit train-net`` wrote: a net that changes h' and g', with a step and ridge of a place.

    It was trained with some of these settings, which must be the same. A run begins with its statistics.
    """

    section: ClassVar[str] = "source"
    needs_subject: ClassVar[bool] = False

    @property
    def idle(self) -> frozenset[str]:
        """See `Source.idle`."""
        floor = [] if self.normalize == "whitened" else ["floor"]
        return frozenset([*floor, "warmup"] if self.normalize == "none" else floor)

    def __post_init__(self) -> None:
        if self.normalize != "whitened":
            beside = f"`source.normalize: {self.normalize}`"
            refuse_changed(self, ("floor",), beside, "Set `source.normalize` to whitened")
        if self.normalize == "none":
            remedy = "Set `source.normalize` to standard or whitened"
            refuse_changed(self, ("warmup",), "`source.normalize: none`, which keeps no statistics", remedy)

    def check(
        self, tokenizer: Any, requests: Sequence[EditRequest], templates: ContextTemplates, decoder: Decoder
    ) -> None:
        """Refuses texts that do not fit the context; see `Source.check`."""
        for request in templates.worth_counting(tokenizer, requests, decoder.context):
            lengths = [len(ids) - 1 for ids, _ in templates.answered(tokenizer, request)]
            check_lengths(lengths, [request.name] * len(lengths), decoder.context, WITH_TEMPLATES)

    def check_places(self, decoder: Decoder, places: Sequence[int], statistics: Mapping[str, Statistics]) -> None:
        """Refuses maps without gradients, and a net or statistics of other shapes; see `Source.check_places`."""
        if self.net is not None and self._loaded is not None:
            check_net(self.net, self._loaded[0].made, decoder, places, net_settings(self))
        check_backward(decoder, places)
        shapes = {_shape(decoder, place) for place in places}
        if statistics and self.normalize != "none" and not shapes <= statistics.keys():
            raise EditError(
                f"The statistics of keys and gradients that the earlier run left are of weights {_said(statistics)}, "
                f"and those edited now are {_said(shapes)}. Edit the same maps of the same model as that run."
            )
        if self.normalize == "whitened" and any(seen.products is None for seen in statistics.values()):
            raise EditError(
                "`source.normalize: whitened` needs the covariance of gradients, which the earlier run did not keep. "
                "Set `source.normalize` to standard, as in that run."
            )

    def check_solver(self, solver: Solver) -> None:
        """Warns of another solver than a net was trained with; see `Source.check_solver`."""
        if self.net is not None and self._loaded is not None:
            warn_of_solver(self.net, self._loaded[0].made, solver)

    def check_first(self, tokenizer: Any, first: Sequence[EditRequest], templates: ContextTemplates) -> None:
        """Refuses a first update of a single token; see `Source.check_first`."""
        if self.net is None and self.scale != "squared_key":
            logger.warning(UNTRAINED, self.scale)
        if self.normalize == "none" or self.warmup or self.net is not None:
            return
        seen = 0
        for request in first:
            texts = templates.answered(tokenizer, request)
            seen += sum(len(ids) - (1 if self.tokens == "all" else start) for ids, start in texts)
            if seen >= SEEN:
                return
        raise EditError(f"The first update, {listed([one.name for one in first])}, has a single token{ALONE}")

    def fingerprints(self) -> dict[str, str]:
        """That of the net; see `Source.fingerprints`."""
        return {} if self._loaded is None else {"net": self._loaded[1]}

    def memory(self, asked: Asked) -> tuple[int, int]:
        """A pass forward and one backward, down to the lowest edited block; see `Source.memory`."""
        decoder, answered = asked.decoder, self._answered(asked)
        texts = [text for of_edit in answered for text in of_edit]
        tokens = min(sum(len(ids) - 1 for ids, _ in texts), decoder.tokens_at_once(MAX_TOKENS))
        answers = sum(len(ids) - start for ids, start in texts)
        keys = sum(len(ids) - 1 for ids, _ in texts) if self.tokens == "all" else answers
        config, size = decoder.model.config.get_text_config(), decoder.model.dtype.itemsize
        lowest = blocks_of(decoder, asked.places)[0]
        width = sum(activation_width(block, config) for block in decoder.blocks[lowest:])
        logits = LOGITS * min(answers * config.vocab_size, MAX_LOGITS) * max(size, 4)
        pairs = DOUBLE * keys * sum(sum(weight_shape(decoder, place)) for place in asked.places)
        net = 0 if self._loaded is None else self._loaded[0].memory(keys)
        return keys, int(tokens * size * width + logits + pairs + net)

    def find(self, asked: Asked, statistics: Mapping[str, Statistics], report: Report = silent) -> Pairs:
        """One pass forward and one backward for all places; see `Source.find`."""
        decoder, net = asked.decoder, None if self._loaded is None else self._loaded[0].to(asked.decoder.device)
        found, owners = self.states(asked, report)
        seen = self.seen(found, {} if net is None else net.statistics, statistics)
        keys, residuals = dict[int, Tensor](), dict[int, Tensor]()
        for place, (h, g) in found.items():
            keys[place], residuals[place] = self.pair(h, g, seen, net, decoder.names[place])
        return GradientPairs(keys, residuals, owners, seen)

    def states(self, asked: Asked, report: Report = silent) -> tuple[AtTokens, tuple[int, ...]]:
        """Keys and gradients of the edits as the model has them now, and the edit that each belongs to.

        Args:
            asked: The edits.
            report: Called with the number of edits done.

        Raises:
            EditError: If they are not finite.
        """
        answered, everywhere = self._answered(asked), self.tokens == "all"
        texts = [text for of_edit in answered for text in of_edit]
        counts = [sum(len(ids) - start for ids, start in of_edit) for of_edit in answered]
        owners = [
            edit
            for edit, of_edit in enumerate(answered)
            for ids, start in of_edit
            for _ in ids[1 if everywhere else start :]
        ]
        found = gradients_at_answers(asked.decoder, texts, asked.places, asked.shown_by(report), everywhere)
        device = asked.decoder.device
        weights = self._weights(owners, counts).to(device)[:, None]
        # The blocks of a model that is spread over devices are on several.
        found = {place: (h.to(device), g.to(device) * weights) for place, (h, g) in found.items()}
        _check_finite(found, owners, asked.requests)
        return found, tuple(owners)

    @cached_property
    def _loaded(self) -> tuple[GradientNet, str] | None:
        """The net and its hash; None without one."""
        return None if self.net is None else load_net(self.net)

    @staticmethod
    def _answered(asked: Asked) -> list[list[tuple[list[int], int]]]:
        """Each edit in all of its contexts."""
        return [asked.templates.answered(asked.tokenizer, request) for request in asked.requests]

    def _weights(self, owners: Sequence[int], counts: Sequence[int]) -> Tensor:
        """``(n,)``: one over the number of answer tokens in the mini-batch of each; ``counts`` are those of edits."""
        batches = torch.arange(len(counts)) // self.mini_batch
        answers = torch.bincount(batches, torch.tensor(counts).double())
        return 1 / answers[batches[torch.tensor(owners)]]

    def seen(
        self, found: AtTokens, begun: Mapping[str, Statistics], before: Mapping[str, Statistics]
    ) -> dict[str, Statistics]:
        """The statistics with those of all places of each shape added.

        Args:
            found: From `states`.
            begun: Those with which a run begins.
            before: Those that it has; nothing at first.

        Raises:
            EditError: If a single token was seen so far.
        """
        if self.normalize == "none":
            return dict(before)
        seen = {**begun, **before}
        for keys, gradients in found.values():
            shape = named((gradients.shape[1], keys.shape[1]))
            own = Statistics.of(keys, gradients, self.normalize == "whitened")
            seen[shape] = seen[shape] + own if shape in seen else own
        if few := [shape for shape, of_shape in seen.items() if of_shape.tokens < SEEN]:
            raise EditError(f"A single token was seen at the weights {_said(few)} so far{ALONE}")
        return seen

    def pair(
        self, keys: Tensor, gradients: Tensor, seen: Mapping[str, Statistics], net: GradientNet | None, name: str
    ) -> tuple[Tensor, Tensor]:
        """K ``(d_in, n)`` and R ``(d_out, n)`` of one place; see the class.

        Args:
            keys: h ``(n, d_in)``.
            gradients: g ``(n, d_out)``.
            seen: From `seen`.
            net: What changes h' and g'; None for nothing.
            name: Of the place, for the net.
        """
        key, gradient = keys, gradients
        if self.normalize != "none":
            of_shape, floor = seen[named((gradients.shape[1], keys.shape[1]))], self.floor
            key, gradient = of_shape.normalized(keys, gradients, floor if self.normalize == "whitened" else None)
        if net is not None:
            key, gradient = net(name, key, gradient)
        if self.scale == "alone":
            written, residual = key, -self.eta * gradient
        else:
            lengths = (key * (key if self.scale == "squared_key" else keys)).sum(1)
            written, residual = keys, gradient * (-self.eta * lengths)[:, None]
        if net is not None:
            written, residual = written * net.weight(name), residual * (net.eta(name) * net.weight(name))
        return written.T.contiguous(), residual.T.contiguous()


def _shape(decoder: Decoder, place: int) -> str:
    return named(weight_shape(decoder, place))


def _said(shapes: Any) -> str:
    return ", ".join(sorted(shape.replace("x", " x ") for shape in shapes))


def _check_finite(found: AtTokens, owners: Sequence[int], requests: Sequence[EditRequest]) -> None:
    """Refuses edits whose keys or gradients are no numbers, which would spoil the statistics for all others."""
    bad = {
        owners[row]
        for pair in found.values()
        for states in pair
        for row in (~states.isfinite().all(1)).nonzero()[:, 0].tolist()
    }
    if bad:
        names = listed([requests[edit].name for edit in sorted(bad)])
        raise EditError(
            f"The gradient of {names} is not a finite number, so nothing was written. Load the model in float32 or "
            "bfloat16, or leave these edits out."
        )
