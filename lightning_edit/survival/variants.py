"""The variants of an edited model: what each is called, and by what its result is told from others."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, get_args

from lightning_edit.loading.quantization import LIBRARIES, method_of
from lightning_edit.loading.weight_forms import Quantization
from lightning_edit.messages import counted
from lightning_edit.survival.settings import SurvivalSettings

Kind = Literal["edited", "base", "quantized", "lora", "merged"]
# What a number of bits stands for: the first whose library is installed.
BITS = {"8-bit": ("bnb-8bit", "torchao-int8"), "4-bit": ("bnb-4bit",)}
# By these a fine-tuning is told from others.
OF_LORA = ("steps", "rank", "alpha", "lr", "batch_size", "length", "text_tokens", "about_edits", "seed")


@dataclass(frozen=True)
class Variant:
    """One variant.

    Args:
        kind: What is done.
        name: What it is called, also in files.
        title: The same in words, for a table.
        settings: What its result depends on.
    """

    kind: Kind
    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def variants_of(settings: SurvivalSettings) -> list[Variant]:
    """The variants that are asked for, in the order of the table.

    Args:
        settings: What is asked for.
    """
    return [variant for name in settings.variants for variant in _named(name, settings)]


def _named(name: str, settings: SurvivalSettings) -> Sequence[Variant]:
    if name == "edited":
        return [Variant("edited", name, "edited")]
    if name == "base":
        return [Variant("base", name, "base")]
    if name == "lora":
        given = {key: value for key, value in asdict(settings).items() if key in OF_LORA}
        return [Variant("lora", name, f"LoRA, {counted(settings.steps, 'step')}", given)]
    if name == "merged":
        # In full, as results are kept under the name.
        weights = {repr(float(weight)).removesuffix(".0"): float(weight) for weight in settings.weights}
        return [Variant("merged", f"merged-{w}", f"merged, {w}", {"weight": value}) for w, value in weights.items()]
    quantization = _library_for(BITS[name]) if name in BITS else name
    title = f"{name} ({quantization})" if name in BITS else quantization
    return [Variant("quantized", name, title, {"quantization": quantization})]


def _library_for(choices: Sequence[str]) -> str:
    """The first quantization whose packages are installed; where none is, the first, which is refused by name."""
    assert set(choices) <= set(get_args(Quantization))
    there = (one for one in choices if all(map(find_spec, LIBRARIES[method_of(one)].packages)))
    return next(there, choices[0])
