"""The words of ``export`` on the command line, and which of them go together."""

from argparse import Namespace, RawDescriptionHelpFormatter
from typing import Any

from lightning_edit.commands.arguments import CommandParser
from lightning_edit.errors import EditError

FORMS = ("lora", "model", "gguf", "gguf-lora")
# Of `lightning_edit.export.gguf_types`, which need not be imported to show the help.
TYPES = ("auto", "F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4", "TQ2_0", "TQ1_0")
ASKED = 100
DESCRIPTION = """Writes the edits of a run into a new folder, with a model card, as
  lora       a LoRA adapter (adapter_model.safetensors, as PEFT and vLLM read it)
  model      the edited model
  gguf       the edited GGUF file, where the run edited one; all else in it stays
  gguf-lora  a LoRA adapter for llama.cpp

An adapter is exact: it has the rank of the update, at most the number of edits.
--rank and --max_error make it smaller, and what that costs is reported.

--hub uploads the folder. The token is read from the environment variable HF_TOKEN.
RUN may then also be a folder that was exported before."""
# For each option that is not for all forms: its default, and the forms that it is for.
ONLY = {
    "rank": (None, ("lora", "gguf-lora")),
    "max_error": (None, ("lora", "gguf-lora", "gguf")),
    "pad_rank": ("auto", ("lora",)),
    "gguf_type": ("auto", ("gguf",)),
    "gguf_arch": (None, ("gguf-lora",)),
}


def parser() -> CommandParser:
    """Reads the arguments of the command."""
    made = CommandParser(
        prog="lightning-edit export", description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("run", metavar="RUN", help="the folder of a finished run, its update.safetensors, or a checkpoint")
    add("--to", choices=FORMS, default=FORMS[0], help="what is written, see above (lora)")
    add("--out", metavar="DIR", help="a new folder (export-lora and so on in the run's)")
    add("--rank", type=int, metavar="R", help="largest rank of a matrix, truncated by SVD (that of the update)")
    add(
        "--max_error",
        type=float,
        metavar="X",
        help="of an adapter: smallest rank whose error, relative to the update, is at most X; of a GGUF file: refuse "
        "to round the edited matrices by more than that",
    )
    add(
        "--pad_rank",
        default="auto",
        metavar="R",
        help="of --to lora: one rank for all, filled up by zeros: a number, none, or auto",
    )
    add(
        "--gguf_type",
        choices=TYPES,
        default="auto",
        metavar="TYPE",
        help=f"of --to gguf: what the edited matrices are rounded to: {', '.join(TYPES)} (auto: F16, or F32 where F16 "
        "is too coarse for the edits)",
    )
    add("--gguf_arch", metavar="NAME", help="of --to gguf-lora: what llama.cpp calls the base model's architecture")
    add("--check", type=int, default=ASKED, metavar="N", help=f"ask N edits again if something is lost ({ASKED})")
    add("--all_edits", action="store_true", help="list all edits in the model card, not a sample")
    add("--model", metavar="NAME", help="the base model, if it has moved since the run")
    add("--trust_remote_code", action="store_true", help="run code that comes with the base model")
    add("--hub", metavar="USER/NAME", help="upload the folder to this repository on the Hugging Face hub")
    add("--private", action="store_true", help="of --hub: only you can see the repository")
    add("--revision", metavar="BRANCH", help="of --hub: the branch, made if it is not there (main)")
    add("--dry_run", action="store_true", help="of --hub: list the files and their sizes, and upload nothing")
    return made


def check(given: Namespace) -> Any:
    """Refuses what makes no sense.

    Args:
        given: The arguments.

    Returns:
        What ranks are filled up to.

    Raises:
        EditError: Names the option.
    """
    for name, least in (("rank", 1), ("check", 0)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise EditError(f"`--{name}` must be a whole number of {least} or more, got {value}.")
    if given.max_error is not None and not 0 <= given.max_error <= 1:
        raise EditError(f"`--max_error` is a share of the update's norm, from 0 to 1, got {given.max_error}.")
    for name, (default, forms) in ONLY.items():
        if getattr(given, name) != default and given.to not in forms:
            raise EditError(f"`--{name}` is for {' and '.join(f'--to {one}' for one in forms)}. Leave it out.")
    for name in ("private", "revision", "dry_run"):
        if getattr(given, name) and not given.hub:
            raise EditError(f"`--{name}` says how --hub uploads. Give --hub USER/NAME as well, or leave it out.")
    if given.pad_rank in ("auto", "none"):
        return given.pad_rank
    if not given.pad_rank.isdecimal() or int(given.pad_rank) < 1:
        raise EditError(f"`--pad_rank` must be a whole number of 1 or more, none, or auto, got {given.pad_rank}.")
    return int(given.pad_rank)
