"""What one call has made of a model: the update, its figures, and the model before and after it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning_edit.api.figures import Figures, Summary
from lightning_edit.api.gguf import GGUFExport, GGUFType, base_file, write_gguf
from lightning_edit.api.writing import Made
from lightning_edit.asking.answers import Answers
from lightning_edit.editor import Editor
from lightning_edit.export.adapter import Adapter, make_adapter
from lightning_edit.export.folder import hub_revision, lora_facts, write_lora
from lightning_edit.export.ranks import RankSettings, RelativeError
from lightning_edit.metrics import EditMetrics, evaluate
from lightning_edit.metrics.settings import TEACHER_FORCED
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import frozen
from lightning_edit.requests import EditRequest
from lightning_edit.settings import Count, check
from lightning_edit.solvers import Factors
from lightning_edit.storage.user.files import path_of
from lightning_edit.updates.before_after import BeforeAfter
from lightning_edit.updates.files.update_form import EDIT_FIELDS
from lightning_edit.updates.levels import Part, edited_modules, total_of
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.shown import Added, added_now, shown


class EditResult(ModelUpdate):
    """What a call of `edit` has made: an update with the model that it was made for.

    *Before* is the model as the call found it and *after* as the call left it, whether the update is in the model by
    now or not, and whatever later calls have done. The model is left as it is.

    Args:
        update: The update.
        decoder: The model; it is kept in memory as long as this is.
        tokenizer: Its fast tokenizer, or a `ChatTokenizer`, which asks in a chat.
        requests: The edits in it, as far as they are known.
        there: What the call found in the model's weights, see `added_now`; what is there now if not given.
        made: What else is known of the edits.
    """

    def __init__(
        self,
        update: ModelUpdate,
        decoder: Decoder,
        tokenizer: Any,
        requests: Sequence[EditRequest] = (),
        there: Mapping[str, Added] | None = None,
        made: Made | None = None,
    ) -> None:
        super().__init__(update.layers, update.info, update._identity, update._inserted)
        self._decoder, self._tokenizer, self._requests = decoder, tokenizer, requests
        self._found = dict(added_now(decoder.model) if there is None else there)
        self._made = made or Made()

    @staticmethod
    def of(editor: Editor, requests: Sequence[EditRequest], made: Made, there: Mapping[str, Added]) -> "EditResult":
        """The result of a call whose edits are in the weights, from now on known to be there.

        Args:
            editor: Wrote the edits.
            requests: The edits.
            made: What was written.
            there: What was in the model's weights before.
        """
        weights = editor.weights
        layers = {layer: weights.described(layer, factors) for layer, factors in sorted(made.factors.items())}
        update = ModelUpdate(layers, {**editor.describe(), "edits": len(made.requests)})
        result = EditResult(update, weights.decoder, editor.tokenizer, requests, there, made)
        result.register(weights.decoder.model, weights.bases)
        return result

    @property
    def decoder(self) -> Decoder:
        """The model."""
        return self._decoder

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, or a `ChatTokenizer`, which asks in a chat."""
        return self._tokenizer

    @property
    def requests(self) -> Sequence[EditRequest]:
        """The edits, as far as they are known."""
        return self._requests

    def __repr__(self) -> str:
        """What it is, in one line."""
        return f"{super().__repr__()[:-1]}, {'in the model' if self.is_inserted else 'removed'})"

    def _part(self, layer: int) -> Part:
        return Part(self.layers[layer].factors, self._made.keys.get(layer), self._made.facts, self._made.statistics)

    @property
    def is_inserted(self) -> bool:
        """Whether it is in its model."""
        return any(levels.has(self._identity) for _, levels in edited_modules(self._decoder.model).values())

    def insert(self, model: Any = None) -> None:
        """Puts the update into the weights again, see `ModelUpdate.insert`.

        Args:
            model: The model; that of the call if not given.

        Raises:
            EditError: If it is there already, or the weights are others.
        """
        super().insert(self._decoder.model if model is None else model)

    def remove(self, model: Any = None, base: Any = None) -> None:
        """Takes the update out of the weights, bit for bit; later and earlier calls' edits stay.

        What later calls have written was found with this update in the weights, and is not found anew.

        Args:
            model: The model; that of the call if not given.
            base: See `ModelUpdate.remove`.

        Raises:
            EditError: If it is not in the model, or the weights were changed by something else since.
        """
        super().remove(self._decoder.model if model is None else model, base)

    # -- before and after ----------------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Figures:
        """Figures of the edits before them: measured by teacher forcing when they are first asked for, then kept."""
        return self._measured(edited=False)

    @cached_property
    def after(self) -> Figures:
        """Figures of the edits after them: measured by teacher forcing when they are first asked for, then kept.

        Efficacy is there for all edits, paraphrase, neighborhood and locality where the requests have such prompts, and
        scores beside accuracies where they have a ``target_true``; see `EditMetrics`.
        """
        return self._measured(edited=True)

    def summary(self) -> Summary:
        """The figures before and after the edits in percent, printed as a table."""
        return Summary(self.before, self.after, int(self.info.get("edits", len(self._requests))))

    def ask(self, question: str, tokens: Count = 128) -> Answers:
        """What the model says before and after the edits, the likeliest answers; each question stands for itself.

        Args:
            question: In a chat the text of the user's turn, else a prompt that the model continues.
            tokens: Most tokens of an answer.

        Returns:
            An object with the texts ``before`` and ``after``, printed as a table of both side by side.

        Raises:
            EditError: If the question is empty or too long for the model, or the weights were changed by something
                else since.
        """
        check(EditResult.ask, {"tokens": tokens})
        return _AsMade(self, tokens).ask(question)

    def _measured(self, edited: bool) -> Figures:
        metrics = EditMetrics(sync_on_compute=False)
        with self.as_made(edited) as instead:
            how = (metrics, TEACHER_FORCED, lambda: instead(False))
            records = evaluate(self._decoder, self._tokenizer, self._requests, *how)
        return Figures({name: float(value) for name, value in metrics.compute().items()}, records)

    @contextmanager
    def as_made(self, edited: bool) -> Iterator[Callable[[bool], AbstractContextManager[None]]]:
        """The model as the call found it, or left it, for a block.

        Args:
            edited: Whether as the call left it.

        Yields:
            What shows the model in the other way, or the same, for a block within.
        """
        model = self._decoder.model
        with shown(model, self._state(edited)) as instead, frozen(model):
            yield lambda other: instead(self._state(other))

    def _state(self, edited: bool) -> dict[str, Added]:
        """What was in each weight before or after the call."""
        state = dict(self._found)
        for update in self.layers.values():
            there = state.get(update.module)
            total = there.total if there is not None and there.base == update.base else None
            if edited:
                parts: dict[str, Factors] = {} if total is None else {"earlier": total}
                total = total_of({**parts, "own": update.factors})
            state[update.module] = Added(update.base, total)
        return state

    # -- what is kept of it --------------------------------------------------------------------------------------------

    def to_lora(
        self,
        folder: str | Path,
        rank: Count | None = None,
        max_error: RelativeError | None = None,
        pad_rank: Count | Literal["auto", "none"] = "auto",
    ) -> Adapter:
        """Writes the update as a LoRA adapter for PEFT, vLLM and others, with a model card.

        It is put on the model as it was before this update: ``PeftModel.from_pretrained(base, folder)``.

        Args:
            folder: A new folder.
            rank: See `RankSettings`.
            max_error: The same.
            pad_rank: The same.

        Returns:
            What was written; its ``ranks`` hold for each matrix the rank and the relative error.

        Raises:
            EditError: If the folder holds something, the update is not of matrices, or a rank is too small.
        """
        place, settings = path_of(folder, "folder", "lora"), RankSettings(rank, max_error, pad_rank)
        model = self._decoder.model
        if not self.is_inserted:
            self.check(model)
        adapter = make_adapter(model, {one.module: one.factors for one in self.layers.values()}, settings)
        base = str(self.info.get("model") or "")
        facts = lora_facts(adapter, base, hub_revision(model), self.info, self._edits())
        write_lora(place, adapter, facts)
        return adapter

    def to_gguf(
        self,
        folder: str | Path,
        base: str | Path | None = None,
        gguf_type: GGUFType = "auto",
        max_error: RelativeError | None = None,
    ) -> GGUFExport:
        """Writes the GGUF file that the model was read from with the update in it, and a model card.

        All but the edited matrices is copied byte for byte. Edits of earlier calls are not in the file.

        Args:
            folder: A new folder.
            base: The GGUF file; if not given, the only one in the folder that the model was read from.
            gguf_type: What the edited matrices are rounded to; ``auto`` is F16, or F32 where F16 is too coarse.
            max_error: Refuses to round them by more than this, relative to the update; None for any that leaves it.

        Returns:
            The ``path`` of the file, and for each matrix what rounding left of its update, ``rounded``.

        Raises:
            EditError: If the package gguf is missing, the folder holds something, the file is not that of the model,
                the edits would not survive, or the weights were changed by something else since.
        """
        check(EditResult.to_gguf, {"gguf_type": gguf_type, "max_error": max_error})
        place, file = path_of(folder, "folder", "gguf"), base_file(base, self.info)
        how = (self._decoder.model, self, self._edits(), self._found, gguf_type, max_error)
        return write_gguf(place, file, *how)

    def _edits(self) -> list[dict[str, str]]:
        return [{name: getattr(request, name) for name in EDIT_FIELDS} for request in self._requests]


class _AsMade(BeforeAfter):
    """Conversations with the model as a call found it and left it."""

    def __init__(self, result: EditResult, tokens: int) -> None:
        super().__init__(result._decoder, result._tokenizer, result, tokens)
        self._result = result

    @contextmanager
    def update_in_model(self, wanted: bool) -> Iterator[None]:
        with shown(self.model, self._result._state(wanted)):
            yield
