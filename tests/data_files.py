"""Facts of the embedded model's world, in the file format of every data module."""

import csv
import json

from lightning_edit.tiny import World

FORMATS = {
    "counterfact": ".json",
    "multi_counterfact": ".json",
    "zsre": ".json",
    "easyedit_counterfact": ".json",
    "unke": ".json",
    "own_edits": ".csv",
    "knowedit": ".json",
    "rippleedits": ".json",
    "mquake": ".json",
    "akew": ".json",
    "qaedit": ".json",
    "wikibigedit": ".json",
    "ultraeditbench": ".json",
    "fever": ".json",
    "editeverything": ".json",
    "halluedit": ".csv",
}


def write_world(config, folder, edits=2):
    """Writes the facts in the format that a file of configs/data/ expects, named by its stem."""
    records = World.generate().records(edits, seed=0)
    path = folder / f"{config}{FORMATS[config]}"
    if path.suffix == ".json":
        change = CHANGES.get(config, counterfact)
        path.write_text(json.dumps([change(record) for record in records]), encoding="utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        changed = map(halluedit, records) if config == "halluedit" else records
        rows = [{name: cell(value) for name, value in record.items()} for record in changed]
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def cell(value):
    return value if isinstance(value, str | int) else "|".join(value)


def complete(record):
    return record["prompt"].replace("{}", record["subject"])


def counterfact(record):
    rewrite = {name: record[name] for name in ("subject", "prompt")}
    rewrite |= {name: {"str": record[name]} for name in ("target_new", "target_true")}
    return {name: value for name, value in record.items() if name not in rewrite} | {"requested_rewrite": rewrite}


def zsre(record):
    return {
        "subject": record["subject"],
        "src": complete(record),
        "rephrase": record["paraphrase_prompts"][0],
        "answers": [record["target_new"]],
        "alt": record["target_true"],
        "loc": record["neighborhood_prompts"][0],
        "loc_ans": record["target_true"],
    }


def unke(record):
    others = " ".join(record["neighborhood_prompts"][:2])
    return {
        "id": record["case_id"],
        "question": complete(record),
        "para_question": record["paraphrase_prompts"][0],
        "answer": f"{record['target_new']}. {others} {record['target_true']}.",
    }


def easyedit(record):
    return {
        "case_id": record["case_id"],
        "subject": record["subject"],
        "prompt": complete(record),
        "target_new": record["target_new"],
        "ground_truth": record["target_true"],
        "rephrase_prompt": record["paraphrase_prompts"][0],
        "locality_prompt": record["neighborhood_prompts"][0],
        "locality_ground_truth": record["target_true"],
    }


def knowedit(record):
    entry = {"prompt": record["paraphrase_prompts"][1], "ground_truth": [[record["target_new"], "nothing like it"]]}
    kept = {"prompt": record["neighborhood_prompts"][0], "ground_truth": record["target_true"]}
    return {
        "subject": record["subject"],
        "prompt": complete(record),
        "target_new": record["target_new"],
        "ground_truth": record["target_true"],
        "rephrase": record["paraphrase_prompts"][0],
        "portability": {"Reasoning": [entry], "Subject_Aliasing": [], "Logical_Generalization": None},
        "locality": {"Relation_Specificity": [kept]},
    }


def language_fact(subject, target):
    """A fact as RippleEdits words it, and so does the world."""
    edit = {"prompt": f"The mother tongue of {subject} is {target}.", "relation": "NATIVE_LANGUAGE"}
    return edit | {"subject_id": "Q1", "target_id": "Q2"}


def ripple_test(prompt, answers, conditions=(), how="OR"):
    """A test of RippleEdits; answers and conditions are lists of values, conditions with their prompts."""

    def query(asked, values):
        listed = [{"value": value, "aliases": [f"{value} or so"]} for value in values]
        return {"prompt": asked, "answers": listed, "query_type": "regular", "phrase": None}

    asked = [prompt] if isinstance(prompt, str) else prompt
    made = {"test_queries": [query(one, answers) for one in asked], "test_condition": how}
    return made | {"condition_queries": [query(*condition) for condition in conditions]}


def rippleedits(record):
    subject, new, old = (record[name] for name in ("subject", "target_new", "target_true"))
    return {
        "example_type": "popular",
        "edit": language_fact(subject, new) | {"original_fact": language_fact(subject, old)},
        "Relation_Specifity": [ripple_test(record["neighborhood_prompts"][0], [old])],
        "Logical_Generalization": [],
        "Subject_Aliasing": [ripple_test(record["paraphrase_prompts"][0], [new])],
        "Compositionality_I": [],
        "Compositionality_II": [],
        "Forgetfulness": [],
    }


def mquake(record):
    rewrite = counterfact(record)["requested_rewrite"] | {"question": f"Who is {record['subject']}?"}
    hop = {
        "question": "?",
        "cloze": record["paraphrase_prompts"][0],
        "answer": record["target_new"],
        "answer_alias": [],
    }
    return {
        "case_id": record["case_id"],
        "requested_rewrite": [rewrite],
        "questions": record["paraphrase_prompts"][:3],
        "answer": record["target_true"],
        "answer_alias": [],
        "new_answer": record["target_new"],
        "new_answer_alias": ["nothing like it"],
        "new_single_hops": [hop],
    }


def akew(record):
    rewrite = mquake(record)["requested_rewrite"][0] | {"prompt_full": complete(record)}
    triplet = {"subject": record["subject"], "prompt": record["prompt"], "target": record["target_new"]}
    text = {"fact_new_uns": unke(record)["answer"], "unsfact_triplets_GPT": [triplet]}
    prompts = {name: record[name] for name in ("paraphrase_prompts", "neighborhood_prompts")}
    return {"case_id": record["case_id"], "requested_rewrite": rewrite | text, **prompts}


def qaedit(record):
    loc = [{"loc": prompt, "loc_ans": record["target_true"]} for prompt in record["neighborhood_prompts"][:5]]
    fields = {"id": record["case_id"], "source": "NQ", "prompt": complete(record), "target": record["target_new"]}
    return fields | {"subject": record["subject"], "rephrase": record["paraphrase_prompts"][0], "locality": loc}


def wikibigedit(record):
    other, *_ = record["neighborhood_prompts"]
    fields = {"subject": record["subject"], "update": complete(record), "ans": record["target_new"]}
    fields |= {"rephrase": record["paraphrase_prompts"][0], "personas": record["paraphrase_prompts"][1]}
    return fields | {"loc": other, "loc_ans": record["target_true"], "mhop": None, "mhop_ans": None}


def ultraeditbench(record):
    fields = {"prompt": complete(record), "rephrase_prompt": record["paraphrase_prompts"][0]}
    unrelated = {"loc": record["neighborhood_prompts"][0], "loc_ans": record["target_true"]}
    return fields | {"ans": record["target_new"]} | unrelated


def fever(record):
    claims = [f"{prompt} {record['target_new']}." for prompt in (complete(record), record["paraphrase_prompts"][0])]
    other = f"{record['neighborhood_prompts'][0]} {record['target_new']}."
    fields = {"prompt": claims[0], "alt": "SUPPORTS", "equiv_prompt": claims[1:]}
    return fields | {"unrel_prompt": other, "unrel_ans": "REFUTES"}


def editeverything(record):
    return unke(record) | {"category": "fact"}


def halluedit(record):
    choices = f"A. {record['target_true']}  B. {record['target_new']}"
    fields = {"topic": "world", "subject": record["subject"], "relation": "trade", "object": record["target_new"]}
    fields |= {"question": complete(record), "paraphrased_question": record["paraphrase_prompts"][0]}
    fields |= {"multiple_choice_with_letters": choices, "multiple_choice_labels": "B"}
    fields |= {"locality_question": record["neighborhood_prompts"][0], "question_2hop": record["paraphrase_prompts"][1]}
    return fields | {"answer_2hop": record["target_new"], "question_3hop": "", "answer_3hop": ""}


CHANGES = {
    change.__name__: change
    for change in (
        *(zsre, unke, knowedit, rippleedits, mquake, akew, qaedit),
        *(wikibigedit, ultraeditbench, fever, editeverything),
    )
} | {"easyedit_counterfact": easyedit}
