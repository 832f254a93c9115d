"""Whether gradients go through a model, found by running a few tokens: some quantized blocks let none through."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.finding.probe import probe_inputs
from lightning_edit.models.hooks import change_output, frozen


def check_gradients(decoder: Decoder, layers: Sequence[int]) -> None:
    """Refuses a model through which no gradient comes back to an edited block, so that no value could be found.

    Args:
        decoder: The model.
        layers: The edited layers, ascending.

    Raises:
        EditError: If it cannot be run with gradients here, or they do not arrive.
    """
    kind, module = type(decoder.model).__name__, decoder.down_projection(layers[-1])
    weight = decoder.weight(layers[-1])
    added = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device, requires_grad=True)

    def with_added(states: Tensor) -> Tensor:
        return states + added

    try:
        with torch.enable_grad(), frozen(decoder.model), change_output(module, with_added):
            logits = decoder.model(**probe_inputs(decoder, 1)).logits
            logits.float().square().mean().backward()
    except (EditError, MemoryError, torch.OutOfMemoryError):
        raise
    # Kernels of several libraries fail in ways of their own where they do not run on a device.
    except Exception as error:
        raise EditError(
            f"{kind} is quantized in a way that cannot be run with gradients here ({type(error).__name__}: {error}), "
            "so no value can be found. Run it on another device, or load it without quantization, e.g. in bfloat16."
        ) from error
    if added.grad is None or not added.grad.isfinite().all() or not added.grad.any():
        raise EditError(
            f"{kind} is quantized in a way that lets no gradient through, so no value can be found. Set `quantization` "
            "on a model with weights of 16 bits, or load it without quantization."
        )
