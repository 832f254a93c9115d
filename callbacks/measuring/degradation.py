"""Signs of a degrading model: its weights have grown, its perplexity on ordinary text has, or its answers are worse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_edit.callbacks.measuring.collateral import Collateral
from lightning_edit.downstream import Fitting, Source, TextTask
from lightning_edit.downstream.rows import Table, read_jsonl
from lightning_edit.downstream.running_text import PreparedText
from lightning_edit.errors import EditError
from lightning_edit.messages import readable
from lightning_edit.metrics.perplexity import perplexity_error, perplexity_of
from lightning_edit.progress import silent
from lightning_edit.run.edit_callback import EditingRun
from lightning_edit.storage.user.files import check_file, lines_of
from lightning_edit.without_effect import refuse_given

WORSE = "collateral/general_worse"


@dataclass(frozen=True)
class Limits:
    """How far an edited model may be from the unedited one.

    Args:
        growth: The largest |W| / |W0| of an edited layer (Frobenius norms); None for no limit.
        perplexity_factor: The largest perplexity, relative to the unedited model's; None for no limit.
        worse: The largest share of general answers that changed for the worse; None for no limit.
    """

    growth: float | None
    perplexity_factor: float | None
    worse: float | None = None

    def exceeded(self, figures: Mapping[str, Any], unedited_perplexity: float | None) -> dict[str, str]:
        """What is beyond a limit; a figure that is no number is beyond all.

        Args:
            figures: Of the update: ``layer_L/weight_growth`` and, if they were measured, ``perplexity`` and
                ``collateral/general_worse``.
            unedited_perplexity: Of the same text; None if it is not measured.

        Returns:
            For each kind of limit that is exceeded what is to be said.
        """
        messages = {}
        growths = {name: value for name, value in figures.items() if name.endswith("/weight_growth")}
        if self.growth is not None and growths:
            # A figure that is no number compares as neither smaller nor larger.
            worst = max(growths, key=lambda name: float("inf") if growths[name] != growths[name] else growths[name])
            if not growths[worst] <= self.growth:
                layer = worst.split("/")[0].removeprefix("layer_")
                messages["growth"] = (
                    f"the weight of layer {layer} is {readable(growths[worst])} times as large (Frobenius norm) as in "
                    f"the unedited model, more than `watch.max_growth` {self.growth:g}"
                )
        now = figures.get("perplexity")
        if self.perplexity_factor is not None and now is not None and unedited_perplexity is not None:
            factor = now / unedited_perplexity
            if not factor <= self.perplexity_factor:
                error = figures.get("perplexity_stderr")
                spread = "" if error is None else f" ± {readable(error, 2)}"
                messages["perplexity"] = (
                    f"perplexity is {readable(now, 4)}{spread}, {readable(factor)} times the unedited model's "
                    f"{readable(unedited_perplexity, 4)}, more than "
                    f"`watch.max_perplexity_factor` {self.perplexity_factor:g}"
                )
        worse = figures.get(WORSE)
        if self.worse is not None and worse is not None and not worse <= self.worse:
            error = figures.get(f"{WORSE}_stderr")
            spread = "" if error is None else f" ± {100 * error:.1f}"
            messages["worse"] = (
                f"{100 * worse:.1f}{spread} % of the answers to general prompts changed for the worse, more than "
                f"`watch.max_worse` {self.worse:g}"
            )
        return messages


def refuse_without_text(watch: Any, windows: int, perplexity_factor: float | None) -> None:
    """Refuses settings of perplexity where there is no text.

    Args:
        watch: Whose settings they are.
        windows: Its ``perplexity_windows``.
        perplexity_factor: Its ``max_perplexity_factor``; no limit is none with a text either.

    Raises:
        EditError: If one of them was changed.
    """
    limit = {} if perplexity_factor is None else {"max_perplexity_factor": perplexity_factor}
    remedy = "Set `watch.perplexity_file` to ordinary text"
    refuse_given(watch, {"perplexity_windows": windows} | limit, "`watch.perplexity_file: null`", remedy)


def refuse_without_answers(watch: Any, trainer: Any) -> None:
    """Refuses a limit on general answers where no prompt is asked.

    Args:
        watch: Whose limit it is.
        trainer: Whose callbacks ask.

    Raises:
        EditError: If the limit was changed.
    """
    asked = any(isinstance(one, Collateral) and one.active for one in trainer.callbacks)
    if not asked and watch.limits.worse is not None:
        limit = {"max_worse": watch.limits.worse}
        refuse_given(watch, limit, "`collateral.prompts: 0`", "Let `collateral` ask some prompts")


class WatchedText:
    """Ordinary text of which the perplexity is watched.

    Args:
        file: A text file, or ``.jsonl`` with a field ``text``.
        windows: How many windows of the model's context (at most 1024 tokens) to measure.

    Raises:
        EditError: If there is no such file.
    """

    def __init__(self, file: str, windows: int) -> None:
        self.file, self.windows = Path(file).expanduser(), windows
        check_file(self.file, "Watch: `perplexity_file`: ")
        self._prepared: PreparedText | None = None

    def prepare(self, module: EditingRun) -> None:
        """Reads the text and cuts it into windows.

        Args:
            module: Whose tokenizer and context count.

        Raises:
            EditError: If there is too little text, or a line cannot be read.
        """
        task = TextTask(name="perplexity", data=Source(file=str(self.file)), text="text", separator="\n")
        fitting = Fitting(module.tokenizer, module.decoder.context)
        try:
            self._prepared = task.prepare(self._table(), 0, self.windows, fitting)
        except EditError as error:
            raise EditError(
                f"Watch: `perplexity_file`: {str(error).replace('`tests`: ', '')} See `watch.perplexity_windows`."
            ) from error

    def _table(self) -> Table:
        if self.file.suffix == ".jsonl":
            return read_jsonl(self.file)
        lines = list(lines_of(self.file))
        return Table(str(self.file), [{"text": line} for line, _ in lines], [where for _, where in lines])

    def perplexity(self, module: EditingRun) -> tuple[float, float | None]:
        """Of the model as it is now, and its standard error over the windows; see `TextTask`.

        Args:
            module: The module for which it was prepared.
        """
        assert self._prepared is not None
        nll = self._prepared.nll(module.decoder, silent)
        return perplexity_of(torch.cat(nll)), perplexity_error(nll)
