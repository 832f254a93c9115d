"""The version of this package."""

from importlib import metadata

NOT_INSTALLED = "not installed"


def own_version() -> str:
    """The installed version; a clone that is run as it lies has none, and says so."""
    try:
        return metadata.version("lightning-edit")
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
