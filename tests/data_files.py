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
}


def write_world(config, folder, edits=2):
    """Writes the facts in the format that a file of configs/data/ expects, named by its stem."""
    records = World.generate().records(edits, seed=0)
    path = folder / f"{config}{FORMATS[config]}"
    if path.suffix == ".json":
        change = {"zsre": zsre, "easyedit_counterfact": easyedit, "unke": unke}.get(config, counterfact)
        path.write_text(json.dumps([change(record) for record in records]), encoding="utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [{name: cell(value) for name, value in record.items()} for record in records]
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
