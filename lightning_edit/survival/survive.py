"""Measures an edited model after what happens to models that are deployed, one variant after the other."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import one_line
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report, silent
from lightning_edit.survival.bench import Bench
from lightning_edit.survival.fine_tuning import check_peft, fine_tuned
from lightning_edit.survival.measuring import Measures, Unedited
from lightning_edit.survival.quantized import check_unquantized, quantized
from lightning_edit.survival.results import Result, SurvivalFile
from lightning_edit.survival.settings import SurvivalSettings
from lightning_edit.survival.text import OrdinaryText
from lightning_edit.survival.variants import Variant

# What libraries raise where a model, a device or a package does not do what is asked; the next variant may.
FAILURES = (
    *(EditError, RuntimeError, ValueError, TypeError, AttributeError, KeyError, ImportError, OSError),
    *(MemoryError, NotImplementedError, AssertionError),
)


@dataclass(frozen=True)
class UnderTest:
    """A model that is measured now.

    Args:
        decoder: The model.
        unedited: Makes a context in which it is as before editing; None where there is none.
        is_base: Whether it is the unedited model.
        notes: What else is known of it.
    """

    decoder: Decoder
    unedited: Unedited | None = None
    is_base: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def survive(
    bench: Bench,
    variants: Sequence[Variant],
    measures: Measures,
    text: OrdinaryText,
    settings: SurvivalSettings,
    kept: SurvivalFile,
    report: Report = silent,
) -> list[Result]:
    """Measures all variants that were not measured before; each is kept before the next one begins.

    Those for which the base model has to be let go come last. Whatever stops one variant, the others are measured.

    Args:
        bench: The run's model and edits.
        variants: What is done to them.
        measures: What is measured.
        text: Ordinary text.
        settings: How models are fine-tuned.
        kept: Results of before.
        report: Called with the progress of each variant.

    Returns:
        The results in the order of the variants.
    """
    results = {variant.name: kept.get(variant) for variant in variants}
    for variant in sorted(variants, key=lambda one: one.kind == "quantized"):
        if results[variant.name] is None:
            try:
                result = _measured(bench, variant, measures, text, settings, kept.path.parent, report)
            except FAILURES as error:
                why = _reason(error)
                result = Result(variant.name, variant.title, variant.settings, not_run=why)
            kept.add(result)
            results[variant.name] = result
    return [result for result in results.values() if result is not None]


def _reason(error: BaseException) -> str:
    said = one_line(error)
    return said if isinstance(error, EditError) else f"{type(error).__name__}: {said}"


def _measured(
    bench: Bench,
    variant: Variant,
    measures: Measures,
    text: OrdinaryText,
    settings: SurvivalSettings,
    folder: Path,
    report: Report,
) -> Result:
    start = time.perf_counter()
    with _made(bench, variant, measures.tokenizer, text, settings, folder, report) as made:
        found = measures.measure(made.decoder, variant.name, made.unedited, made.is_base, report)
    seconds = round(time.perf_counter() - start, 3)
    return Result(
        variant.name, variant.title, variant.settings, found.figures, found.answers, seconds, notes=made.notes
    )


@contextmanager
def _made(
    bench: Bench,
    variant: Variant,
    tokenizer: Any,
    text: OrdinaryText,
    settings: SurvivalSettings,
    folder: Path,
    report: Report,
) -> Iterator[UnderTest]:
    """The model of a variant, inside a ``with`` block."""
    if variant.kind == "quantized":
        with quantized(bench, variant.settings["quantization"], folder) as decoder:
            yield UnderTest(decoder)
        return
    if variant.kind == "lora":
        check_peft()
        check_unquantized(bench)
    weight = {"base": 0.0, "merged": variant.settings.get("weight", 1.0)}.get(variant.kind, 1.0)
    with bench.edited(weight) as update:
        decoder = bench.decoder
        if variant.kind == "lora":
            rows = text.rows(tokenizer, settings.length, decoder.context)
            with fine_tuned(decoder, rows, settings, report) as tuned:

                @contextmanager
                def unedited() -> Iterator[None]:
                    with tuned.undone(), bench.without(update):
                        yield

                first, last = float(tuned.losses[0]), float(tuned.losses[-1])
                yield UnderTest(decoder, unedited, notes={"first_loss": first, "last_loss": last, "rows": len(rows)})
            return
        is_base = update is None
        yield UnderTest(decoder, None if is_base else lambda: bench.without(update), is_base)
