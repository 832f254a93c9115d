"""The base model of a run, loaded anew as the run loaded it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from lightning_edit.errors import EditError
from lightning_edit.loading.editable import Loaded, ModelSource, load_base
from lightning_edit.loading.fingerprints import check_sample, sample_of
from lightning_edit.loading.weight_forms import Precision
from lightning_edit.messages import quoted
from lightning_edit.updates.model_update import ModelUpdate
from lightning_edit.updates.run_settings import CONFIG, settings_of


def base_of(
    folder: Path | None, update: ModelUpdate, name: str | None = None, trust_remote_code: bool = False
) -> tuple[Loaded, ModelSource]:
    """The model that an update was made for, where and in what precision the run loaded it.

    Args:
        folder: The run's, which need not hold a configuration; None for an update that lies elsewhere.
        update: The update, of which the tensors are not looked at.
        name: The base model, where it is not where the run found it.
        trust_remote_code: Whether code that comes with the base model may be run.

    Returns:
        The model with the edited modules plain, and where it came from.

    Raises:
        EditError: If it cannot be loaded, or is not the model that the update was made for.
    """
    settings, where = ({}, Path("the update")) if folder is None else (settings_of(folder), folder / CONFIG)
    source = source_of(settings, update.info, where, name, trust_remote_code)
    base = load_again(source, [layer.module for layer in update.layers.values()])
    update.check(base.model)
    check_sample(update.info.get("model_sample"), sample_of(base.model), source.name)
    return base, source


def source_of(
    settings: Mapping[str, Any],
    info: Mapping[str, Any],
    where: Path,
    name: str | None = None,
    trust_remote_code: bool = False,
) -> ModelSource:
    """Where the model of a run came from.

    Args:
        settings: Those of the run's ``model``.
        info: What its update says, where there are no settings.
        where: The file that holds the settings.
        name: See `base_of`.
        trust_remote_code: The same.

    Raises:
        EditError: If the settings name no model, or no precision.
    """
    name = name or settings.get("model") or info.get("model") or ""
    dtype: Any = settings.get("dtype") or info.get("dtype") or "auto"
    if not isinstance(name, str) or dtype not in get_args(Precision):
        raise EditError(
            f"{where}: `model.model` must be a name and `model.dtype` one of "
            f"{', '.join(get_args(Precision))}, got {quoted(name)} and {quoted(dtype)}."
        )
    how: Any = {"quantization": settings.get("quantization"), "beside": settings.get("write") == "beside"}
    with _named():
        return ModelSource(name, dtype, None, None, trust_remote_code, **how)


def load_again(source: ModelSource, plain: list[str]) -> Loaded:
    """Loads a base model; see `load_base`.

    Args:
        source: Where it comes from.
        plain: The names of the modules that were edited.
    """
    with _named():
        return load_base(source, plain)


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except EditError as error:
        raise EditError(f"{error} The weights are recomputed from the base model: give it with --model.") from error
