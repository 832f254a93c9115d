"""Tasks of running text: how well the model predicts it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from lightning_edit.asking.tokenization import encode
from lightning_edit.distributed.process_group import in_shares
from lightning_edit.downstream.rows import Row, Table
from lightning_edit.downstream.task import Fitting, Measured, Prepared, Task
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, quoted
from lightning_edit.metrics.perplexity import cut_windows, perplexity_of
from lightning_edit.metrics.token_scores import score_tokens
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.settings import Range


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """Texts that are joined and cut into windows; a test is a window, and shots do not matter.

    Each window is a text of its own, with the leading special tokens that the tokenizer gives a text.

    Args:
        name: See `Task`.
        data: See `Task`.
        text: The column with the texts.
        separator: What stands between two texts.
        window: Most tokens of a window; a shorter context makes it shorter.
    """

    text: str
    separator: str = "\n\n"
    window: Annotated[int, Range(at_least=2)] = 1024

    def __post_init__(self) -> None:
        if self.window < 2:
            raise EditError(f"`window` must be at least 2 tokens, of which one is predicted, got {self.window}.")

    def prepare(self, table: Table, shots: int, tests: int, fitting: Fitting) -> "PreparedText":
        """See `Task.prepare`."""
        size = self.window if fitting.context is None else min(self.window, fitting.context)
        special, ids = self._tokens(table, tests * size, fitting.tokenizer)
        windows = [(row, start) for row, start in cut_windows(ids, special, size)[:tests] if len(row) > start]
        if len(windows) < tests:
            raise EditError(
                f"`tests`: {table.name} has text for {counted(len(windows), 'window')} of {size} tokens, "
                f"but {tests} are to be measured with the task {self.name}. Ask for fewer."
            )
        return PreparedText(self.name, windows)

    def _tokens(self, table: Table, enough: int, tokenizer: Any) -> tuple[list[int], list[int]]:
        """Leading special tokens, and at least so many others as long as there is text."""
        count = min(64, len(table))
        while True:
            texts = [self._text(table[i]) for i in range(count)]
            ids, spans = encode(tokenizer, self.separator.join(text for text in texts if text))
            start = next((i for i, (_, end) in enumerate(spans) if end > 0), len(ids))
            if len(ids) - start >= enough or count == len(table):
                return ids[:start], ids[start:]
            count = min(2 * count, len(table))

    def _text(self, row: Row) -> str:
        text = row[self.text]
        if not isinstance(text, str):
            raise EditError(f"{row.where}: the column `{self.text}` must hold a text, got {quoted(text)}.")
        return text.strip()


class PreparedText(Prepared):
    """Windows of tokens, ready to be predicted.

    Args:
        name: Of the task.
        windows: The tokens of each window, and the first that is predicted there.
    """

    def __init__(self, name: str, windows: Sequence[tuple[list[int], int]]) -> None:
        self.name, self.windows = name, windows

    def measure(self, decoder: Decoder, tokenizer: Any, report: Report) -> Measured:
        """Perplexity exp(sum of NLL / predicted tokens); of the N tokens of a window N - 1 are predicted."""
        return Measured({f"downstream/{self.name}": perplexity_of(torch.cat(self.nll(decoder, report)))})

    def nll(self, decoder: Decoder, report: Report) -> list[Tensor]:
        """For each window the negative log-likelihoods of its predicted tokens, in nats.

        Args:
            decoder: The model as it is now.
            report: Called with the number of tokens that the model has read.
        """

        def score(own: Sequence[tuple[list[int], int]]) -> Tensor:
            rows, starts = zip(*own, strict=True)
            return score_tokens(decoder, rows, starts, report, f"{self.name} (tokens)").log_probs

        log_probs = torch.cat(in_shares(score, self.windows, decoder.model))
        return list((-log_probs).split([len(ids) - start for ids, start in self.windows]))
