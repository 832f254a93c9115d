"""Fingerprints of what the numbers of a run depend on: the model, its tokenizer, the software."""

import json
from typing import Any

import torch
import transformers

from lightning_edit.asking.chat import chat_of, plain_tokenizer
from lightning_edit.loading.offloading import in_memory
from lightning_edit.storage.fingerprint import fingerprint


def fingerprint_model(model: Any) -> str:
    """The hash of a model: its configuration, and all weights as they are now, names included.

    Args:
        model: A transformers model.
    """
    # Where a model was loaded from changes nothing of what it computes.
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    described = json.dumps(config, sort_keys=True, default=str)
    return fingerprint(
        described,
        *(part for name, t in sorted(model.state_dict().items()) for part in (name, in_memory(model, name, t))),
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
    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, {model.device.type}, "
        f"float32 matmul {_matmul_precision()}, "
        f"attention {getattr(model.config, '_attn_implementation', None)}"
    )


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        # Set by torch's newer settings, one for each backend, of which the older one gives no account.
        mkldnn: Any = torch.backends.mkldnn
        backends: tuple[Any, ...] = (torch.backends, torch.backends.cuda.matmul, mkldnn.matmul)
        return "/".join(str(backend.fp32_precision) for backend in backends)
