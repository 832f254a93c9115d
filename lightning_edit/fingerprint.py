"""Short names for long things: equal fingerprints mean equal bytes, so a cache can tell what it depends on."""

import json
from collections.abc import Iterable
from typing import Any

import torch
import xxhash
from torch import Tensor


def fingerprint(*parts: str | Tensor | Iterable[int]) -> str:
    """A 128-bit hash of texts, tensors (with shape and dtype) and token ids, in hexadecimal.

    Args:
        *parts: What to hash; their order and kinds count.
    """
    digest = xxhash.xxh3_128()
    for part in parts:
        if isinstance(part, Tensor):
            plain = part.detach().cpu().contiguous()
            digest.update(f"tensor {plain.dtype} {tuple(plain.shape)} ".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(part, str):
            digest.update(f"text {len(part)} {part} ".encode())
        else:
            digest.update(f"ids {list(part)} ".encode())
    return digest.hexdigest()


def fingerprint_model(model: Any) -> str:
    """The hash of a model: its configuration, and all weights as they are now, names included.

    Args:
        model: A transformers model.
    """
    # Where a model was loaded from changes nothing of what it computes.
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_")}
    described = json.dumps(config, sort_keys=True, default=str)
    return fingerprint(
        described, *(part for name, tensor in sorted(model.state_dict().items()) for part in (name, tensor))
    )
