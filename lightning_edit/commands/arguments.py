"""Arguments of the commands that need no model."""

import argparse
from typing import NoReturn

from lightning_edit.commands.failure import fail


class CommandParser(argparse.ArgumentParser):
    """Answers a mistake with one message, as everything else here does, and no usage."""

    def error(self, message: str) -> NoReturn:
        """Shows what is wrong and leaves with status 2."""
        fail(f"{message}. `{self.prog} --help` shows what is accepted.")
