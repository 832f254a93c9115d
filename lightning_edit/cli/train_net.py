"""The command line's ``train-net``: a net for values from gradients, trained by what its edits do to the model."""

import logging
import os
import shlex
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_edit.cli.tune import CHAT, DEVICES, DTYPES, read_requests
from lightning_edit.commands.arguments import CommandParser
from lightning_edit.commands.failure import causes
from lightning_edit.commands.layer_words import layer_list
from lightning_edit.errors import EditError
from lightning_edit.messages import counted, terminal
from lightning_edit.storage.own_outputs import check_replaced
from lightning_edit.storage.user.files import check_model_name

if TYPE_CHECKING:
    from lightning_edit.nets.lessons import Lesson
    from lightning_edit.nets.objective import Pupil
    from lightning_edit.nets.settings import NetSettings

# What the files of a net hold, see `save_net`.
SIGNS = {"net.json": b'"lightning-edit net', "net.safetensors": b'"checksum"'}
METHODS = ("malmen", "rledit", "mend")
NORMALIZE = ("standard", "whitened", "none")
DESCRIPTION = """Trains a net that changes keys and gradients before they are written (MALMEN, RLEdit, MEND)
and writes it into a folder, for `fit --model.source Gradient --model.source.net FOLDER`. Facts
that are edited later should not be among those that it is trained with. A training that was
stopped goes on where it was when it is started again."""
# Of the net, by the names that they have in `NetSettings`.
WHOLE = {
    "rank": "rank of its blocks (malmen and mend 1920, rledit 1024)",
    "blocks": "blocks of the net (malmen and mend 2, rledit 4)",
    "steps": "steps of Adam (200)",
    "batch": "facts of an update (16)",
    "turns": "updates of a step (malmen and mend 1, rledit 20)",
    "reach": "updates whose facts are looked at after each (10)",
}
NUMBERS = {
    "lr": "learning rate (1e-5)",
    "locality": "weight of the KL divergence on unrelated prompts (0.6)",
    "discount": "by what facts count less with each later update (0.95)",
    "penalty": "weight of the squared norm of an update (malmen and mend 0, rledit 1e-4)",
    "clip": "largest norm of a gradient (1)",
}


def main(words: list[str]) -> None:
    """Runs ``train-net``.

    Args:
        words: The arguments after the command.

    Raises:
        EditError: If an argument makes no sense, or no net can be trained.
    """
    given = _parser().parse_args(words)
    check_model_name(given.model)
    out = _folder(given.out)
    layers = None if given.layers is None else layer_list(given.layers)
    # They take seconds to import; a mistake is answered without them.
    from lightning_edit.nets.training import train
    from lightning_edit.progress import ProgressBars

    # It holds for what Lightning itself calls.
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec")
    # What devices there are and why it stopped.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    settings = _settings(given)
    pupil, lessons = _prepared(given, settings, layers)
    with ProgressBars() as report, _enough_memory():
        net = train(pupil, lessons, settings, out, given.model, given.every, report)
    same = ", ".join(f"{name} {value}" for name, value in net.made.settings.items())
    folder = shlex.quote(str(out))
    terminal().print(
        f"The net for {counted(len(net.made.places), 'map')} is in {out}. Use it: lightning-edit fit "
        f"--model.source Gradient --model.source.net {folder} ..., with the solver {net.made.solver} and as "
        f"`model.source` {same}.",
        soft_wrap=True,
    )


