"""KnowEdit (Zhang et al., 2024): recent facts, counterfactual ones, zsRE and WikiBio, with tests of what follows."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, first_text, required_first_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.ripple_fields import grouped, simple_ripple
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Ripple

# The subset WikiBio has other names.
SUBJECT, PROMPT, TARGET = ("subject", "concept"), ("prompt", "text"), ("target_new", "labels")


class KnowEdit(RecordDataModule):
    """KnowEdit's records: a complete ``prompt`` that holds the ``subject``, ``target_new``, and tests.

    ``portability`` and ``locality`` are ``{axis: [{"prompt", "ground_truth"}, ...]}``: an answer is a text, or lists of
    texts in lists, all of which are accepted; the first is the usual one. What follows from the edit are the axes of
    portability. A test of them without an answer is left out, with a warning that counts them. Those of locality should
    stay; one without an answer is compared with what the unedited model replies. Those with an answer are ``locality``
    pairs as well.

    WikiBio has ``concept``, ``text`` and ``labels`` in place of subject, prompt and target, which is a long one. A
    record whose prompt does not hold the subject is left out, with a warning that counts them.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ()
    typical = ("prompt", "target_new", "portability", "locality")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        subject, prompt, target = (_one_of(record, names) for names in (SUBJECT, PROMPT, TARGET))
        name, place = case_id(record, position), self.cut_out(prompt, subject)
        if place is None:
            return LeftOut("their prompt does not hold their subject", case_id=name)
        pairs = [(asked, forms[0]) for _, asked, forms in grouped(record, "locality") if forms]
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=target,
            target_true=first_text(record, "ground_truth"),
            case_id=name,
            paraphrase_prompts=texts(record, "rephrase") or texts(record, "rephrase_prompt"),
            locality=tuple(pairs),
            ripples=(*self._following(record), *_kept(record)),
        )

    def _following(self, record: Mapping[str, Any]) -> list[Ripple]:
        tests = []
        for axis, prompt, forms in grouped(record, "portability"):
            if forms:
                tests.append(simple_ripple(axis, prompt, forms))
            else:
                one, many = "portability prompt without an answer is", "portability prompts without an answer are"
                self.note(f"{one} left out", f"{many} left out", prompt)
        return tests


def _kept(record: Mapping[str, Any]) -> list[Ripple]:
    return [simple_ripple(axis, prompt, forms, kept=True) for axis, prompt, forms in grouped(record, "locality")]


def _one_of(record: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The first of two fields that a record has, as a text."""
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        raise EditError(f"the field {names[0]!r} is missing ({names[1]!r} in WikiBio).")
    return required_first_text(record, name)
