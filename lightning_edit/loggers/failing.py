"""What to change where a logger cannot be used."""

from collections.abc import Iterable
from importlib.util import find_spec

from lightning_edit.errors import EditError

LOG_IN = (
    "Log in with `wandb login`, or keep the run on this machine with the logger's `offline: true`; `wandb sync` sends "
    "it later."
)
STORE = "Give the logger a store that can be written to, such as `tracking_uri: sqlite:///mlflow.db`."
ADVICE = {"wandb": LOG_IN, "mlflow": STORE}
# What a missing package is called, and what brings it.
EXTRAS = {"wandb": "wandb", "mlflow": "mlflow", "sqlalchemy": "mlflow", "alembic": "mlflow"}
# What loggers need beside this package, and how it is installed.
PACKAGES = {
    "WandbLogger": ("wandb", "'lightning-edit[wandb]'"),
    "MLFlowLogger": ("mlflow", "'lightning-edit[mlflow]'"),
    "CometLogger": ("comet_ml", "comet-ml"),
    "LitLogger": ("litlogger", "litlogger"),
}


def check_packages(names: Iterable[str]) -> None:
    """Refuses a logger whose package is not installed, before it is made: of several loggers no reason would be left.

    Args:
        names: The names of the classes, with or without their modules.

    Raises:
        EditError: Says what to install.
    """
    for name in (name.rpartition(".")[2] for name in names):
        package, needed = PACKAGES.get(name, (None, ""))
        if package is not None and find_spec(package) is None:
            raise EditError(
                f"`trainer.logger`: {name} needs the package {package}, which is not installed: pip install {needed}, "
                "or leave this logger out."
            )


def advice_on(error: BaseException) -> str:
    """What to change after an error of a logger; empty where that is not known.

    Args:
        error: What was raised.
    """
    return next((ADVICE[package] for package in map(_package, (error, error.__cause__)) if package in ADVICE), "")


def refused_by_logger(errors: Iterable[BaseException]) -> str | None:
    """The message for a run that a logger keeps from beginning; None where it was something else.

    Args:
        errors: What was raised and its causes, the outermost first.
    """
    for error in errors:
        if isinstance(error, ModuleNotFoundError):
            missing = next((extra for name, extra in EXTRAS.items() if name in str(error)), None)
            if missing is not None:
                return f"The logger needs a package that is not installed: pip install 'lightning-edit[{missing}]'."
        package = _package(error)
        if package in ADVICE:
            said = " ".join(str(error).split()).removesuffix(".")
            return f"The logger ({package}) cannot be used: {said}. {ADVICE[package]}"
    return None


def _package(error: BaseException | None) -> str:
    return "" if error is None else type(error).__module__.partition(".")[0]