def _folder(given: str) -> Path:
    """Where the net goes; refuses what cannot be a folder, and one with files that no training wrote."""
    out = Path(given).expanduser()
    nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        wrong = "is no folder" if not nearest.is_dir() else "cannot be written to"
        raise EditError(f"`--out`: {nearest} {wrong}. Give a folder for the net.")
    for name, sign in SIGNS.items():
        check_replaced("--out", out / name, sign)
    return out


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Says what takes less where a training needs more memory than there is."""
    from lightning_edit.models.out_of_memory import is_out_of_memory

    try:
        yield
    except Exception as error:
        if isinstance(error, EditError) or not any(map(is_out_of_memory, causes(error))):
            raise
        raise EditError(
            "Out of memory: make a smaller net (--rank, --blocks), take fewer facts a step (--batch, --turns), or load "
            "the model in bfloat16 (--dtype)."
        ) from error


def _parser() -> CommandParser:
    parser = CommandParser(prog="lightning-edit train-net", description=DESCRIPTION)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or hub name of a transformers model")
    add(
        "--data",
        metavar="FILE",
        required=True,
        help="facts with paraphrases and neighbors, in a format that `fit` reads",
    )
    add("--out", default="net", metavar="DIR", help="where the net and its checkpoint go (net)")
    add("--method", choices=METHODS, default=METHODS[0], help="whose objective, and what is usual with it (malmen)")
    add("--layers", metavar="LIST", help="layers that are edited, e.g. 3-12 (a preset's, or guessed)")
    add(
        "--maps", metavar="NAMES", help='linear maps of each, with braces and *: "mlp.{gate,up}_proj" (down-projection)'
    )
    add("--eta", type=float, default=1e-6, metavar="X", help="the length of steps, from which the net begins (1e-6)")
    add("--normalize", choices=NORMALIZE, default=NORMALIZE[0], help="as `source.normalize` (standard)")
    add("--ridge", type=float, metavar="X", help="that of the solver, from which the net begins (1)")
    for name, meaning in WHOLE.items():
        add(f"--{name}", type=int, metavar="N", help=meaning)
    for name, meaning in NUMBERS.items():
        add(f"--{name}", type=float, metavar="X", help=meaning)
    add("--every", type=int, default=50, metavar="N", help="steps between checkpoints (50)")
    add("--seed", type=int, default=0, metavar="N", help="of the net and the order of facts (0)")
    add("--chat", choices=CHAT, default="auto", help="whether edits are asked in a chat (where there is a template)")
    add("--device", choices=DEVICES, default="auto", help="where the model runs (auto)")
    add("--dtype", choices=DTYPES, default="auto", help="precision of the weights (that of the files)")
    return parser


def _settings(given: Namespace) -> "NetSettings":
    from lightning_edit.nets.settings import METHODS as USUAL
    from lightning_edit.nets.settings import NetSettings

    if given.every < 1:
        raise EditError(f"`--every` must be a whole number of 1 or more, got {given.every}.")
    own = {name: getattr(given, name) for name in (*WHOLE, *NUMBERS, "seed") if getattr(given, name) is not None}
    settings = NetSettings(**{**USUAL[given.method][0], **own})
    for name, others in {"reach": ("turns",), "discount": ("turns", "reach")}.items():
        alone = next((other for other in others if getattr(settings, other) == 1), None)
        if name in own and alone is not None:
            raise EditError(
                f"`--{name}`: with `--{alone}` 1 no facts of earlier updates are looked at, so it has no effect. Leave "
                f"it out, or give `--{alone}` 2 or more."
            )
    return settings


def _prepared(given: Namespace, settings: "NetSettings", layers: list[int] | None) -> tuple["Pupil", list["Lesson"]]:
    """The model and the facts; what cannot be trained with is refused before the model is loaded where it can be."""
    from lightning_edit.asking.chat import ChatSettings, chat_of
    from lightning_edit.asking.questions import as_question
    from lightning_edit.cli.loaded import decoder_on
    from lightning_edit.gradients.gradient import Gradient
    from lightning_edit.keys.context_templates import ContextTemplates
    from lightning_edit.loading.pretrained import check_stated_layers
    from lightning_edit.models.auto_layers import settle_places
    from lightning_edit.models.finding.places import with_maps
    from lightning_edit.nets.lessons import lessons_of
    from lightning_edit.nets.objective import Pupil
    from lightning_edit.nets.settings import METHODS as USUAL
    from lightning_edit.solvers import Ridge, Sum

    _, of_source, solver_name = USUAL[given.method]
    if solver_name == "Sum" and given.ridge is not None:
        raise EditError(f"`--ridge`: {given.method} solves nothing and has none. Leave it out.")
    solver = Sum() if solver_name == "Sum" else Ridge(1.0 if given.ridge is None else given.ridge)
    maps = [] if given.maps is None else [given.maps]
    source = Gradient(maps=maps, eta=given.eta, normalize=given.normalize, **of_source)
    # A fact may be there with several answers: what a net learns is then not the answer.
    requests = read_requests(given.data, conflicts="replace")
    chat: Any = CHAT[given.chat]
    if layers is not None:
        check_stated_layers(given.model, layers)
    decoder, tokenizer = decoder_on(given.model, given.device, given.dtype, chat)
    templates, decoder = ContextTemplates(), with_maps(decoder, maps)
    if chat_of(tokenizer) is not None:
        requests, templates = [as_question(request) for request in requests], templates.in_worlds(ChatSettings())
    places = settle_places("auto" if layers is None else layers, decoder, "Ridge", True, maps)
    source.check(tokenizer, requests, templates, decoder)
    lessons = lessons_of(requests, tokenizer, decoder.context, settings.locality > 0)
    return Pupil(decoder, tokenizer, source, solver, places, templates), lessons
