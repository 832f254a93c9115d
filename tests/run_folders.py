"""Folders as runs leave them behind, with figures that are known."""

import json

BEFORE = {"efficacy_score": 0.25, "paraphrase_score": 0.25, "neighborhood_score": 0.75, "S": 0.3214}


def config(solver="EMMET", edits=64, once=None, layers=(17,), path="counterfact.json", seed=0, **init_args):
    return {
        "model": {
            "model": "./gpt",
            "layers": list(layers),
            "solver": {"class_path": f"lightning_edit.{solver}", "init_args": init_args},
            "second_moment": {"tokens": 1000, "cache_dir": f"/cache/{edits}"},
            "edits_per_update": once,
            "seed": seed,
            "_instantiator": "lightning",
        },
        "data": {
            "_class_path": "lightning_edit.datamodules.CounterFact",
            "path": path,
            "limit": edits,
            "batch_size": edits,
            "preservation": f"<datamodules.TextFile object at {hex(id(object()) + edits)}>",
        },
    }


def write(folder, edits=64, S=0.5, curve=(), before=BEFORE, wild=None, name=None, **settings):
    folder.mkdir(parents=True)
    after = {"efficacy_score": 1.0, "efficacy_score_stderr": 0.01, "efficacy_score_n": edits, "S": S}
    content = {"before": before, "after": after, "edits": edits, "left_out": [], "seconds": {"values": 3.0, "solve": 1}}
    content |= {} if wild is None else {"wild": {"protocol": wild}}
    content |= {} if name is None else {"name": name}
    (folder / "metrics.json").write_text(json.dumps({**content, "config": config(edits=edits, **settings)}))
    lines = [{"edits": at, "updates": 1, "figures": figures} for at, figures in curve]
    if lines:
        (folder / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
