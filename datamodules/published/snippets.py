"""Texts about the subjects and targets of CounterFact: the published ``attribute_snippets.json``."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.storage.user.json import json_records


class Snippets:
    """Encyclopedia texts about entities, by relation and target.

    The file is a list of ``{"relation_id", "target_id", "samples": [{"name", "text", ...}]}``: the texts are about
    entities that stand in the relation to the target.

    Args:
        path: The file.

    Raises:
        EditError: If it is not there or not in this format.
    """

    def __init__(self, path: str) -> None:
        self._samples: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        self._texts: dict[tuple[str, str], tuple[str, ...]] = {}
        for entry, where in json_records(Path(path).expanduser(), "`data.snippets`: "):
            try:
                pairs = [(sample["name"], sample["text"]) for sample in entry["samples"] if sample["text"].strip()]
                self._samples[entry["relation_id"], entry["target_id"]] += pairs
            except (KeyError, TypeError, AttributeError) as error:
                raise EditError(
                    f"{where}: expected {{'relation_id', 'target_id', 'samples': [{{'name', 'text'}}, ...]}}, "
                    f"got {quoted(entry)}."
                ) from error

    def reference_texts(self, rewrite: Mapping[str, Any]) -> tuple[str, ...]:
        """Texts about entities of which the new target is true, chosen as ROME's published evaluation chooses them.

        Args:
            rewrite: A record's ``requested_rewrite``, with ``relation_id`` and the ``id`` of the new target.

        Returns:
            The texts; there may be none.

        Raises:
            KeyError: If relation or id is missing.
        """
        place = rewrite["relation_id"], rewrite["target_new"]["id"]
        # Thousands of records share a target: they share its texts too.
        if place not in self._texts:
            self._texts[place] = tuple(text for _, text in self._samples.get(place, ()))
        return self._texts[place]

    def essence_texts(self, rewrite: Mapping[str, Any]) -> tuple[str, ...]:
        """Texts about the subject, among those about entities of which the true target is true, chosen as there.

        Args:
            rewrite: A record's ``requested_rewrite``, with ``relation_id`` and the ``id`` of the true target, if any.

        Returns:
            The texts; there may be none.

        Raises:
            KeyError: If relation or id is missing.
        """
        true = rewrite.get("target_true")
        samples = () if true is None else self._samples.get((rewrite["relation_id"], true["id"]), ())
        return tuple(text for name, text in samples if name == rewrite["subject"])
