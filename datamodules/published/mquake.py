"""MQuAKE (Zhong et al., 2023): cases of one to four edits, and questions over several hops that go through them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from lightning_edit.datamodules.fields import case_id, required_text
from lightning_edit.datamodules.published.cases import instance_wise, multi_hop, new_target_of, rewrites_of, target_of
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.datamodules.whole_cases import WholeCases, refuse_torn_cases, tested
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest
from lightning_edit.settings import SOURCE, Count
from lightning_edit.storage.user.files import read_text


class MQuAKE(WholeCases, RecordDataModule):
    """MQuAKE's cases: CF-3k-v2 (and CF, CF-3k) and T.

    Each entry of ``requested_rewrite`` is an edit, and all edits of a case have its ``case_id`` (its position without).
    The last one brings the tests of the case: ``multi_hop``, for which one of the ``questions`` has to be answered with
    ``new_answer`` or an alias, and ``instance_wise``, for which all of ``new_single_hops`` have to be right. The edits
    themselves are MQuAKE's third figure, the edit-wise one.

    A case is edited as a whole or not at all. Where an edit conflicts, ``conflicts: keep_first`` leaves out all of the
    later case, ``replace`` all of the earlier one if it has several edits, and a warning counts them. `limit`,
    `indices`, `batch_size` and `model.edits_per_update` count edits: a limit ends before a case that does not fit in,
    and `indices` must name all edits of a case, one after the other.

    To edit k cases together, set `edits_per_case` to m and `model.edits_per_update` to k m, or edit all cases in one
    update. Edits that several cases share are made once; with `model.independent_updates` they are in the update of the
    first of these cases only, and tests whose edits are in several updates do not count (``edit_failed``). A test of a
    case counts in ``ripple_AXIS_score`` only if all edits of the case succeeded; the last one that is made brings it.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        edits_per_case: Only cases of so many edits; the others are left out.
        shots: A text file of questions and answers that is put before every question, such as the published
            ``multihop-prompts.txt``; None for the bare question.
        asked: How a question is put after `shots`, with one ``{}`` in its place.
        kwargs: See `RecordDataModule` and `EditDataModule`.

    Raises:
        EditError: If `shuffle` and `limit`, `unique_subjects`, or `indices` would tear cases apart, `limit` has no room
            for the first case, or `asked` has no ``{}``.
    """

    required = ("requested_rewrite",)
    typical = ("requested_rewrite", "questions", "new_answer")

    def __init__(
        self,
        path: Annotated[str, SOURCE],
        edits_per_case: Count | None = None,
        shots: Annotated[str | None, SOURCE] = None,
        asked: Annotated[str, SOURCE] = "Q: {} A:",
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        refuse_torn_cases(self.shuffle, self.limit, self.unique_subjects)
        if asked.count("{}") != 1:
            raise EditError(f"`data.asked` must hold one {{}} where the question goes, got {quoted(asked)}.")
        self.edits_per_case, self.shots, self.asked = edits_per_case, shots, asked
        self._ask = "{}"

    def load_requests(self) -> Iterator[EditRequest | LeftOut]:
        """The edits of all cases; see `RecordDataModule`."""
        self._ask = "{}"
        if self.shots is not None:
            text = read_text(self.shots, "`data.shots`: ").rstrip()
            if "{}" in text:
                raise EditError(f"`data.shots`: {self.shots} holds a {{}}, which stands for the question. Remove it.")
            self._ask = f"{text}\n{self.asked}"
        yield from super().load_requests()

    def requests_of(self, record: Mapping[str, Any], position: int) -> Sequence[EditRequest | LeftOut]:
        """The edits of a case; see `RecordDataModule.requests_of`."""
        rewrites, name = rewrites_of(record), case_id(record, position)
        if self.edits_per_case not in (None, len(rewrites)):
            reason = f"they have other than {self.edits_per_case} edits (`edits_per_case`)"
            return [LeftOut(reason, case_id=name)]
        edits = [self._edit(rewrite, name) for rewrite in rewrites]
        return tested(edits, (*multi_hop(record, self._ask), *instance_wise(record)))

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """The last edit of a case, which brings its tests."""
        return self.requests_of(record, position)[-1]

    def _edit(self, rewrite: Mapping[str, Any], name: str) -> EditRequest:
        for field in ("subject", "prompt"):
            if field not in rewrite:
                raise EditError(f"the field {field!r} is missing in `requested_rewrite`.")
        place = self.cut_out(required_text(rewrite, "prompt"), required_text(rewrite, "subject"))
        if place is None:
            raise EditError(f"the prompt {quoted(rewrite['prompt'])} holds neither {{}} nor its subject.")
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=new_target_of(rewrite),
            target_true=target_of(rewrite, "target_true", "target_true"),
            case_id=name,
            question=optional_question(self, rewrite.get("question"), place[1]),
        )


def optional_question(data: RecordDataModule, question: Any, subject: str) -> str | None:
    """A record's question with ``{}`` in the place of its subject; None where the subject is not in it.

    Args:
        data: The data module.
        question: What the record brings.
        subject: The subject.
    """
    place = data.cut_out(question, subject) if isinstance(question, str) else None
    return None if place is None or place[0].count("{}") != 1 else place[0]
