"""Places of an edit beside the down-projections: other linear maps of a block, named by patterns.

A place is a position in `Decoder.names`. Those of the down-projections are the numbers of their blocks. The maps that
were asked for follow, for all blocks the first one, then for all blocks the next, so that a place does not depend on
which layers are edited.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from fnmatch import fnmatchcase

from lightning_edit.errors import EditError
from lightning_edit.messages import quoted
from lightning_edit.models.decoder import Decoder, check_layers
from lightning_edit.models.finding.find_sites import check_editable, uses_of
from lightning_edit.models.finding.routed_keys import is_experts
from lightning_edit.models.finding.sites import capture_keys, output_size
from lightning_edit.models.hooks import Captured, capture_output


def spelled_out(pattern: str) -> list[str]:
    """A pattern without braces: ``mlp.{gate,up}_proj`` stands for two.

    Args:
        pattern: A name, in which a list in braces stands for each of its entries, and ``*`` for any text.

    Example:
        >>> spelled_out("mlp.{gate,up}_proj")
        ['mlp.gate_proj', 'mlp.up_proj']
    """
    before, opened, rest = pattern.partition("{")
    inside, closed, after = rest.partition("}")
    if not opened or not closed:
        return [pattern]
    return [name for entry in inside.split(",") for name in spelled_out(f"{before}{entry.strip()}{after}")]


def with_maps(decoder: Decoder, patterns: Sequence[str]) -> Decoder:
    """The decoder with places for the maps of its blocks that patterns name; all of them if there is no pattern.

    Args:
        decoder: The model.
        patterns: See `spelled_out`; names within a block.
    """
    wanted, maps = [name for pattern in patterns for name in spelled_out(pattern)], dict[str, list[str]]()
    for number, block in enumerate(_block_names(decoder) if wanted else ()):
        for name in _linear_maps(decoder, number):
            place = f"{block}.{name}"
            if place != decoder.names[number] and any(fnmatchcase(name, one) for one in wanted):
                maps.setdefault(name, [""] * len(decoder.blocks))[number] = place
    return replace(decoder, names=(*decoder.names, *(n for names in maps.values() for n in names)), maps=tuple(maps))


def places_of(decoder: Decoder, layers: Sequence[int], patterns: Sequence[str]) -> list[int]:
    """The places that are edited in some blocks, in ascending order.

    Args:
        decoder: As `with_maps` returns it for the same patterns.
        layers: Numbers of blocks.
        patterns: See `with_maps`; without any it is the down-projections.

    Raises:
        EditError: If a block has no map of that name, which lists those that it has, or one cannot be edited.
    """
    if not patterns:
        return list(layers)
    places, blocks = set[int](), _block_names(decoder)
    for layer in layers:
        of_block = range(layer, len(decoder.names), len(decoder.blocks))
        names = {place: decoder.names[place].removeprefix(f"{blocks[layer]}.") for place in of_block}
        for one in (name for pattern in patterns for name in spelled_out(pattern)):
            found = {place for place, name in names.items() if name and fnmatchcase(name, one)}
            if not found:
                raise EditError(
                    f"`source.maps`: layer {layer} of {type(decoder.model).__name__} has no linear map {quoted(one)}. "
                    f"It has {', '.join(_linear_maps(decoder, layer))}."
                )
            places |= found
    return check_places(decoder, sorted(places))


def check_places(decoder: Decoder, places: Sequence[int]) -> list[int]:
    """Refuses places at which nothing can be written.

    Args:
        decoder: The model.
        places: Those that are to be edited, ascending.

    Raises:
        EditError: See `check_layers` and `check_editable`.
    """
    count, uses = len(decoder.blocks), uses_of(decoder.model)
    if sites := [place for place in places if place < count]:
        check_layers(decoder, sites)
    for place in places[len(sites) :]:
        check_editable(decoder.model, decoder.names[place], uses)
    return list(places)


def blocks_of(decoder: Decoder, places: Sequence[int]) -> list[int]:
    """The numbers of the blocks in which places are, ascending.

    Args:
        decoder: The model.
        places: Positions in its names.
    """
    return sorted({decoder.block_of(place) for place in places})


def weight_shape(decoder: Decoder, place: int) -> tuple[int, int]:
    """The shape of the weight of a place, ``(d_out, d_in)``, of E experts ``(d_out, E d_in)``.

    Args:
        decoder: The model.
        place: A position in its names.
    """
    return output_size(decoder.down_projection(place)) or 0, decoder.key_size(place)


def keys_captured(decoder: Decoder, places: Sequence[int]) -> list[AbstractContextManager[Captured]]:
    """Captures of the keys of places, and of whatever ends the pass behind the last of them.

    Args:
        decoder: The model.
        places: Ascending.

    Returns:
        One for each place, in their order, and perhaps one more.
    """
    modules = [decoder.down_projection(place) for place in places]
    if places[-1] < len(decoder.blocks):
        return [capture_keys(module, stop=module is modules[-1]) for module in modules]
    highest = decoder.blocks[blocks_of(decoder, places)[-1]]
    return [*map(capture_keys, modules), capture_output(highest, stop=True)]


def _linear_maps(decoder: Decoder, number: int) -> Iterator[str]:
    """The names that the linear maps of a block have in it."""
    for name, module in decoder.blocks[number].named_modules():
        if name and output_size(module) is not None and not is_experts(module):
            yield name


def _block_names(decoder: Decoder) -> list[str]:
    names = {id(module): name for name, module in decoder.model.named_modules()}
    return [names[id(block)] for block in decoder.blocks]
