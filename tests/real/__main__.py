"""``make real``: five facts are written into a real chat model, and it is asked about them and about others."""

import sys
from pathlib import Path

from lightning_edit.cli import main as cli
from lightning_edit.errors import EditError
from lightning_edit.messages import terminal
from tests.real.model import real_model

FACTS = Path(__file__).parent / "facts.csv"
QUESTIONS = ("Where is the Eiffel Tower?", "What is the capital of Japan?", "What is the capital of France?")


def main(arguments: list[str]) -> None:
    """Edits and asks.

    Args:
        arguments: More settings of ``fit``.
    """
    try:
        model = real_model()
    except EditError as error:
        terminal(stderr=True).print(str(error), soft_wrap=True)
        sys.exit(2)
    folder = Path("runs") / "real"
    number = sum(1 for _ in folder.glob("version_*"))
    logger = [f"--trainer.logger.{name}={value}" for name, value in (("name", "real"), ("version", number))]
    data = ["--data=OwnEdits", f"--data.path={FACTS}"]
    settings = ["--config=configs/models/smollm2_135m.yaml", f"--model.model={model}"]
    cli.main(["fit", *settings, *data, *logger, *arguments])
    cli.main(["ask", str(folder / f"version_{number}"), "--tokens=24", *(f"--once={q}" for q in QUESTIONS)])


if __name__ == "__main__":
    main(sys.argv[1:])
