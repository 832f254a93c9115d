"""In what unit a figure is shown, and which of two is the better one: told from its name."""

import re
from dataclasses import dataclass

from lightning_edit.messages import readable

SHARES = re.compile(
    r"(^|_)(S|score|magnitude|accuracy|unchanged|match|generated_paraphrase|rouge_l|exact|reliability|generalization|locality|kept|said|f1|mcc|matthews|correlation|acc|acc_norm)$"
)
HARM = re.compile(r"(^|_)(changed|worse|lost|invalid)$")
# The second line has those of lm-evaluation-harness, whose task files say of each whether higher is better.
SMALL_IS_GOOD = re.compile(
    r"perplexity|essence_score|loss|nll|(^|_)kl($|_)|error"
    r"|bits_per_byte|brier|likelihood_diff|pct_stereotype|toxicity|(^|_)(ter|wer|cer|mse|mae|rmse|ece)$"
)


@dataclass(frozen=True)
class Quantity:
    """How a figure is shown.

    Args:
        title: Its name in words.
        unit: Its unit, empty if it has none.
        factor: By which the stored value is multiplied.
        precision: A format of the shown value, such as ``.1f``; empty for four significant digits.
        lower_is_better: Whether the smallest value is the best.
    """

    title: str
    unit: str
    factor: float
    precision: str
    lower_is_better: bool

    @property
    def heading(self) -> str:
        """Name and unit, for an axis or a column."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def text(self, value: float, stderr: float | None = None) -> str:
        """A stored value as it is shown.

        Args:
            value: As it is stored.
            stderr: Its standard error, if known.
        """
        shown = self._number(value)
        return shown if stderr is None else f"{shown} ±{self._number(stderr)}"

    def _number(self, value: float) -> str:
        value *= self.factor
        return f"{value:{self.precision}}" if self.precision else readable(value, 4)


def figure_of(name: str) -> str:
    """The name without what it was measured on; lm-evaluation-harness may say after it how answers were read.

    Args:
        name: As in ``metrics.json``, e.g. ``harness/gsm8k/exact_match/strict-match``.
    """
    parts = name.split("/")
    return parts[2] if parts[0] == "harness" and len(parts) == 4 else parts[-1]


def quantity(name: str) -> Quantity:
    """How the figure of this name is shown: shares in percent, entropies in bits, all else as it is.

    Args:
        name: As in ``metrics.json``, e.g. ``efficacy_score`` or ``downstream/sst/label_accuracy``.
    """
    leaf, title = figure_of(name), name.replace("/", " ").replace("_", " ")
    if "entropy" in leaf:
        return Quantity(title, "bits", 1.0, ".2f", False)
    if HARM.search(leaf):
        return Quantity(title, "%", 100.0, ".1f", True)
    if SMALL_IS_GOOD.search(leaf):
        unit = "perplexity" if leaf == "essence_score" else ""
        return Quantity(title, unit, 1.0, "", True)
    if SHARES.search(leaf):
        return Quantity(title, "%", 100.0, ".1f", False)
    return Quantity(title, "", 1.0, "", False)
