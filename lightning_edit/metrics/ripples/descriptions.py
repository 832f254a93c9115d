"""What the figures of tests mean, in a line each."""

from lightning_edit.metrics.ripples.figures import axis_of
from lightning_edit.ripples import PORTABILITY

AXES = {
    "reasoning": "tests that reason from the edited fact",
    "subject_aliasing": "tests that ask an edited fact by another name of its subject",
    "logical_generalization": "tests of what the edited fact implies",
    "relation_specificity": "tests of other facts about the subject, which should stay",
    "forgetfulness": "tests of other objects of the same relation, which should stay",
    "compositionality_i": "tests of a second hop that starts at the new object",
    "compositionality_ii": "tests of a second hop that leads to the edited subject",
    "multi_hop": "tests of several hops",
    "instance_wise": "tests of all single hops of a case at once",
    "personas": "tests that ask as somebody else would",
    "sub_questions": "tests of parts of a long answer",
    "yes_no": "tests that ask whether the new or another answer is right",
    "multiple_choice": "tests with answers to choose from",
    "reversed_relation": "tests that ask for the edited subject",
    "unrelated": "tests of other facts, which should stay",
}
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


def tests_of(axis: str) -> str:
    """The tests of an axis in words.

    Args:
        axis: The axis.
    """
    return AXES.get(axis, f"tests of {axis.replace('_', ' ')}")
