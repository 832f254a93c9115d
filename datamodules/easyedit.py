"""CounterFact in EasyEdit's flat format (Wang et al., 2024), and other data sets in it."""

from collections.abc import Mapping
from typing import Any

from lightning_edit.datamodules.fields import first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.datamodules.subjects import cut_out
from lightning_edit.errors import EditError
from lightning_edit.requests import EditRequest


class EasyEditCounterFact(RecordDataModule):
    """EasyEdit's records: a complete ``prompt`` that holds the ``subject``, and ``target_new``; the rest may be absent.

    ``ground_truth`` is the true target and ``rephrase_prompt`` a paraphrase. ``locality_prompt`` and
    ``locality_ground_truth`` are a locality pair, always; where that answer is the true target as well, as everywhere
    in CounterFact, the prompt is also a neighborhood prompt. Each may be a text or a list of texts. A ``locality`` of
    KnowEdit's form, ``{kind: [{"prompt", "ground_truth"}, ...]}``, adds to the pairs. Of several answers that say the
    same, the first counts. Records whose prompt does not hold the subject are left out, with a warning that counts
    them; other fields (``portability``) are not read. A record without ``case_id`` has its position.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("subject", "prompt", "target_new")
    typical = ("prompt", "target_new", "ground_truth")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit.

        Args:
            record: The record.
            position: Its position in the data set.

        Raises:
            EditError: If the record lacks what is needed.
        """
        case_id, true = str(record.get("case_id", position)), first_text(record.get("ground_truth"))
        place = cut_out(required_text(record, "prompt"), required_text(record, "subject"))
        if place is None:
            return LeftOut("their prompt does not hold their subject", case_id=case_id)
        pairs = _pairs(record)
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=first_text(record["target_new"]),
            target_true=true,
            case_id=case_id,
            paraphrase_prompts=texts(record, "rephrase_prompt"),
            neighborhood_prompts=tuple(prompt for prompt, answer in pairs if answer == true),
            locality=tuple(pairs + _kinds_of_pairs(record.get("locality"))),
        )


def _pairs(record: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    prompts, answers = texts(record, "locality_prompt"), texts(record, "locality_ground_truth")
    if len(prompts) != len(answers):
        raise EditError(
            "`locality_prompt` and `locality_ground_truth` must be of one length, "
            f"got {len(prompts)} and {len(answers)}."
        )
    return [(prompt, first_text(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


def _kinds_of_pairs(locality: Any) -> list[tuple[Any, Any]]:
    try:
        kinds = {} if locality is None else locality
        entries = [entry for kind in kinds.values() for entry in kind or ()]
        return [(first_text(entry["prompt"]), first_text(entry["ground_truth"])) for entry in entries]
    except (KeyError, TypeError, AttributeError) as error:
        raise EditError(
            f"`locality` must be {{kind: [{{'prompt', 'ground_truth'}}, ...]}}, got {str(locality)[:80]!r}."
        ) from error
