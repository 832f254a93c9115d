"""Models that accelerate spreads over the devices of one process, or reads from the disk while they run."""

from typing import Any

from torch import Tensor, nn
from transformers.integrations.accelerate import load_offloaded_parameter
from transformers.utils import is_accelerate_available

from lightning_edit.errors import EditError

DeviceMap = str | dict[str, str | int]


def check_device_map(device_map: DeviceMap | None, processes: int) -> None:
    """Refuses to spread a model where that is not possible.

    Args:
        device_map: What the user asks for.
        processes: How many processes there are in the run.

    Raises:
        EditError: Without accelerate, and in a run of several processes.
    """
    if device_map is None:
        return
    if processes > 1:
        raise EditError(
            f"`device_map` spreads a model over the devices of one process, and there are {processes}. Leave it out "
            "and set `trainer.strategy: ModelParallelStrategy`, or set `trainer.devices: 1`."
        )
    if not is_accelerate_available():
        raise EditError("`device_map` needs accelerate: pip install 'lightning-edit[accelerate]'.")


def is_offloaded(model: Any) -> bool:
    """Whether the parts of a model have places of their own, from which nobody must move them.

    Args:
        model: The model, None if there is none yet.
    """
    return getattr(model, "hf_device_map", None) is not None


def keep_in_memory(model: Any, module: nn.Module) -> None:
    """Ends the offloading of one module: its weights stay where it runs, and what is written into them is kept.

    Args:
        model: The model, spread or not.
        module: A part of it that holds weights itself.
    """
    if not is_offloaded(model):
        return
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
    from accelerate.utils import has_offloaded_params, set_module_tensor_to_device

    if not has_offloaded_params(module):
        return
    hook: Any = module._hf_hook
    device = hook.execution_device
    name = next(name for name, other in model.named_modules() if other is module)
    values = {own: load_offloaded_parameter(model, f"{name}.{own}") for own, _ in module.named_parameters()}
    remove_hook_from_module(module)
    for own, value in values.items():
        set_module_tensor_to_device(module, own, device, value=value)
    add_hook_to_module(module, AlignDevicesHook(execution_device=device))


def in_memory(model: Any, name: str, tensor: Tensor) -> Tensor:
    """A tensor of a model's state dictionary, read from where it is kept between passes.

    Args:
        model: The model, spread or not.
        name: The tensor's name.
        tensor: What the state dictionary holds; offloaded ones are on ``meta``.
    """
    return load_offloaded_parameter(model, name).to(tensor.dtype) if tensor.is_meta else tensor
