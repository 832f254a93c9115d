"""CounterFact in EasyEdit's flat format (Wang et al., 2024), and other data sets in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_edit.datamodules.fields import case_id, entries, first_text, required_first_text, required_text, texts
from lightning_edit.datamodules.record_module import RecordDataModule
from lightning_edit.datamodules.selection import LeftOut
from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.requests import EditRequest

LOCALITY = "`locality` must be {kind: [{'prompt', 'ground_truth'}, ...]}"


class EasyEditCounterFact(RecordDataModule):
    """EasyEdit's records: a complete ``prompt`` that holds the ``subject``, and ``target_new``; the rest may be absent.

    ``ground_truth`` is the true target and ``rephrase_prompt`` a paraphrase. ``locality_prompt`` and
    ``locality_ground_truth`` are a locality pair, always; where that answer is the true target as well, as everywhere
    in CounterFact, the prompt is also a neighborhood prompt. Each may be a text or a list of texts. A ``locality`` of
    KnowEdit's form, ``{kind: [{"prompt", "ground_truth"}, ...]}``, adds to the pairs, but for prompts whose answer is
    empty, with a warning that counts them. Of several answers that say the
    same, the first counts. Records whose prompt does not hold the subject are left out, with a warning that counts
    them; other fields are not read (``portability``: see `KnowEdit`). A record without ``case_id`` has its position.

    Args:
        path: A local file, a local folder, or the name of a hub data set (see `RecordDataModule`).
        kwargs: See `RecordDataModule` and `EditDataModule`.
    """

    required = ("subject", "prompt", "target_new")
    typical = ("prompt", "target_new", "ground_truth")

    def request(self, record: Mapping[str, Any], position: int) -> EditRequest | LeftOut:
        """One record as an edit; see `RecordDataModule.request`."""
        name, true = case_id(record, position), first_text(record, "ground_truth")
        place = self.cut_out(required_text(record, "prompt"), required_text(record, "subject"))
        if place is None:
            return LeftOut("their prompt does not hold their subject", case_id=name)
        pairs = self._pairs(record)
        return EditRequest(
            subject=place[1],
            prompt=place[0],
            target_new=required_first_text(record, "target_new"),
            target_true=true,
            case_id=name,
            paraphrase_prompts=texts(record, "rephrase_prompt"),
            neighborhood_prompts=tuple(prompt for prompt, answer in pairs if answer == true),
            locality=tuple(pairs + self._kinds_of_pairs(record.get("locality"))),
        )

    def _pairs(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        name = "locality_ground_truth"
        prompts, answers = texts(record, "locality_prompt"), entries(record, name)
        if isinstance(record.get(name), str):
            answers = (record[name],)
        if len(prompts) != len(answers):
            raise EditError(
                f"`locality_prompt` and `{name}` must be of one length, got {len(prompts)} and {len(answers)}."
            )
        return self._answered(
            [(p, first_text({name: answer}, name)) for p, answer in zip(prompts, answers, strict=True)]
        )

    def _kinds_of_pairs(self, locality: Any) -> list[tuple[str, str]]:
        try:
            kinds = {} if locality is None else locality
            listed = [entry for kind in kinds.values() for entry in kind or ()]
            pairs = [(first_text(entry, "prompt"), first_text(entry, "ground_truth")) for entry in listed]
            complete = all("prompt" in entry and "ground_truth" in entry for entry in listed)
        except (TypeError, AttributeError) as error:
            raise EditError(f"{LOCALITY}, got {quoted(locality)}.") from error
        if not complete or not all(prompt for prompt, _ in pairs):
            raise EditError(f"{LOCALITY}, got {quoted(locality)}.")
        return self._answered(pairs)

    def _answered(self, pairs: Sequence[tuple[str | None, str | None]]) -> list[tuple[str, str]]:
        """The pairs with an answer; data sets have some without."""
        answered = []
        for prompt, answer in pairs:
            if prompt and answer:
                answered.append((prompt, answer))
            else:
                what = "locality prompt without an answer is", "locality prompts without an answer are"
                self.note(f"{what[0]} left out", f"{what[1]} left out", str(prompt))
        return answered
