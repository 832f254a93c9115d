"""Fingerprints: what they depend on, and whatever way the user set torch."""

import subprocess
import sys

PROGRAM = """
import torch
torch.backends.{setting} = "tf32"
from lightning_edit.models.loading import load_model
from lightning_edit.models.fingerprints import describe_numerics
assert "float32 matmul {expected}" in describe_numerics(load_model("tiny")), describe_numerics(load_model("tiny"))
"""


def test_precision_set_by_either_of_torchs_ways_is_described():
    for setting, expected in (("cuda.matmul.fp32_precision", "none/tf32/none"), ("fp32_precision", "tf32/tf32/tf32")):
        program = PROGRAM.format(setting=setting, expected=expected)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
