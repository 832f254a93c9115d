"""Fingerprints of what the numbers of a run depend on: the model, its tokenizer, the software."""

import json
from typing import Any

import torch
import transformers

from lightning_edit.asking.chat import chat_of, plain_tokenizer
from lightning_edit.distributed.process_group import is_sharded
from lightning_edit.errors import EditError
from lightning_edit.loading.dequantization import holds_codes
from lightning_edit.loading.offloading import in_memory, is_offloaded
from lightning_edit.models.beside_weights import answers_beside
from lightning_edit.models.precision import autocast_now
from lightning_edit.storage.fingerprint import fingerprint

# Numbers of each weight that are looked at: another model differs in more than a few, and all would take long.
SAMPLED = 1024


def fingerprint_model(model: Any) -> str:
    """The hash of a model: its configuration, all weights as they are now, names included, and memories beside them.

    Args:
        model: A transformers model.
    """
    # Where a model was loaded from changes nothing of what it computes.
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    described = json.dumps(config, sort_keys=True, default=str)
    return fingerprint(
        described,
        *(part for name, t in sorted(model.state_dict().items()) for part in (name, in_memory(model, name, t))),
        *answers_beside(model),
    )


def sample_of(model: Any) -> str | None:
    """The hash of numbers spread evenly over every weight: whether two models are the same, in no time.

    Names of weights do not count, which other versions of transformers may change. Memories beside them do.

    Args:
        model: A transformers model.

    Returns:
        The hash; None for a model that lies in several places, or whose codes may be laid out for a device.
    """
    if is_sharded(model) or is_offloaded(model) or holds_codes(model):
        return None
    parts = []
    for weight in model.state_dict().values():
        flat = weight.flatten()
        places = torch.linspace(0, max(0, flat.numel() - 1), min(SAMPLED, flat.numel()), dtype=torch.float64).long()
        parts.append(fingerprint(str(tuple(weight.shape)), flat[places.to(flat.device)]))
    return fingerprint(*sorted(parts), *answers_beside(model))


def check_sample(then: str | None, now: str | None, name: str) -> None:
    """Refuses another model than the one that was edited, whose edited matrices may be the same.

    Args:
        then: `sample_of` the unedited model of a run; None where it was not noted.
        now: That of this model; None where there is none.
        name: Of this model.

    Raises:
        EditError: If they differ.
    """
    if then is not None and now is not None and then != now:
        raise EditError(
            f"{name} has changed since it was edited: weights that the run did not edit are other ones. Give the "
            "unedited model as the run found it."
        )


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """The hash of all that decides the tokens of a text; how batches are padded does not count.

    It takes a moment for a large vocabulary: ask once.

    Args:
        tokenizer: A fast transformers tokenizer or a `ChatTokenizer`, whose format counts.
    """
    chat, tokenizer = chat_of(tokenizer), plain_tokenizer(tokenizer)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two are set anew by each call and keep what the last one wanted.
    for name in ("padding", "truncation"):
        backend.pop(name, None)
    names = ("add_bos_token", "add_eos_token", "split_special_tokens", "bos_token", "eos_token", "unk_token")
    settings = {name: str(getattr(tokenizer, name, None)) for name in names}
    # A class may do more than its backend says.
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    form = [] if chat is None else [repr(chat)]
    return fingerprint(kind, json.dumps(settings), json.dumps(backend, sort_keys=True), *form)


def describe_numerics(model: Any) -> str:
    """What decides the last bits of a result beside the weights, in words: software, device, precision, attention.

    Args:
        model: A transformers model.
    """
    autocast = autocast_now().get(model.device.type)
    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, {model.device.type}, "
        f"float32 matmul {_matmul_precision()}, "
        f"attention {getattr(model.config, '_attn_implementation', None)}"
        # Not named where it is off, so that what was kept before it was looked at is found.
        f"{'' if autocast is None else f', autocast {autocast}'}"
    )


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # Set by torch's newer settings, one for each backend, of which the older one gives no account.
        mkldnn: Any = torch.backends.mkldnn
        backends: tuple[Any, ...] = (torch.backends, torch.backends.cuda.matmul, mkldnn.matmul)
        return "/".join(str(backend.fp32_precision) for backend in backends)
