"""The edits of a finished run, and what is compared of it."""

import io

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from lightning_edit import ModelUpdate
from lightning_edit.commands.updates import show_list
from lightning_edit.datamodules import TinyWorld
from lightning_edit.loading.pretrained import load_model
from lightning_edit.models.decoder import find_decoder
from lightning_edit.updates.history import History

REQUESTS = TinyWorld(edits=12).requests
BATCHES = [REQUESTS[i : i + 3] for i in range(0, 12, 3)]
LAYERS = [0, 1]


def edited(model):
    return [find_decoder(model).weight(layer).detach().clone() for layer in LAYERS]


def exported(run):
    return edited(AutoModelForCausalLM.from_pretrained(run / "model", dtype="auto"))


def inserted(run):
    model = load_model("tiny", "bfloat16")
    ModelUpdate.load(run / "update.safetensors").insert(model)
    return edited(model)


def equal(first, second):
    return all(map(torch.equal, first, second))


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- remove and apply --------------------------------------------------------------------------------------------------


def drawn(run, width=160):
    console = Console(width=width, file=io.StringIO())
    show_list(History(run / "updates"), console)
    return console.file.getvalue()
