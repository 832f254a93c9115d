"""Quantized linear maps that are replaced by plain ones with the dequantized weight, so that they can be edited.

An update is never added to codes: W + Delta would be rounded to them, and cannot be taken out again bit for bit.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.bitsandbytes import dequantize_bnb_weight
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from lightning_edit.errors import EditError
from lightning_edit.loading.gguf_file import as_ordinary
from lightning_edit.models.finding.routed_keys import is_experts
from lightning_edit.storage.tensor_parts import plain_parts

logger = logging.getLogger(__name__)

# How libraries call the list of modules that they leave as they are.
SKIPPED = ("llm_int8_skip_modules", "modules_to_not_convert", "ignore")
# Relative to the norm, of what a map gives for random inputs: quantized activations stay below it.
LINEAR_TOLERANCE = 0.05
ROWS, PROBES = 1024, 4


def holds_codes(module: nn.Module) -> bool:
    """Whether weights are kept in another form than as plain numbers of 16 bits or more.

    Args:
        module: A model or a part of one.
    """
    return any(
        name or not part.is_floating_point() or part.dtype.itemsize < 2
        for parameter in module.parameters()
        for name, part in plain_parts(parameter.detach())
    ) or any(_has_packed_buffers(part) for part in module.modules())


def _has_packed_buffers(module: nn.Module) -> bool:
    """Whether a linear map keeps whole numbers in place of its weight, as GPTQ and AWQ do."""
    sized = hasattr(module, "in_features") and "weight" not in module._parameters
    return sized and any(not buffer.is_floating_point() for buffer in module.buffers(recurse=False))


def make_plain(model: Any, skeleton: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """Replaces modules that hold codes by the plain ones of the unquantized model, with the dequantized weight.

    The model's configuration then says that they are not quantized, so that a saved model is loaded as it is.

    Args:
        model: The model.
        skeleton: The same model unquantized, without weights; the modules of these names are taken from it.
        names: The names of the modules; those that are plain already are left alone.

    Returns:
        What was replaced, by name.

    Raises:
        EditError: If a module is not there, its weight is not in memory, or it does more than a linear map.
    """
    replaced = {}
    for name in names:
        try:
            module, like = model.get_submodule(name), skeleton.get_submodule(name)
        except AttributeError as error:
            raise EditError(f"{type(model).__name__} has no module {name}, which is to be edited.") from error
        if holds_codes(module) and is_experts(like):
            raise EditError(
                f"{name} holds experts that are quantized, which cannot be dequantized apart from the rest. Edit "
                "another site of the layer (`sites: shared` or `dense`), or load the model in bfloat16."
            )
        if holds_codes(module):
            new = _plain_form(name, module, like, model.dtype)
            replaced[name] = module
            model.set_submodule(name, new)
    if replaced and not _note_plain(model, list(replaced)):
        logger.warning(
            "%s files cannot say that some matrices are not quantized, so transformers will not load the edited model "
            "from its folder. Keep the update, and insert it in the model it was made for.",
            getattr(model.config.quantization_config, "quant_method", "These"),
        )
    return replaced


@contextmanager
def put_back_on_error(model: Any, replaced: dict[str, nn.Module]) -> Iterator[None]:
    """Puts the modules back that `make_plain` has replaced, if the block fails.

    Args:
        model: The model.
        replaced: What `make_plain` returned.
    """
    try:
        yield
    except BaseException:
        for name, module in replaced.items():
            model.set_submodule(name, module)
        _forget_plain(model, list(replaced))
        raise


@contextmanager
def with_codes(model: Any, codes: Mapping[str, nn.Module]) -> Iterator[None]:
    """The model with the modules that `make_plain` has replaced, inside a ``with`` block.

    Args:
        model: The model.
        codes: What `make_plain` returned.
    """
    plain = {name: model.get_submodule(name) for name in codes}
    for name, module in codes.items():
        model.set_submodule(name, module)
    _forget_plain(model, list(codes))
    try:
        yield
    finally:
        for name, module in plain.items():
            model.set_submodule(name, module)
        _note_plain(model, list(codes))


@torch.no_grad()
def _plain_form(name: str, module: Any, like: nn.Module, dtype: torch.dtype) -> nn.Module:
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise EditError(f"{name} is quantized and offloaded. Give it a device of its own in `device_map`.")
    weight, bias = dequantized_weight(name, module).to(dtype), getattr(module, "bias", None)
    stored = weight.T if isinstance(like, Conv1D) else weight
    like.weight = nn.Parameter(stored.contiguous(), requires_grad=False)
    if isinstance(bias, Tensor):
        like.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return like.train(module.training)


@torch.no_grad()
def dequantized_weight(name: str, module: Any) -> Tensor:
    """The weight ``(d_out, d_in)`` of a quantized linear map as numbers of 16 bits or more.

    Args:
        name: What it is called, for messages.
        module: The map, of whatever library.

    Raises:
        EditError: If it does more than a linear map.
    """
    _unpack(module)
    weight = module._parameters.get("weight")
    if weight is None:
        return _asked(name, module)
    if hasattr(weight, "__tensor_flatten__"):
        return weight.dequantize().detach()
    if weight.dtype.itemsize == 1 and weight.is_floating_point() and hasattr(module, "weight_scale_inv"):
        return _scaled(weight, module.weight_scale_inv, module.block_size)
    numbers = dequantize_bnb_weight(weight, getattr(module, "state", None))
    return _asked(name, module) if numbers is weight else numbers.detach()


def _scaled(weight: Tensor, scale: Tensor, block: Sequence[int] | None) -> Tensor:
    """A weight in 8-bit floats times the scales of its blocks."""
    scale = scale.float()
    if block is not None:
        scale = scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        scale = scale[: weight.shape[0], : weight.shape[1]]
    return weight.float() * scale


def _asked(name: str, module: Any) -> Tensor:
    """The weight of a map that keeps it in a form of its own, from what it gives for the unit vectors."""
    d_in = int(module.in_features)
    tensor = next(iter((*module.buffers(), *module.parameters())))
    floats = [part.dtype for part in (*module.buffers(), *module.parameters()) if part.is_floating_point()]
    dtype = next((dtype for dtype in floats if dtype.itemsize >= 2), torch.float16)
    bias = module(torch.zeros(1, d_in, dtype=dtype, device=tensor.device)).float()
    columns = []
    for start in range(0, d_in, ROWS):
        units = torch.zeros(min(ROWS, d_in - start), d_in, dtype=dtype, device=tensor.device)
        units[range(len(units)), range(start, start + len(units))] = 1
        columns.append(module(units).float() - bias)
    weight = torch.cat(columns).T
    drawn = torch.randn(PROBES, d_in, generator=torch.Generator().manual_seed(0)).to(tensor.device)
    given, expected = module(drawn.to(dtype)).float(), drawn @ weight.T + bias
    if not (given - expected).norm() <= LINEAR_TOLERANCE * expected.norm():
        raise EditError(
            f"{name} is a {type(module).__name__} that does not give W k + b for its input k, so it cannot be edited. "
            "Load the model without quantization, e.g. in bfloat16."
        )
    return weight


def _unpack(module: Any) -> None:
    """Undoes bitsandbytes' packing for processors with AVX512-BF16, for which it has no gradient."""
    if hasattr(module, "support_avx512bf16_for_cpu"):
        if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
            # Unpacks the weight where it is.
            module.state_dict()
        module.support_avx512bf16_for_cpu = False


