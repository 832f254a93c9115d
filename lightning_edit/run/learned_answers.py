"""What the edits of a run are to say, where a chat model says it in its own words (`chat_settings.answers: own`)."""

from typing import TYPE_CHECKING

from lightning_edit.asking.own_answers import own_answers
from lightning_edit.distributed.process_group import gathered

if TYPE_CHECKING:
    from lightning_edit.run.measured_module import MeasuredModule


def find_answers(module: "MeasuredModule") -> None:
    """Asks the model before its edits, and lets the data module's edits learn that; once in a run.

    Args:
        module: The module under way, at the start of its fit; a resumed one has its answers already.
    """
    if not module.chat or module.chat_settings.answers != "own":
        return
    if module.own_answers is None:
        with module.timed("answers"):
            found = own_answers(module.decoder, module.tokenizer, module.requests, module.report)
            # Unlike machines may write other texts.
            module.own_answers = gathered(found)[0]
    module.trainer.datamodule.learn(module.own_answers)
