"""FEVER (Thorne et al., 2018) as MALMEN edits it (Tan et al., 2024): claims that should be held true, or false."""

from collections.abc import Mapping
from typing import Annotated, Any

from lightning_edit.datamodules.fields import case_id, first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest
from lightning_edit.settings import SOURCE

SUPPORTS, REFUTES = "SUPPORTS", "REFUTES"


class FEVER(RecordDataModule):
    """FEVER's records: a claim ``prompt`` and its new verdict ``alt``, ``SUPPORTS`` or ``REFUTES``.

    ``equiv_prompt`` are other wordings of the claim, ``unrel_prompt`` is another claim with its verdict ``unrel_ans``.
    A classifier is edited in the paper; a language model is asked and says a word. There is no subject, so values come
    from gradients: `Gradient`.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        asked: How a claim is asked about, with one ``{}`` in its place.
        supports: What the model should say of a claim that is true.
        refutes: What it should say of one that is false.
        kwargs: See `RecordDataModule` and `EditDataModule`.

    Raises:
        EditError: If `asked` has no ``{}``, or both words are the same.
    """

    required = ("prompt", "alt")
    typical = ("prompt", "alt", "equiv_prompt")

    def __init__(
        self,
        path: Annotated[str, SOURCE],
        asked: Annotated[str, SOURCE] = "{} True or false? Answer:",
        supports: Annotated[str, SOURCE] = "True",
        refutes: Annotated[str, SOURCE] = "False",
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        if asked.count("{}") != 1:
            raise EditError(f"`data.asked` must hold one {{}} where the claim goes, got {quoted(asked)}.")
        if not supports.strip() or not refutes.strip() or supports.strip() == refutes.strip():
            raise EditError(
                f"`data.supports` and `data.refutes` must be two words, got {quoted(supports)} and {quoted(refutes)}."
            )
        self.asked, self.words = asked, {SUPPORTS: supports, REFUTES: refutes}

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest:
        """One record as an edit; see `RecordDataModule.request`."""
        new = self._word(record, "alt")
        other = next(word for word in self.words.values() if word != new)
        unrelated = first_text(record, "unrel_prompt")
        verdict = None if record.get("unrel_ans") is None else self._word(record, "unrel_ans")
        return EditRequest(
            subject="",
            prompt=self._put(required_text(record, "prompt")),
            target_new=new,
            target_true=other,
            case_id=case_id(record, position),
            paraphrase_prompts=tuple(self._put(claim) for claim in texts(record, "equiv_prompt")),
            locality=((self._put(unrelated), verdict),) if unrelated and verdict else (),
        )

    def _put(self, claim: str) -> str:
        return self.asked.replace("{}", claim.strip())

    def _word(self, record: Mapping[str, Any], field: str) -> str:
        label = record[field]
        if not isinstance(label, str) or label.strip() not in self.words:
            raise EditError(f"`{field}` must be {SUPPORTS} or {REFUTES}, got {quoted(label)}.")
        return self.words[label.strip()]
