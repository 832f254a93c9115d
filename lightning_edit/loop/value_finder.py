"""The values of edits: looked up or optimized, each process its share of them."""

from collections.abc import Callable, Sequence
from functools import partial

from lightning_edit.distributed.process_group import in_shares, is_sharded
from lightning_edit.editor import Editor
from lightning_edit.progress import Report, silent
from lightning_edit.requests import EditRequest
from lightning_edit.storage.cache import Cache
from lightning_edit.values.cache import cached_values, edited_part, value_parts, weights_of
from lightning_edit.values.settings import ValueSettings
from lightning_edit.values.vectors import Values


class ValueFinder:
    """Finds value vectors with an editor, and keeps them in caches where there are any.

    Args:
        editor: Finds what is in no cache.
        caches: Where values are kept, by all that they depend on.
    """

    def __init__(self, editor: Editor, caches: Sequence[Cache]) -> None:
        self.editor, self.caches = editor, caches
        self._parts, self._before = dict[str, str](), dict[str, str]()
        if caches:
            decoder, tokenizer = editor.weights.decoder, editor.tokenizer
            # Values of the edited model are found with what other calls have changed in other places.
            base = editor.unedited if editor.values.weights == "unedited" else editor.weights.unedited
            with base():
                self._parts = value_parts(decoder, tokenizer, editor.templates, editor.value_layer, editor.values)
                self._before = weights_of(decoder, editor.layers)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the unedited model and of the tokenizer, where they are known."""
        return {name: self._parts[name] for name in ("base weights and configuration", "tokenizer") if self._parts}

    def __call__(self, requests: Sequence[EditRequest], report: Report) -> Values:
        """The values of the edits on the model as it is now; all processes must ask for the same.

        Args:
            requests: The edits of a part of a run.
            report: Told about this process's share.

        Returns:
            The values of all of them, in their order, on the model's device.
        """
        decoder = self.editor.weights.decoder
        shares = in_shares(lambda own: self._own(own, report).to("cpu"), requests, decoder.model)
        # What the norm is measured by is shared among the processes, too, so it comes after their shares are joined.
        return self.editor.with_norm(requests, Values.join(shares).to(decoder.device))

    def _own(self, requests: Sequence[EditRequest], report: Report) -> Values:
        if not self.caches:
            return self.editor.find_values(requests, report)
        decoder = self.editor.weights.decoder
        with self.editor.searched():
            parts = self._parts | edited_part(decoder, self.editor.layers, self._before)
            return cached_values(
                self.caches,
                parts,
                requests,
                lambda own_report: self.editor.find_values(requests, own_report),
                report,
                decoder.device,
                is_sharded(decoder.model),
            )[0]


def value_caches(settings: ValueSettings) -> list[Cache]:
    """Where values are kept, as the settings say it.

    Args:
        settings: See `ValueSettings`.
    """
    return [] if settings.cache_dir is None else [Cache(settings.cache_dir)]


def silent_finder(editor: Editor, caches: Sequence[Cache]) -> Callable[[Sequence[EditRequest]], Values]:
    """Finds values with an editor, or in caches, and shows nothing.

    Args:
        editor: See `ValueFinder`.
        caches: See `ValueFinder`.
    """
    return partial(ValueFinder(editor, caches), report=silent)
