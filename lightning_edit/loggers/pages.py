"""TensorBoard's page of custom scalars: what belongs together, on four pages, each chart with a title that says it."""

import re
from collections.abc import Collection

from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

LAYER = r"layer_\d+[^/]*"
# Of each page its charts, and of each chart the tags. The same in every run, for TensorBoard puts the pages of several
# runs together and would show a chart twice that is another one in one of them.
PAGES: dict[str, dict[str, str]] = {
    "1. Edits": {
        "Edits, before (step 0) and after (shares)": "edit/(S|efficacy_score|paraphrase_score|neighborhood_score)",
        "Asked freely, before and after (shares)": "edit/(generated_match|generated_paraphrase|wild_.*)",
        "Long answers, before and after": "edit/(generated|generated_paraphrase)_rouge_l",
        "What follows from the edits (shares)": "edit/ripple_.*_(said|score)",
        "Edits of each update, right after it (shares)": "update/efficacy_(score|accuracy)",
        "Values: loss while they are searched (nats; steps are passes)": "values/(loss|nll|kl|weight_decay)",
        "Values: loss at the end of the search (nats)": "value_search/(nll|kl|weight_decay)",
        "Values: norm of the offset and of the hidden state": "value_search/(delta_norm|z0_norm)",
        "Training: mean loss (nats)": "training/nll",
        "Memories: least loss of each edit (mean, nats)": "memories/nll",
    },
    "2. Retention": {
        "Edits of earlier updates (shares)": "update/retention_(score|accuracy)",
        "All edits so far (shares)": "retention/(S|efficacy_score|paraphrase_score|neighborhood_score)",
        "Neighbors and unrelated prompts (shares)": "update/(neighborhood_score|locality_token_accuracy)",
        "Other answers that got worse (shares)": "collateral/(.*_worse|.*_lost)",
        "Other answers that did not get worse (mean share)": "collateral/kept",
        "Next token after general prompts: KL(before || after) (nats)": "collateral/general_kl",
        "Perplexity behind long contexts, now and before": "collateral/long_context_perplexity(_before)?",
        "Perplexity behind long contexts: now over before": "collateral/long_context_perplexity_ratio",
        "Perplexity of your own text": "update/perplexity",
        "Perplexity of running text": "downstream/[^/]+",
        "Tasks: right answers (shares)": "downstream/.+_accuracy",
        "Tasks of lm-evaluation-harness": "harness/.+",
    },
    "3. Weight health": {
        "Growth: norm over the norm before editing": f"{LAYER}/weight_growth",
        "Norm of the weight": f"{LAYER}/weight_norm",
        "Norm of each update": f"{LAYER}/update_norm",
        "Norm of each update over the root of its edits": f"{LAYER}/update_norm_per_edit",
        "Norm of each update over the norm before editing": f"{LAYER}/relative_update_norm",
        "Change of outputs for ordinary keys": f"{LAYER}/preservation_error",
        "Part of the residual that was not written": f"{LAYER}/memorization_error",
        "Condition number of C'": f"{LAYER}/preservation_condition",
        "Condition number of the edits' system": f"{LAYER}/keys_condition",
        "LyapLock: virtual queue": f"{LAYER}/queue",
        "LyapLock: loss of preservation and its bound": f"{LAYER}/preservation_(loss|bound)",
        "CrispEdit: share of free directions": f"{LAYER}/free_share",
    },
    "4. Speed": {
        "Edits per second": "update/edits_per_second",
        "Seconds of each update": "update/seconds",
        "Seconds to go": "update/seconds_to_go",
        "Seconds so far, by stage": "seconds/.+",
        "Optimization steps of a value (mean)": "value_search/steps",
    },
}


def layout_of(tags: Collection[str]) -> Layout:
    """The pages with the charts for which there are tags; a page without charts is left out.

    Args:
        tags: The names of all figures of a run.
    """
    found = {
        page: [_chart(title, tag) for title, tag in charts.items() if any(re.fullmatch(tag, name) for name in tags)]
        for page, charts in PAGES.items()
    }
    return Layout(category=[Category(title=page, chart=charts) for page, charts in found.items() if charts])


def _chart(title: str, tag: str) -> Chart:
    # TensorBoard looks for a tag that begins like this.
    return Chart(title=title, multiline=MultilineChartContent(tag=[f"{tag}$"]))
