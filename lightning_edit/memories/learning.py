"""What is learned for an edit: an output of the layer at the prompt's last token, or a part of W_m by descent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.memories.memoir import Memoir
from lightning_edit.models.decoder import Decoder
from lightning_edit.models.hooks import by_position, capture_input, capture_output, change_output, resume_from

# The loss of each edit ``(edits,)`` in nats a token, in one pass with one row for each.
Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Descent:
    """How an edit is learned.

    Args:
        lr: Learning rate.
        steps: Most steps.
        enough: The loss, in nats a token, at which an edit is learned.
        clip: The largest norm of a gradient; for descent on W_m.
    """

    lr: float
    steps: int
    enough: float
    clip: float = 1.0


@dataclass(frozen=True)
class Seen:
    """What a layer's down-projection is given and gives in the texts of some edits, in full precision.

    Args:
        keys: ``(edits, length, d_in)``.
        output: ``(edits, length, d_out)``.
    """

    keys: Tensor
    output: Tensor


def look(decoder: Decoder, layer: int, loss: Loss, edits: int) -> Seen:
    """One pass to see what goes through a down-projection.

    Args:
        decoder: The model.
        layer: The layer.
        loss: Runs the pass.
        edits: How many rows it has.
    """
    module = decoder.down_projection(layer)
    with torch.no_grad(), capture_input(module) as keys, capture_output(module) as output:
        loss()
    full = torch.promote_types(output.value.dtype, torch.float32)
    return Seen(by_position(keys.value, edits).to(full), by_position(output.value, edits).to(full))


@contextmanager
def from_layer(decoder: Decoder, layer: int, loss: Loss) -> Iterator[None]:
    """Inside a ``with`` block the blocks below a layer are not run again, where the model can go on without them.

    Args:
        decoder: The model.
        layer: The layer.
        loss: The pass that will be repeated.
    """
    if layer == 0 or not decoder.resumption.after(layer - 1):
        yield
        return
    with torch.no_grad(), capture_output(decoder.blocks[layer - 1]) as below:
        loss()
    with resume_from(list(decoder.blocks[:layer]), below.output, below.value):
        yield


def find_outputs(
    decoder: Decoder, layer: int, loss: Loss, last: Sequence[int], start: Tensor, how: Descent
) -> tuple[Tensor, Tensor]:
    """What a down-projection should give at the last token of each prompt for the model to answer it, by Adam.

    The edits go through the model together, and each is learned as if it were alone.

    Args:
        decoder: The model, frozen.
        layer: The layer.
        loss: See `Loss`.
        last: For each edit the place of its prompt's last token.
        start: ``(edits, d_out)``, where the search begins.
        how: See `Descent`.

    Returns:
        The outputs ``(edits, d_out)`` with the least loss of all steps up to that at which an edit was learned, and
        that loss ``(edits,)``.
    """
    rows, columns = torch.arange(len(last), device=start.device), torch.tensor(last, device=start.device)
    value = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([value], lr=how.lr)
    best, least = start.clone(), start.new_full((len(last),), torch.inf)

    def replaced(output: Tensor) -> Tensor:
        by_row = by_position(output, len(last)).clone()
        by_row[rows, columns] = value.to(output.dtype)
        return by_row.view_as(output)

    with from_layer(decoder, layer, loss), change_output(decoder.down_projection(layer), replaced):
        for step in range(how.steps + 1):
            losses = loss()
            better = (losses.detach() < least) & (least > how.enough)
            best[better], least[better] = value.detach()[better], losses.detach()[better].to(least)
            if step == how.steps or bool((least <= how.enough).all()):
                break
            (value.grad,) = torch.autograd.grad(losses.sum(), value)
            optimizer.step()
    return best, least


def train_memory(
    decoder: Decoder, layer: int, loss: Loss, memory: Memoir, mask: Tensor, how: Descent
) -> tuple[dict[str, Tensor], float]:
    """Descent on W_m for one edit, by plain steps on the clipped gradient of its loss.

    What enters the layer does not depend on W_m, so all gradients are sums over the same masked keys u_s,

        dW_m = sum_s g_s u_s^T,      y_t = W x_t + W_m u_t + sum_s v_s (u_s . u_t),

    and a step on W_m is one on the v_s, of which there are as many as tokens: the same numbers in less room.

    Args:
        decoder: The model, frozen, without its memory.
        layer: The layer.
        loss: See `Loss`, of one edit.
        memory: The earlier edits, which the model would have.
        mask: ``(top_k,)``, the columns of the edit.
        how: See `Descent`.

    Returns:
        The tensors of the edit's `Entry`, and the least loss, with which they were.
    """
    seen = look(decoder, layer, loss, 1)
    keys, masks = seen.keys[0], memory.masks(mask.cpu()).to(seen.keys)
    owners, masked = memory.masked(keys, masks)
    own = owners == len(masks) - 1
    products = masked[own] @ masked.T
    earlier = masked @ memory.weight().to(masked).T if memory.entries else torch.zeros_like(seen.output[0])
    values = best = earlier.new_zeros(int(own.sum()), earlier.shape[1])
    least = float("inf")
    with from_layer(decoder, layer, loss):
        for step in range(how.steps + 1):
            gain = (earlier + products.T @ values).requires_grad_(True)
            with change_output(decoder.down_projection(layer), _adding(gain)):
                left = loss().sum()
            if float(left.detach()) < least:
                best, least = values, float(left.detach())
            if step == how.steps or least <= how.enough:
                break
            gradient = torch.autograd.grad(left, gain)[0][own]
            norm = float(((gradient @ gradient.T) * products[:, own]).sum().clamp(min=0).sqrt())
            values = values - how.lr * min(1.0, how.clip / max(norm, 1e-12)) * gradient
    return {"mask": mask, "keys": keys[own][:, mask.to(keys.device)], "values": best}, least


def _adding(gain: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda output: output + gain.to(output.dtype).view_as(output)
