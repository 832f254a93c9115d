"""The pairs of windows: keys and residuals at the tokens before them, on the model as it is when a layer is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_edit.distributed.process_group import in_shares
from lightning_edit.gradients.source import AtPlace, Pairs
from lightning_edit.gradients.statistics import Statistics
from lightning_edit.keys.edit_keys import check_keys
from lightning_edit.models.batches import by_length, pad, tokens_of_a_pass
from lightning_edit.models.decoder import Decoder, ValueSite
from lightning_edit.models.fast_ops import fused_activations
from lightning_edit.models.finding.sites import by_token, capture_keys, stacked
from lightning_edit.models.hooks import by_position, capture_output, frozen, run_until
from lightning_edit.models.out_of_memory import halving
from lightning_edit.requests import EditRequest
from lightning_edit.windows.texts import WindowedText

MAX_TOKENS = 8192
# Of one text: keys and outputs before its windows, and the keys of all other tokens, a row each.
OfText = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class WindowPairs(Pairs):
    """Keys, residuals, and other keys of the same texts.

    Args:
        decoder: The model.
        texts: The edits' texts.
        requests: ``n``, the edit of each window.
        z: ``(n, d_model)``, the values of all windows, text by text.
        highest: The layer at which they were found.
        site: Where they were added there.
        preserve_text: Whether the keys of all other tokens are given.
        owners: See `Pairs`.
        statistics: See `Pairs`; nothing is remembered.
    """

    decoder: Decoder
    texts: Sequence[WindowedText]
    requests: Sequence[EditRequest]
    z: Tensor
    highest: int
    site: ValueSite
    preserve_text: bool
    owners: tuple[int, ...]
    statistics: dict[str, Statistics] = field(default_factory=dict)

    def at(self, place: int) -> AtPlace:
        """Those of one layer; the residual is what is still missing at the highest one, see `Pairs.at`.

        Raises:
            EditError: If a key is all zeros.
        """
        shares = in_shares(lambda own: self._of_share(own, place), self.texts, self.decoder.model)
        device, parts = self.decoder.device, zip(*(part for share in shares for part in share), strict=True)
        keys, current, others = (torch.cat(part).to(device) for part in parts)
        check_keys(keys.T, self.requests, place)
        residual = self.z.double().to(device) - current
        text_keys = others.T.contiguous() if len(others) else None
        return AtPlace(keys.T.contiguous(), residual.T.contiguous(), text_keys)

    def _of_share(self, texts: Sequence[WindowedText], place: int) -> list[OfText]:
        decoder, found = self.decoder, dict[int, OfText]()

        def run(chosen: Sequence[int]) -> None:
            found.update(zip(chosen, self._pass([texts[i] for i in chosen], place), strict=True))

        with frozen(decoder.model), fused_activations(decoder.model):
            lengths, most = [len(text.ids) for text in texts], decoder.tokens_at_once(MAX_TOKENS)
            for group in by_length(lengths, most, tokens_of_a_pass(decoder.device)):
                list(halving(run, group, decoder.model))
        return [found[i] for i in range(len(texts))]

    def _pass(self, texts: Sequence[WindowedText], place: int) -> list[OfText]:
        decoder, parts = self.decoder, list[OfText]()
        batch = pad([text.ids for text in texts], decoder.device)
        block = decoder.blocks[self.highest] if self.site == "block" else decoder.down_projection(self.highest)
        captures = capture_keys(decoder.down_projection(place)), capture_output(block, stop=True)
        captured, left = run_until(decoder.model, batch.inputs(), *captures)
        tokens, states = by_token(captured.value), by_position(left.value, len(texts))
        length = batch.input_ids.shape[1]
        for row, text in enumerate(texts):
            before = torch.zeros(len(text.ids), dtype=torch.bool)
            before[text.places] = True
            rows = row * length + torch.arange(len(text.ids))
            others = rows[~before] if self.preserve_text else rows[:0]
            at = [stacked(tokens[index.to(tokens.device)]).double().cpu() for index in (rows[before], others)]
            parts.append((at[0], states[row, text.places].double().cpu(), at[1]))
        return parts
