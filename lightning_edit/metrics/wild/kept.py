"""What an earlier part of a run measured by WILD's protocol, and how that is said in a line."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from lightning_edit.messages import counted

logger = logging.getLogger(__name__)


def before_of(
    figures: Mapping[str, float], section: Mapping[str, Any] | None, protocol: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """What a checkpoint says of the unedited model; free answers that were asked or marked otherwise are left out.

    Args:
        figures: All figures of the unedited model.
        section: What the checkpoint says of the protocol, see `WildMetrics.section`; None if nothing.
        protocol: That of now.

    Returns:
        The figures that compare with those of now, and the section, which is empty if there is none.
    """
    if section is not None and protocol and same(section["protocol"], protocol):
        return dict(figures), {name: section[name] for name in ("protocol", "before") if name in section}
    kept = {name: value for name, value in figures.items() if not name.startswith("wild_")}
    if protocol and len(kept) < len(figures):
        logger.warning("wild: the checkpoint's figures of before were measured in another way and are left out.")
    return kept, {}


def same(one: Any, other: Any) -> bool:
    """Whether figures of two protocols compare.

    Args:
        one: A protocol, see `WildMetrics.protocol`.
        other: Another.
    """
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def notes(section: Mapping[str, Any]) -> list[str]:
    """How the judge marked the answers, a line for each stage, and what was left out; none where there is neither.

    Args:
        section: See `WildMetrics.section`.
    """
    judge = section["protocol"].get("judge")
    lines = [
        _line(stage, judge["model"], section[stage])
        for stage in ("before", "after")
        if judge is not None and "judged" in section.get(stage, {})
    ]
    # The same prompts in both stages: what the unedited model says decides.
    left_out = max(section.get(stage, {}).get("left_out", 0) for stage in ("before", "after"))
    if left_out:
        prompts = counted(left_out, "unrelated prompt is", "unrelated prompts are")
        lines.append(f"wild: {prompts} left out of locality, as the unedited model answers with nothing.")
    return lines


def _line(stage: str, judge: str, marked: Mapping[str, Any]) -> str:
    cached = f" ({marked['from_cache']:,} of them from the cache)" if marked["from_cache"] else ""
    line = f"wild, {stage}: {counted(marked['judged'], 'answer')} marked by {judge}{cached}, "
    line += f"{marked['by_rule']:,} clear without it, {marked['exact_match']:,} by exact match"
    if not marked["exact_match"]:
        return f"{line}."
    why = [f"{counted(marked['unreadable'], 'reply', 'replies')} neither A nor B"] * bool(marked["unreadable"])
    why += [str(marked["problem"])] * (marked["problem"] is not None)
    return f"{line}: {'; '.join(why)}."
