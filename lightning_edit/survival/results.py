"""Results on the disk, each written as soon as it is there; a command that was stopped goes on with what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.messages import listed
from lightning_edit.storage.atomic import atomic_path
from lightning_edit.storage.numbers import to_json
from lightning_edit.storage.user.json import read_json
from lightning_edit.survival.variants import Variant

FORMAT = "lightning-edit survival 1"


@dataclass(frozen=True)
class Result:
    """What became of a variant.

    Args:
        variant: Its name.
        title: The same in words.
        settings: What it depends on.
        figures: What was measured; empty where nothing was.
        answers: See `Measured`.
        seconds: How long it took.
        not_run: Why nothing was measured; empty where something was.
        notes: What else is known of it, such as the loss of a fine-tuning.
    """

    variant: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)
    answers: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    not_run: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> list[bool]:
        """Of each record whether the model gives the new answer."""
        return [bool(answer["said"]) for answer in self.answers]

    def figure(self, name: str) -> float | None:
        """A figure; None where it was not measured, or is no finite number.

        Args:
            name: As in ``metrics.json``.
        """
        return self.figures.get(name)


class SurvivalFile:
    """The results of one run's edits, in a JSON file.

    Args:
        path: The file; one of the same edits, records and measures is gone on with.
        identity: What all results depend on.

    Raises:
        EditError: If the file is of something else, or is none.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self._identity = path, dict(identity)
        self.results: list[Result] = _read(path, self._identity) if path.exists() else []

    def get(self, variant: Variant) -> Result | None:
        """The result of a variant that was measured before, with the same settings.

        Args:
            variant: The variant.
        """
        found = (one for one in self.results if _key(one.variant, one.settings) == _key(variant.name, variant.settings))
        return next((one for one in found if not one.not_run), None)

    def add(self, result: Result) -> None:
        """Keeps a result, before the next variant begins; those of other settings stay.

        Args:
            result: It takes the place of one of the same variant and settings.
        """
        key = _key(result.variant, result.settings)
        self.results = [one for one in self.results if _key(one.variant, one.settings) != key] + [result]
        content = {
            "format": FORMAT,
            "identity": self._identity,
            "variants": [asdict(one) for one in self.results],
        }
        with atomic_path(self.path) as scratch:
            scratch.write_text(to_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_results(path: Path) -> None:
    """Refuses a file that holds something else than results; it need not be there.

    Args:
        path: The file.

    Raises:
        EditError: If it is there and holds something else, or is no JSON.
    """
    if path.exists():
        _content(path)


def _key(name: str, settings: Mapping[str, Any]) -> str:
    return to_json([name, dict(sorted(settings.items()))])


def _content(path: Path) -> Any:
    content = read_json(path, hint=" Delete it, or give another --output.")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content["identity"], dict):
        raise EditError(f"{path} holds no results of `survive`. Give another --output, or move the file away.")
    return content


def _read(path: Path, identity: Mapping[str, Any]) -> list[Result]:
    content = _content(path)
    then, now = content["identity"], _plain(identity)
    different = [name for name in now if then.get(name) != now[name]]
    if different:
        raise EditError(
            f"{path} holds results of something else: {listed(different)} changed since. Give another --output to keep "
            "them, or delete the file."
        )
    try:
        return [_result(entry) for entry in content["variants"]]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise EditError(f"{path} is damaged ({error}). Delete it, or give another --output.") from error


def _result(entry: Any) -> Result:
    result = Result(**entry)
    for name, value in result.figures.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} is no number")
    _ = result.said, dict(result.settings), dict(result.notes), float(result.seconds), result.title + result.not_run
    return result


def _plain(identity: Mapping[str, Any]) -> Any:
    """Values as a file gives them back."""
    import json

    return json.loads(to_json(identity))
