"""The second moments of ordinary text, of keys alone or of output gradients as well, from the cache or computed."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from lightning_edit.distributed.process_group import first_of_machine, gathered
from lightning_edit.errors import EditError
from lightning_edit.keys.moment_pass import PartialSums, compute_second_moments
from lightning_edit.keys.output_moment import compute_both_moments
from lightning_edit.loading.fingerprints import describe_numerics, fingerprint_model
from lightning_edit.models.decoder import Decoder
from lightning_edit.progress import Report
from lightning_edit.solvers.base import Solver
from lightning_edit.storage.cache import Cache
from lightning_edit.storage.fingerprint import fingerprint

KIND, KEY, OUTPUT = "second-moment", "second_moment", "output_moment"
# To be raised whenever `compute_second_moments`, or `compute_both_moments`, comes to give other numbers for the same
# input. Keys of a pass that has gradients may be rounded in another way, so each has files of its own.
METHOD, BOTH = "second moment 3", "second moments of keys and output gradients 1"


class Moments(Mapping[int, Tensor]):
    """The second moments of the edited layers: C ``(d_in, d_in)`` of each, of E experts ``(E, d_in, d_in)``.

    Args:
        of_keys: C of each layer, in float64.
        outputs: B ``(d_out, d_out)`` of each layer, where it was asked for.
    """

    def __init__(self, of_keys: Mapping[int, Tensor], outputs: Mapping[int, Tensor] | None = None) -> None:
        self._of_keys, self.outputs = of_keys, outputs or {}

    def __getitem__(self, layer: int) -> Tensor:
        return self._of_keys[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._of_keys)

    def __len__(self) -> int:
        return len(self._of_keys)


def check_outputs(source: str, solver: Solver) -> None:
    """Refuses to take output gradients from no text.

    Args:
        source: Of the second moments.
        solver: That of the run.

    Raises:
        EditError: Says what would work.
    """
    if solver.needs_output_moment and source != "text":
        name = type(solver).__name__
        raise EditError(
            f"{name} weighs output directions by gradients on ordinary text, and with `second_moment.source: {source}` "
            "no text is read. Set it to text, or `solver` to MEMIT."
        )


def text_moments(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    cache_dir: str | None,
    report: Report,
    outputs: bool = False,
) -> Moments:
    """The second moments of the rows, from the cache where they are there already.

    Args:
        decoder: The model.
        rows: Token ids of ordinary text, the same in every process.
        layers: The layers wanted.
        cache_dir: Folder of the cache; None for none.
        report: Called with the number of tokens done.
        outputs: Whether output gradients are counted as well, which takes a backward pass.

    Raises:
        EditError: If another process failed, or no gradient comes back to a layer.
    """
    if cache_dir is None:
        found = _computed(decoder, rows, layers, report, outputs, None)
    else:
        found = _cached(decoder, rows, layers, Cache(cache_dir), report, outputs)
    keys = {layer: tensors[KEY] for layer, tensors in found.items()}
    return Moments(keys, {layer: tensors[OUTPUT] for layer, tensors in found.items()} if outputs else None)


def _computed(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    report: Report,
    outputs: bool,
    kept: PartialSums | None,
) -> dict[int, dict[str, Tensor]]:
    if not outputs:
        return {layer: {KEY: c} for layer, c in compute_second_moments(decoder, rows, layers, report, kept).items()}
    both = compute_both_moments(decoder, rows, layers, report, kept)
    return {layer: {KEY: c, OUTPUT: b} for layer, (c, b) in both.items()}


def _cached(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    cache: Cache,
    report: Report,
    outputs: bool,
) -> dict[int, dict[str, Tensor]]:
    parts = {
        "weights": fingerprint_model(decoder.model),
        "text": fingerprint(*rows),
        "numerics": describe_numerics(decoder.model),
        "method": BOTH if outputs else METHOD,
    }
    model, tokens = getattr(decoder.model, "name_or_path", ""), sum(map(len, rows))
    names = {layer: fingerprint(*parts.values(), decoder.names[layer]) for layer in layers}
    read = {layer: cache.read(KIND, names[layer]) for layer in layers}
    moments = {layer: tensors for layer, tensors in read.items() if tensors is not None}
    # Other processes may see another disk, or look at it at another time.
    missing = [layer for layer in layers if any(layer not in there for there in gathered(list(moments)))]
    if missing:
        described = {"model": model, "tokens": tokens, "parts": parts}
        # Processes of one machine share its disk.
        writes = first_of_machine()
        kept = PartialSums(cache, fingerprint(*(names[layer] for layer in missing)), described)
        for layer, tensors in _computed(decoder, rows, missing, report, outputs, kept).items():
            moments[layer] = tensors
            if writes:
                described = {"model": model, "module": decoder.names[layer], "tokens": tokens, "parts": parts}
                cache.write(KIND, names[layer], tensors, described)
        # Those who are done wait for the one who writes.
        gathered(None)
        kept.forget()
    waiting = decoder.waiting_device
    return {layer: {name: t.to(waiting) for name, t in moments[layer].items()} for layer in layers}
