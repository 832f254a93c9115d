"""What is done to an edited model to see whether its edits survive, and how much of it."""

from dataclasses import dataclass, field
from typing import ClassVar, get_args

from lightning_edit.errors import EditError
from lightning_edit.loading.weight_forms import Quantization
from lightning_edit.messages import quoted
from lightning_edit.settings import Count, CountOrZero, Positive, Rate, Seed, Settings, Share

# In the order of the table. The numbers of bits stand for whichever library is installed.
VARIANTS = ("edited", "base", "8-bit", "4-bit", "lora", "merged")
KNOWN = (*VARIANTS, *get_args(Quantization))


@dataclass(frozen=True)
class SurvivalSettings(Settings):
    """What is done to the edited model.

    Raises:
        EditError: If a value is out of its range, or a variant is unknown or named twice.
    """

    section: ClassVar[str] = "survival"

    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    """The models that are measured.

    ``edited`` as it is, the unedited ``base``, quantized to ``8-bit`` or ``4-bit`` (or as `Quantization` names it),
    after a fine-tuning with ``lora``, and ``merged`` with the base.
    """

    weights: list[Share] = field(default_factory=lambda: [0.25, 0.5, 0.75])
    """Weights of the edited model where it is merged: W = W0 + weight (W_edited - W0)."""

    steps: Count = 100
    """Steps of the fine-tuning."""

    rank: Count = 8
    """r of its LoRA adapters, which are put on all linear maps of the blocks."""

    alpha: Positive = 16.0
    """The adapters are scaled by alpha / rank."""

    lr: Rate = 2e-4
    """Learning rate of AdamW."""

    batch_size: Count = 8
    """Rows of text in a step."""

    length: Count = 128
    """Tokens of a row, at most the model's context."""

    text_tokens: Count = 20_000
    """How much ordinary text is read for the fine-tuning; with more steps it is read again."""

    about_edits: bool = False
    """Whether text that names the subject of an edit is read too, which may well say what was true before."""

    perplexity_tokens: CountOrZero = 2_000
    """On how much other text perplexity is measured; 0 for none."""

    seed: Seed = 0
    """Of the adapters, the order of the text, and the text where the model writes it itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = next((name for name in self.variants if name not in KNOWN), None)
        if unknown is not None:
            raise EditError(f"There is no variant {quoted(unknown)}. There are: {', '.join(KNOWN)}.")
        for name, values in (("variants", self.variants), ("weights", self.weights)):
            if len(set(values)) < len(values):
                raise EditError(f"`{name}` holds something twice: {', '.join(map(str, values))}.")
        if not self.variants:
            raise EditError(f"`variants` names nothing. There are: {', '.join(KNOWN)}.")
        if "merged" in self.variants and not self.weights:
            raise EditError("`weights` is empty, and `merged` needs one: give some from 0 to 1, or leave `merged` out.")
        if self.length < 2:
            raise EditError(f"`length` must leave a token to predict: give 2 or more, got {self.length}.")
