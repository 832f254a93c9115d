"""Models of which each process holds a part (FSDP2), loaded without a process but the first ever holding all of it."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_edit.distributed.process_group import Together, is_sharded
from lightning_edit.distributed.sharded_weights import whole, write_whole
from lightning_edit.errors import EditError
from lightning_edit.loading.editable import ModelSource
from lightning_edit.loading.model_files import source as place_of
from lightning_edit.loading.pretrained import load_model, load_skeleton
from lightning_edit.models.decoder import find_decoder


def load_sharded(source: ModelSource, device_type: str) -> Any:
    """The model in evaluation mode, divided between all processes; all of them must ask at the same time.

    The first process reads the file into its main memory and hands out the parts, one weight after the other. A pass
    gathers one block at a time.

    Args:
        source: Where it comes from.
        device_type: Where the parts are kept, e.g. ``cuda``: on the process's current device of that type.

    Raises:
        EditError: If there is no such model, in every process, or if it is quantized, whose codes are not divided.
    """
    trusted = source.trust_remote_code
    first = torch.distributed.get_rank() == 0
    loaded = None
    with Together():
        if first:
            _refuse_quantized(source)
            loaded = load_model(source.name, source.dtype, trust_remote_code=trusted)
        elif trusted:
            # The configuration that is handed out may be of a class that the model brings.
            AutoConfig.from_pretrained(place_of(source.name)[0], trust_remote_code=True)
    model = _same_everywhere(loaded, trusted)
    # FSDP moves parameters to their device in place; these stay where they were read.
    read = {key: parameter.detach() for key, parameter in model.named_parameters()} if first else {}
    mesh = init_device_mesh(device_type, (torch.distributed.get_world_size(),))
    for block in find_decoder(model, source.down_projection).blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # Unlike in training, where the root's backward follows at once, its weights would lie around for long.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    if not first:
        model.to_empty(device=device_type)
        model.tie_weights()
    for key, parameter in model.named_parameters():
        write_whole(parameter, _or_empty(read.pop(key, None), parameter))
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, 0)
    return model


def _refuse_quantized(source: ModelSource) -> None:
    settings = (source.name, source.dtype, source.quantization, source.trust_remote_code)
    if load_skeleton(*settings) is not None:
        raise EditError(
            "A quantized model is not divided between processes. Set `trainer.devices: 1`, with `model.device_map: "
            "auto` where it needs several devices, or load it without quantization."
        )


def gathered_weights(model: Any) -> dict[str, Tensor] | None:
    """All weights of a divided model in the first process's main memory; all processes must ask at the same time.

    Args:
        model: The model.

    Returns:
        The state dictionary, with empty tensors in the other processes; None for a model that is not divided.
    """
    if not is_sharded(model):
        return None
    named, first = model.state_dict(keep_vars=True), torch.distributed.get_rank() == 0
    gathered: dict[int, Tensor] = {}
    for tensor in named.values():
        # Tied weights are one tensor, and are written as one.
        if id(tensor) not in gathered:
            full = whole(tensor.detach())
            gathered[id(tensor)] = full.cpu() if first else torch.empty(0)
    return {name: gathered[id(tensor)] for name, tensor in named.items()}


def _same_everywhere(loaded: Any, trust_remote_code: bool) -> Any:
    """The first process's model; in the others one like it, whose weights are on ``meta`` and take no room."""
    description = [(loaded.config, loaded.dtype, loaded.generation_config) if loaded is not None else None]
    torch.distributed.broadcast_object_list(description)
    if loaded is not None:
        return loaded
    assert description[0] is not None
    config, dtype, generation = description[0]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    model.generation_config = generation
    return model.eval().requires_grad_(False)


def _or_empty(values: Tensor | None, like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, device=like.device) if values is None else values
