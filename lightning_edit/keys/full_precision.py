"""Matrix products that keep all digits of float32, whatever a user allows for the model's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 factors are multiplied as they are, where `torch.set_float32_matmul_precision` would round them first."""
    backends: Any = torch.backends
    kinds = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
