"""What of a model's pass need not be run again, found by running a few tokens and not by knowing the model."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_edit.models.batches import pad
from lightning_edit.models.hooks import Captured, capture_output, frozen, resume_from
from lightning_edit.models.prefixes.prefix_cache import cache_texts

logger = logging.getLogger(__name__)

TOKENS, PREFIX = 6, 3
# Relative to the norm of logits: rounding stays below it, and a state that was lost does not.
ROUNDING, TOLERANCE = 8, 1e-5


class Resumption:
    """How a pass of a model may be resumed; each question is asked once, when its answer is first needed.

    Args:
        model: The model. Where it is divided between processes, all of them must ask at the same time.
        blocks: Its decoder blocks.
        device: Where token ids go in.
    """

    def __init__(self, model: Any, blocks: nn.ModuleList, device: torch.device) -> None:
        self._model, self._blocks, self._device = model, blocks, device
        vocabulary = model.config.get_text_config().vocab_size
        self._ids = [i % vocabulary for i in range(1, TOKENS + 1)]
        self._after: dict[int, bool] = {}

    @cached_property
    def prefixes(self) -> bool:
        """Whether a text may go on from the keys and values of its beginning.

        Where a layer keeps a state of another kind, as recurrent ones do, texts are run from their first token.
        """

        def run() -> Tensor:
            # Of different lengths: some models count positions in columns, padding included.
            texts = [self._ids[:PREFIX], self._ids[: PREFIX - 1]]
            cache = cache_texts(self._model, texts, len(self._blocks), self._device)
            batch = pad([self._ids[PREFIX:], self._ids[PREFIX - 1 : -1]], self._device)
            mask = torch.ones(2, TOKENS, dtype=torch.long, device=self._device)
            mask[1, 0] = 0
            before = torch.tensor([[PREFIX], [PREFIX - 1]], device=self._device)
            inputs = {**batch.inputs(), "attention_mask": mask, "position_ids": batch.position_ids + before}
            return self._model(**{**inputs, **cache.inputs()}).logits

        whole = self._whole()[0][0]
        return _equal(self._model, run, torch.stack([whole[PREFIX:], whole[PREFIX - 1 : -1]]))

    def after(self, block: int) -> bool:
        """Whether the blocks up to one may be left out where its output is known.

        Some models hand on more than the hidden state.

        Args:
            block: Number of the last block that is left out.
        """

        def run() -> Tensor:
            output = captured[block]
            with resume_from(list(self._blocks[: block + 1]), output.output, output.value):
                return self._model(**self._inputs).logits

        if block not in self._after:
            expected, captured = self._whole()
            self._after[block] = _equal(self._model, run, expected)
        return self._after[block]

    @property
    def _inputs(self) -> dict[str, Any]:
        return pad([self._ids], self._device).inputs()

    def _whole(self) -> tuple[Tensor, list[Captured]]:
        """The logits of a whole pass, and what leaves each block in it; anew for each question, as weights change."""
        with frozen(self._model), torch.no_grad(), ExitStack() as stack:
            captured = [stack.enter_context(capture_output(block)) for block in self._blocks]
            return self._model(**self._inputs).logits, captured


def _equal(model: Any, run: Callable[[], Tensor], expected: Tensor) -> bool:
    try:
        with frozen(model), torch.no_grad():
            found = run()
    # Whatever a model's own code raises where it is handed a state that it does not know.
    except Exception as error:  # noqa: BLE001
        logger.debug("%s cannot be resumed there: %r", type(model).__name__, error)
        return False
    tolerance = max(ROUNDING * torch.finfo(expected.dtype).eps, TOLERANCE)
    return found.shape == expected.shape and bool((found - expected).norm() <= tolerance * expected.norm())
