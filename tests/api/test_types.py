"""What a type checker sees of the installed package: its own types, without a setting of the user's."""

import subprocess
import sys

from tests.test_package import environment, wheel

__all__ = ["environment", "wheel"]
SCRIPT = """
from typing import assert_type

import lightning_edit
from lightning_edit import EMMET, EditRequest, EditResult, ValueSettings


def write(model: object, tokenizer: object) -> float:
    fact = EditRequest("Hulbin Larrem", "{} earns a living as a", "roofer")
    result = lightning_edit.edit(model, tokenizer, [fact], EMMET(), layers=[0], values=ValueSettings(steps=5))
    assert_type(result, EditResult)
    with lightning_edit.edited(model, tokenizer, [fact], layers="auto", previous_keys=True) as other:
        assert_type(other, EditResult)
        print(other.summary(), other.ask("Who is Hulbin Larrem?").after)
    result.save("update.safetensors")
    result.to_lora("adapter", rank=8)
    result.remove()
    return assert_type(result.after["efficacy_accuracy"], float) - result.before["efficacy_accuracy"]
"""
# Each line that is wrong, and what is said of it.
MISTAKES = {
    'lightning_edit.edit(None, None, ["a fact"])': 'has incompatible type "str"; expected "EditRequest"',
    "lightning_edit.edited(None, None, [], solvr=None)": 'Unexpected keyword argument "solvr" for "edited"',
    "name: str = lightning_edit.edit(None, None, []).after": 'has type "Figures", variable has type "str"',
}
# Only what others bring is skipped: it takes a minute to read, and is not what is tested.
CONFIG = """
[mypy]
strict = true
[mypy-torch.*,transformers.*,lightning.*,torchmetrics.*,datasets.*,sklearn.*,matplotlib.*,rich.*,nltk.*,numpy.*]
follow_imports = skip
follow_imports_for_stubs = true
ignore_missing_imports = true
"""


def test_a_users_script_is_checked_against_the_types_of_the_package(environment, tmp_path):
    script, mistakes, config = tmp_path / "script.py", tmp_path / "mistakes.py", tmp_path / "mypy.ini"
    script.write_text(SCRIPT)
    lines = list(MISTAKES)
    mistakes.write_text("\n".join(["import lightning_edit", *lines]) + "\n")
    config.write_text(CONFIG)
    python = environment / "bin" / "python"
    ask = (sys.executable, "-m", "mypy", "--python-executable", python, "--config-file", config, script, mistakes)
    ended = subprocess.run([str(word) for word in ask], capture_output=True, text=True, cwd=tmp_path)
    said = ended.stdout.splitlines()
    assert not [line for line in said if "script.py" in line], ended.stdout + ended.stderr
    for number, line in enumerate(lines, start=2):
        found = [text for text in said if text.startswith(f"mistakes.py:{number}:")]
        assert any(MISTAKES[line] in text for text in found), (line, ended.stdout)
