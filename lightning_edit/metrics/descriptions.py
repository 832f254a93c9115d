"""What each figure of a run means, in a line: shown beside TensorBoard's charts."""

import re

from lightning_edit.metrics.ripples.descriptions import ripple_description
from lightning_edit.metrics.ways import in_words, way_of

# Which prompts, and which answer should be the more likely one there.
KINDS = {
    "efficacy": ("edited prompts", "new"),
    "paraphrase": ("other wordings of edited prompts", "new"),
    "neighborhood": ("prompts about other subjects that must keep their answer", "old"),
    "attribute": ("prompts about other subjects that have the new answer already", "new"),
}
SCORES = {
    "score": "share of {prompts} where the {right} answer is the more likely one",
    "magnitude": "mean difference of the probabilities of both answers, on {prompts}",
    "accuracy": "share of {prompts} where every token of the {right} answer is the most likely one",
    "token_accuracy": "share of the tokens of the {right} answer that are the most likely one, on {prompts}",
}
# What is asked freely, and what is right.
WILD = {
    "reliability": "edited prompts whose free answer is the new one",
    "generalization": "other wordings whose free answer is the new one",
    "locality": "unrelated prompts whose free answer is that of the unedited model, where that says anything",
}
OF_EDITS = {
    "S": "harmonic mean of efficacy, paraphrase and neighborhood score",
    **{
        f"{kind}_{score}": text.format(prompts=prompts, right=right)
        for kind, (prompts, right) in KINDS.items()
        for score, text in SCORES.items()
    },
    "locality_token_accuracy": "token accuracy on unrelated prompts",
    "locality_unchanged": "share of the tokens of unrelated answers that are predicted as before editing",
    "generation_entropy": "entropy of generated texts, in bits",
    "reference_score": "similarity of generated texts and reference texts",
    "essence_score": "perplexity of texts about the subject",
    "generated_match": "share of edited prompts whose greedy continuation says the new answer",
    "generated_paraphrase": "share of other wordings whose greedy continuation says the new answer",
    **{
        f"wild_{scored}_{measure}": f"WILD: share of {prompts}, by {how}"
        for measure, prompts in WILD.items()
        for scored, how in {"exact": "exact match", "judged": "a judge"}.items()
    },
    "efficacy_nll": "mean negative log-likelihood of long answers' tokens after edited prompts, in nats",
    "paraphrase_nll": "mean negative log-likelihood of long answers' tokens after other wordings, in nats",
    "generated_rouge_l": "ROUGE-L (recall) of greedy continuations of edited prompts and long answers",
    "generated_paraphrase_rouge_l": "ROUGE-L (recall) of greedy continuations of other wordings and long answers",
}
OF_COLLATERAL = {
    "general_changed": "share of general prompts whose answer begins with another sentence than before",
    "general_worse": "share of general prompts whose answer changed for the worse: a right answer lost, empty, a loop",
    "general_lost": "share of general prompts answered rightly before that are not any more",
    "routes_changed": "share of the routes of the general prompts' tokens to experts that are other ones than before",
    "general_kl": "mean KL(before || after) of the next token after general prompts, in nats",
    "long_context_perplexity": "perplexity of the second halves of long rows of general prompts and answers",
    "long_context_perplexity_before": "perplexity of these halves before the run",
    "long_context_perplexity_ratio": "the perplexity over that before the run: 1 is best, much more is harm",
    "old_object_lost": "share of questions answered with the old object of an edit before that are not any more, or "
    "only in a loop",
    "other_subjects_changed": "share of other subjects in the wording of an edit whose first sentence is another one",
    "other_subjects_worse": "share of them whose answer changed for the worse, such as to the new object",
    "same_subject_changed": "share of other prompts about edited subjects whose first sentence is another one",
    "same_subject_worse": "share of them whose answer changed for the worse",
    "reworded_said": "share of edits, asked freely in three wordings, whose answer says the new object",
    "kept": "mean over the kinds of collateral prompts of the share that did not change for the worse",
}
DESCRIPTIONS = {
    "values/loss": "mean loss of the edits in progress: the sum of the next three",
    "values/nll": "negative log-likelihood of the new target, in nats a token",
    "values/kl": "divergence on the KL prompt, with its factor",
    "values/weight_decay": "the weight-decay term",
    "value_search/nll": "negative log-likelihood of the new target, in nats a token, at the end of the search",
    "value_search/kl": "divergence on the KL prompt, with its factor",
    "value_search/weight_decay": "the weight-decay term",
    "value_search/steps": "optimization steps taken",
    "value_search/z0_norm": "norm of the unedited hidden state",
    "value_search/delta_norm": "norm of the offset that was found",
    "layer_L/update_norm": "Frobenius norm of the update",
    "layer_L/update_norm_per_edit": "the norm over the square root of the number of edits, to compare updates",
    "layer_L/relative_update_norm": "the norm of the update relative to that of the unedited weight",
    "layer_L/weight_norm": "norm of the weight with the update in it",
    "layer_L/weight_growth": "the norm of the weight relative to that of the unedited weight",
    "layer_L/preservation_error": "root mean square change of the output for ordinary keys",
    "layer_L/memorization_error": "the part of the residual that was not written",
    "layer_L/preservation_condition": "condition number of C'",
    "layer_L/keys_condition": "condition number of the system of the edits",
    "layer_L/queue": "LyapLock only: the virtual queue Z",
    "layer_L/preservation_loss": "LyapLock only: tr(D C D^T), D being what all updates have added",
    "layer_L/preservation_bound": "LyapLock only: the bound of that loss, from the first update",
    "layer_L/free_share": "CrispEdit only: share of the weight's directions that the update could change",
    "update/efficacy_score": "efficacy score of the update's edits, or a sample of them",
    "update/efficacy_accuracy": "efficacy accuracy of the update's edits, or a sample of them",
    "update/retention_score": "efficacy score of edits of earlier updates that still hold",
    "update/retention_accuracy": "efficacy accuracy of edits of earlier updates that still hold",
    "update/neighborhood_score": "neighborhood score on neighbors of these edits",
    "update/locality_token_accuracy": "token accuracy on their unrelated prompts",
    "update/perplexity": "perplexity of `watch.perplexity_file`",
    "update/seconds": "time for values and solution",
    "update/edits_per_second": "edits of the update divided by that time",
    "update/seconds_to_go": "estimate of the remaining time",
    "memories/nll": "GRACE and MEMOIR only: mean over the update's edits of the least loss, in nats a token",
    "training/nll": "fine-tuning only: mean loss of an epoch",
    **{f"edit/{name}": text for name, text in OF_EDITS.items()},
    **{f"collateral/{name}": text for name, text in OF_COLLATERAL.items()},
    **{f"retention/{name}": f"over the edits so far, or a sample of them: {text}" for name, text in OF_EDITS.items()},
}
DOWNSTREAM = {
    "generated": "from generated answers",
    "likelihood": "from the most likely label",
    "accuracy": "share of right answers",
    "f1": "F1 weighted by the labels' shares",
    "mcc": "Matthews correlation coefficient",
    "invalid": "share of generated answers without a label",
}


def description(tag: str) -> str:
    """What a scalar means; empty for one that another program names, such as lm-evaluation-harness.

    Args:
        tag: Its name in TensorBoard.
    """
    room, _, name = tag.partition("/")
    if room == "downstream":
        _, slash, figure = name.rpartition("/")
        words = [DOWNSTREAM[word] for word in figure.split("_") if word in DOWNSTREAM]
        return ", ".join(words) if slash else "perplexity of running text"
    if room == "seconds" and name:
        return f"seconds spent on this stage so far: {name.replace('_', ' ')}"
    if room == "edit" and (way := way_of(name)[0]):
        text = OF_EDITS.get(way_of(name)[1], "")
        return text and f"asked {'in' if way == 'plain' else 'under'} {in_words(way)}: {text}"
    if room == "edit" and (text := ripple_description(name)):
        return text
    return DESCRIPTIONS.get(re.sub(r"^layer_\d+[^/]*/", "layer_L/", tag), "")
