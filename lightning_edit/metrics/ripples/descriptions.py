"""What the figures of tests mean, in a line each."""

from lightning_edit.ripples import PORTABILITY, axis_of, tests_of

FIGURES = {
    "said": "share of {tests} whose answers the model says",
    "exact": "share of {tests} that are answered with the answer and nothing else",
    "token_accuracy": "share of the answers' tokens that are the most likely one, in {tests}",
    "score": "share passed of {tests} whose conditions the unedited model met, of edits that succeeded",
    "unchanged": "share of the answers' tokens that are predicted as before editing, in {tests}",
    "rouge_l": "ROUGE-L (recall) of replies and long answers, in {tests}",
}


def ripple_description(name: str) -> str:
    """What a figure of tests means; empty where it is none.

    Args:
        name: A name in ``metrics.json``.
    """
    found = axis_of(name)
    if found is None:
        return ""
    axis, figure = found
    if axis == PORTABILITY:
        return f"mean over the kinds of tests of what follows: {FIGURES[figure].format(tests='tests')}"
    return FIGURES[figure].format(tests=tests_of(axis))
