"""Settings of what a new run measures that have no effect beside another one.

They are refused here and not where they are made: a run that goes on, or is measured again, reads them from the
configuration that it began with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from lightning_edit.callbacks import Collateral, Downstream, Harness, Watch
from lightning_edit.callbacks.measuring.scheduled import Scheduled
from lightning_edit.metrics import EvaluationSettings
from lightning_edit.metrics.wild.settings import WildSettings
from lightning_edit.without_effect import refuse_changed, refuse_given

OF_TEXTS = ("max_length", "texts_per_prompt", "top_k", "seed")
TESTS = ("ripple_tokens",)
OF_REPLIES = ("prompt", "reply_tokens")
OF_ENDPOINTS = ("at_once", "tries", "wait", "timeout", "arguments")
# What switches something off asks for what happens anyway.
OFF = (None, 0, False)
CADENCE = ("every_n_updates", "every_n_micro_batches")


class _Idle(NamedTuple):
    """Settings of a callback that do nothing while another one is off."""

    switch: str
    off: Any
    names: tuple[str, ...]
    beside: str
    remedy: str


OF_CALLBACKS: Mapping[type, _Idle] = {
    Downstream: _Idle("tasks", [], ("generations", *CADENCE), "`downstream.tasks` empty", "Name tasks in it"),
    Harness: _Idle(
        "tasks", [], ("batch_size", "bootstrap_iters", "chat", *CADENCE), "`harness.tasks` empty", "Name tasks in it"
    ),
    Collateral: _Idle(
        "prompts",
        0,
        ("tokens", "seed", "every_n_updates"),
        "`collateral.prompts: 0`",
        "Let `collateral` ask some prompts",
    ),
    Watch: _Idle(
        "every_n_updates",
        None,
        ("sample", "seed"),
        "`watch.every_n_updates: null`",
        "Set `watch.every_n_updates` to a number",
    ),
}


def refuse_idle(evaluation: EvaluationSettings, callbacks: Iterable[Any]) -> None:
    """Refuses settings of a new run that were changed and do nothing.

    `evaluation.match_tokens` may stand beside `generated_match: false`, as configurations of version 0.1.0 have both.

    Args:
        evaluation: What the run measures of its edits.
        callbacks: What measures else.

    Raises:
        EditError: If there is one; says what gives it an effect.
    """
    _refuse_idle_evaluation(evaluation)
    for callback in callbacks:
        idle = OF_CALLBACKS.get(type(callback))
        if idle is not None and getattr(callback, idle.switch) == idle.off:
            given = {name: value for name in idle.names if (value := getattr(callback, name)) not in OFF}
            refuse_given(callback, given, idle.beside, idle.remedy, Scheduled)


def _refuse_idle_evaluation(evaluation: EvaluationSettings) -> None:
    for switch, names in (("generate", OF_TEXTS), ("generated_match", ("match_paraphrases",)), ("ripples", TESTS)):
        if not getattr(evaluation, switch):
            beside, remedy = f"`evaluation.{switch}: false`", f"Set `evaluation.{switch}` to true"
            on = [name for name in names if getattr(evaluation, name) not in OFF]
            refuse_changed(evaluation, on, beside, remedy)
    if not evaluation.wild:
        every = [field.name for field in fields(WildSettings)]
        refuse_changed(evaluation.wild_settings, every, "`evaluation.wild: false`", "Set `evaluation.wild` to true")
    judge = evaluation.judge
    if judge.model is None:
        refuse_changed(judge, OF_REPLIES, "`evaluation.judge.model: null`", "Name a judge in it")
    if judge.url is None:
        refuse_changed(judge, OF_ENDPOINTS, "`evaluation.judge.url: null`", "Give the endpoint's address")
