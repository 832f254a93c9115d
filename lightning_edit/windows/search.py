"""The values of windows: those of one text one after the other, those of several texts at once."""

from collections.abc import Sequence
from functools import partial

import torch

from lightning_edit.distributed.process_group import in_shares
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.out_of_memory import halving
from lightning_edit.progress import Report, silent
from lightning_edit.values.held import Held
from lightning_edit.values.optimize import search_values
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values
from lightning_edit.windows.texts import WindowedText


def window_values(
    decoder: Decoder,
    texts: Sequence[WindowedText],
    layer: int,
    settings: ValueSettings,
    at_once: int,
    report: Report = silent,
) -> list[Values]:
    """Finds a value for each window of each text, with those of the windows before it in their places.

    Round j searches for the values of the j-th windows, see `search_values`. What the earlier ones change is then in
    the cache of all that stands before the window, so a step runs the tokens of the window alone.

    Args:
        decoder: The model as it is.
        texts: The same in every process.
        layer: The block where values are added.
        settings: How they are searched for; there is no KL prompt.
        at_once: Texts whose values are searched for together.
        report: Called with the number of texts done by this process, and the loss.

    Returns:
        For each text the values of its windows.
    """
    job = partial(_of_share, decoder, layer=layer, settings=settings, at_once=at_once, report=report)
    return [values for share in in_shares(job, texts, decoder.model) for values in share]


def _of_share(
    decoder: Decoder,
    texts: Sequence[WindowedText],
    layer: int,
    settings: ValueSettings,
    at_once: int,
    report: Report,
) -> list[Values]:
    # Texts with as many windows go together, so that few are left alone with their last ones.
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i].windows))
    found: dict[int, Values] = {}

    def run(chosen: Sequence[int]) -> tuple[Sequence[int], list[Values]]:
        def show(stage: str, done: float, total: float, **figures: float) -> None:
            report(stage, len(found) + done, len(texts), **figures)

        return chosen, _together(decoder, [texts[i] for i in chosen], layer, settings, show)

    for first in range(0, len(order), at_once):
        for part, values in halving(run, order[first : first + at_once], decoder.model):
            found.update(zip(part, values, strict=True))
    return [found[i].to("cpu") for i in range(len(texts))]


def _together(
    decoder: Decoder, texts: Sequence[WindowedText], layer: int, settings: ValueSettings, report: Report
) -> list[Values]:
    """Round after round, each with the texts that have so many windows."""
    found: list[list[Values]] = [[] for _ in texts]
    windows = sum(len(text.windows) for text in texts)
    for window in range(max(len(text.windows) for text in texts)):
        chosen = [i for i, text in enumerate(texts) if len(text.windows) > window]
        rows = [(row, texts[i].up_to(window)) for row, i in enumerate(chosen)]
        held = [_held(texts[i], found[i]) for i in chosen] if window else None
        show = partial(_of_all, report, sum(map(len, found)), len(texts) / windows)
        values = search_values(decoder, rows, 1, layer, settings, show, held=held)
        for row, i in enumerate(chosen):
            found[i].append(values.where(torch.tensor([row])))
    return [Values.join(of_text) for of_text in found]


def _of_all(report: Report, before: int, share: float, stage: str, done: float, total: float, **figures: float) -> None:
    """Reports the windows of one round as texts, ``share`` of one each."""
    report(stage, (before + done) * share, total, **figures)


def _held(text: WindowedText, found: Sequence[Values]) -> Held:
    deltas = torch.cat([values.z - values.z0 for values in found])
    return torch.tensor(text.places[: len(found)]), deltas
