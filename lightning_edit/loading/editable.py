"""Models whose edited modules are plain linear maps, whether or not the rest is quantized."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lightning_edit.distributed.process_group import in_a_group
from lightning_edit.errors import EditError
from lightning_edit.loading.dequantization import holds_codes, keep_usable, make_plain, put_back_on_error
from lightning_edit.loading.linear_maps import LinearMaps, linear_maps
from lightning_edit.loading.offloading import DeviceMap
from lightning_edit.loading.pretrained import load_model, load_skeleton
from lightning_edit.loading.quantization import TORCHAO, check_quantization, method_of, stated_method
from lightning_edit.loading.skeleton import skeleton_like
from lightning_edit.loading.weight_forms import Precision, Quantization
from lightning_edit.models.decoder import Decoder, find_decoder
from lightning_edit.models.finding.places import with_maps
from lightning_edit.models.finding.sites import SiteKind
from lightning_edit.models.gradient_probe import check_gradients

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from, and in what form it is loaded.

    Args:
        name: See `resolve`.
        dtype: See `load_model`.
        device_map: The same.
        offload_folder: The same.
        trust_remote_code: The same.
        quantization: The same.
        down_projection: See `find_decoder`.
        sites: The same.
        beside: Whether the edited modules are quantized like the others, with updates to be kept beside their codes.
        maps: Patterns of other linear maps that are edited, see `with_maps`.

    Raises:
        EditError: If it cannot be quantized like that, see `check_quantization`.
    """

    name: str
    dtype: Precision = "auto"
    device_map: DeviceMap | None = None
    offload_folder: str | None = None
    trust_remote_code: bool = False
    quantization: Quantization | None = None
    down_projection: str | None = None
    sites: SiteKind = "auto"
    beside: bool = False
    maps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_quantization(self.quantization, self.dtype)

    def load(self, plain: Sequence[str] = ()) -> Any:
        """Loads the model; see `load_model`.

        Args:
            plain: The names of the modules that stay plain where the model is quantized.
        """
        how = (self.dtype, self.device_map, self.offload_folder, self.trust_remote_code, self.quantization)
        return load_model(self.name, *how, plain)

    def find_decoder(self, model: Any) -> Decoder:
        """The model as editing sees it; see `find_decoder`.

        Args:
            model: The model, or its modules without weights.
        """
        return with_maps(find_decoder(model, self.down_projection, self.sites), self.maps)


@dataclass(frozen=True)
class Loaded:
    """A model whose edited modules are plain.

    Args:
        model: The model.
        layers: The edited layers; None where nothing is quantized.
        maps: What its linear maps take; None where nothing is quantized.
        codes: The quantized modules beside whose codes the updates are kept, by name; the plain ones took their place.
    """

    model: Any
    layers: list[int] | None = None
    maps: LinearMaps | None = None
    codes: dict[str, nn.Module] = field(default_factory=dict)


def load_editable(source: ModelSource, settle: Callable[[Decoder], list[int]]) -> Loaded:
    """Loads a model; of one that is quantized the layers are settled first, as their matrices are to be plain.

    Args:
        source: Where it comes from.
        settle: Says which places of a model are edited.

    Raises:
        EditError: If it cannot be loaded like that, or has no such layers.
    """
    skeleton = load_skeleton(source.name, source.dtype, source.quantization, source.trust_remote_code)
    if skeleton is None:
        if source.beside:
            raise EditError("`write: beside` keeps an update beside quantized weights: set `quantization` as well.")
        return Loaded(source.load())
    _refuse_several_processes(source, skeleton)
    decoder = source.find_decoder(skeleton)
    layers = settle(decoder)
    plain = [decoder.names[layer] for layer in layers]
    model = source.load(() if source.beside else plain)
    maps = linear_maps(model, skeleton)
    codes = make_plain(model, skeleton, plain) if source.beside else {}
    if source.beside and len(codes) < len(plain):
        raise EditError(
            "`write: beside` keeps an update beside quantized weights, and those that are to be edited are not "
            "quantized. Set `write: merged`."
        )
    logger.warning("quantization: %s", maps)
    return Loaded(model, layers, maps, codes)


def _refuse_several_processes(source: ModelSource, skeleton: Any) -> None:
    """Refuses weights that torch cannot hand from process to process, as it does in the beginning of a fit."""
    method = stated_method(skeleton.config) if source.quantization is None else method_of(source.quantization)
    if method == TORCHAO and in_a_group():
        raise EditError(
            "Weights that torchao has quantized cannot be handed from process to process. Set `trainer.devices: 1`, or "
            "quantize the model by `quantization: bnb-8bit`."
        )


def load_base(source: ModelSource, plain: Sequence[str]) -> Loaded:
    """Loads the model of a run anew, with the same modules plain.

    Args:
        source: Where the run's model came from.
        plain: The names of the modules that it edited.

    Raises:
        EditError: If it cannot be loaded like that.
    """
    if not source.beside:
        return Loaded(source.load(plain))
    model = source.load()
    skeleton = load_skeleton(source.name, source.dtype, source.quantization, source.trust_remote_code)
    return Loaded(model, codes=make_plain(model, skeleton, plain) if skeleton is not None else {})


def check_quantized(decoder: Decoder, layers: Sequence[int]) -> None:
    """Refuses a quantized model through which gradients do not go; see `check_gradients`.

    Args:
        decoder: The model, quantized or not.
        layers: The edited layers, ascending.
    """
    if holds_codes(decoder.model):
        check_gradients(decoder, layers)


def structure_of(model: Any, sites: SiteKind = "auto", maps: Sequence[str] = ()) -> Decoder:
    """The decoder of a model in memory; of one that is quantized that of its unquantized form, without weights.

    Args:
        model: A transformers model.
        sites: See `find_decoder`.
        maps: See `with_maps`.

    Raises:
        EditError: See `find_decoder`.
    """
    return with_maps(find_decoder(skeleton_like(model) if holds_codes(model) else model, sites=sites), maps)


@contextmanager
def made_editable(
    model: Any, decoder: Decoder, layers: Sequence[int], sites: SiteKind = "auto", maps: Sequence[str] = ()
) -> Iterator[Decoder]:
    """A model in memory whose edited modules are plain; if the block fails, it is as it was.

    Args:
        model: The model.
        decoder: What `structure_of` returned.
        layers: The edited places.
        sites: See `find_decoder`.
        maps: See `with_maps`.
    """
    if decoder.model is model:
        yield decoder
        return
    keep_usable(model)
    with put_back_on_error(model, make_plain(model, decoder.model, [decoder.names[layer] for layer in layers])):
        yield with_maps(find_decoder(model, sites=sites), maps)
