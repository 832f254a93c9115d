"""HalluEditBench (Huang et al., 2025): facts that a model got wrong, with questions of eleven kinds about each."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import case_id, first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.ripple_fields import forms_of, simple_ripple
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.requests import EditRequest
from lightning_edit.ripples import Ripple

HOPS = (2, 3, 4, 5, 6)
YES_NO = ("Yes", "No")
LETTERS = ("A", "B", "C", "D")
UNRELATED = "unrelated"


class HalluEditBench(RecordDataModule):
    """HalluEditBench's rows, CSV files by topic: ``question`` with the ``subject`` in it, and the right ``object``.

    ``paraphrased_question`` is another wording. Tests are, on axes of their own: ``yes_question`` and ``no_question``
    (``yes_no``), ``multiple_choice_with_letters`` after the question (``multiple_choice``),
    ``reversed_relation_question``, which asks for the subject, ``question_2hop`` to ``question_6hop``
    (``multi_hop_2`` and so on), and ``locality_question``, which has no answer: it is compared with what the unedited
    model replies (``unrelated``). Of the first two axes the answer is the first choice that a reply names. Empty cells
    are no tests. A row whose question does not hold the subject is left out, with a warning that counts them. `limit`
    and the others choose rows of all files of a folder.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("subject", "object", "question")
    typical = ("subject", "relation", "object", "question")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        name, subject, target = case_id(record, position), _text(record, "subject"), _text(record, "object")
        place = self.cut_out(required_text(record, "question"), subject)
        if place is None:
            return LeftOut("their question does not hold their subject", case_id=name)
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=target,
            case_id=name,
            paraphrase_prompts=texts(record, "paraphrased_question"),
            ripples=tuple(_tests(record, subject)),
        )


def _tests(record: Mapping[str, Any], subject: str) -> list[Ripple]:
    choices = first_text(record, "multiple_choice_with_letters")
    labels = forms_of(record.get("multiple_choice_labels"), "multiple_choice_labels")
    letters = tuple(dict.fromkeys((*LETTERS, *labels)))
    asked: list[tuple[str, str | None, tuple[str, ...], tuple[str, ...]]] = [
        ("yes_no", first_text(record, "yes_question"), ("Yes",), YES_NO),
        ("yes_no", first_text(record, "no_question"), ("No",), YES_NO),
        ("multiple_choice", choices and f"{record['question'].strip()} {choices}", labels, letters),
        ("reversed_relation", first_text(record, "reversed_relation_question"), (subject,), ()),
    ]
    for hops in HOPS:
        answers = forms_of(record.get(f"answer_{hops}hop"), f"answer_{hops}hop")
        asked.append((f"multi_hop_{hops}", first_text(record, f"question_{hops}hop"), answers, ()))
    tests = [
        simple_ripple(axis, prompt, forms, choices=named) for axis, prompt, forms, named in asked if prompt and forms
    ]
    unrelated = first_text(record, "locality_question")
    return tests + ([simple_ripple(UNRELATED, unrelated, (), kept=True)] if unrelated else [])


def _text(record: Mapping[str, Any], field: str) -> str:
    """A cell, which may be a number where a file's types were guessed."""
    forms = forms_of(record[field], field)
    return required_text({field: forms[0] if forms else None}, field)
