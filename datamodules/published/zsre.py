"""zsRE in MEND's format (Mitchell et al., 2022): questions, their answers, and an unrelated question each."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from lightning_edit.datamodules.fields import case_id, first_text, required_first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.settings import SOURCE

Target = Literal["answers", "alt"]


class ZsRE(RecordDataModule):
    """zsRE records: ``subject``, ``src``, ``answers``, ``alt``, ``rephrase``, ``loc`` and ``loc_ans``.

    The prompt is the question ``src`` with ``{}`` in the place of the subject; a subject that stands there in another
    case is taken as it stands (see `cut_out`). The answer follows after a space. Records whose question does not hold
    the subject are left out, with a warning that counts them, and with ``target: alt`` also those whose alternative is
    empty or the right answer.

    The unrelated question is ``loc`` with a question mark, as in MEMIT's published code, whose data has none. The
    position of a record is its ``case_id``, as there.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        target: The answer to write: ``answers``, the first right one (ROME, MEMIT), or ``alt``, the other one (MEND,
            EasyEdit), with the first right answer as the true target.
        kwargs: See `RecordDataModule` and `EditDataModule`.

    Raises:
        EditError: If `target` is neither.
    """

    required = ("subject", "src", "answers")

    def __init__(self, path: Annotated[str, SOURCE], target: Target = "answers", **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        self.target = target

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        name, answer = case_id(record, position), required_first_text(record, "answers")
        place = self.cut_out(required_text(record, "src"), required_text(record, "subject"))
        if place is None:
            return LeftOut("their question does not hold their subject", case_id=name)
        target, true = answer, None
        if self.target == "alt":
            if "alt" not in record:
                raise EditError("the field 'alt' is missing, which `data.target: alt` writes.")
            target, true = first_text(record, "alt") or "", answer
            if target.strip() in ("", answer.strip()):
                return LeftOut("their `alt` is empty or the right answer (`target: alt`)", case_id=name)
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=target,
            target_true=true,
            case_id=name,
            paraphrase_prompts=texts(record, "rephrase"),
            locality=_locality(record),
        )


def _locality(record: Mapping[str, Any]) -> Any:
    question, answer = first_text(record, "loc"), first_text(record, "loc_ans")
    if question is None or answer is None:
        return ()
    return ((f"{question.rstrip().removesuffix('?')}?", answer),)