def keep_usable(model: Any) -> None:
    """Keeps all quantized maps in a form through which gradients go, and which can be saved as it is.

    Args:
        model: The model.
    """
    for module in model.modules():
        _unpack(module)
    # To save a model transformers undoes what it did to read it, and has no way back for what a quantizer did.
    steps = getattr(model, "_weight_conversions", None)
    if steps:
        model._weight_conversions = [step for step in steps if not _is_quantizers(step)]


def _is_quantizers(step: Any) -> bool:
    return any(hasattr(operation, "hf_quantizer") for operation in getattr(step, "operations", ()))


def unmark_dequantized(model: Any) -> None:
    """Takes from a model that transformers has dequantized as it was read what marks it as quantized.

    Args:
        model: The model; nothing is done to one that has codes.
    """
    if getattr(model, "is_quantized", False) and not holds_codes(model):
        as_ordinary(model)


def _lists(model: Any) -> Iterator[tuple[Any, str]]:
    quantizer = getattr(model, "hf_quantizer", None)
    settings = (getattr(model.config, "quantization_config", None), getattr(quantizer, "quantization_config", None))
    for one in {id(one): one for one in settings}.values():
        for name in SKIPPED:
            if hasattr(one, name):
                yield one, name


def _note_plain(model: Any, names: Sequence[str]) -> bool:
    """Adds modules to those that are not quantized; returns whether there is such a list."""
    lists = list(_lists(model))
    for settings, attribute in lists:
        known = getattr(settings, attribute)
        # Without a list transformers leaves out some by itself, with one only those that it names.
        skipped = get_keys_to_not_convert(model) if known is None else known
        setattr(settings, attribute, sorted({*skipped, *names}))
    return bool(lists) or not hasattr(model.config, "quantization_config")


def _forget_plain(model: Any, names: Sequence[str]) -> None:
    for settings, attribute in _lists(model):
        setattr(settings, attribute, [name for name in getattr(settings, attribute) or [] if name not in names])
