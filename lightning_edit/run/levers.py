"""Settings of a run by which its method writes more of the edits, or does less harm."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_edit.run.module import EditingModule


def levers_of(module: "EditingModule") -> dict[str, float]:
    """What can be turned, with its value: only settings that the method has, see `RunFigures`.

    Args:
        module: The module under way.
    """
    parts: dict[str, Any] = {"solver": module.solver, "anchor": module.update_anchor}
    parts |= {type(process).__name__: process for process in module.post_processing}
    levers = {
        f"{name}.{field.name}": getattr(part, field.name)
        for name, part in parts.items()
        if part is not None
        for field in fields(part)
    }
    if module.solver.needs_second_moment and module.moment_settings.source == "text":
        levers["second_moment"] = 1.0
    alone = module.loop.independent or module.loop.queue.size is None or module.update_anchor is not None
    if not module.previous_keys and not alone:
        levers["previous_keys"] = 1.0
    if isinstance(norm := module.value_settings.norm_anchor, int | float):
        levers["values.norm_anchor"] = norm
    return levers
