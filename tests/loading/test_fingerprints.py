"""Fingerprints: what they depend on, and whatever way the user set torch."""

from pathlib import Path

import pytest
import torch

from lightning_edit.loading.fingerprints import describe_numerics
from tests.killing import CONTEXT
from tests.small_models import make_gpt2


def test_autocast_is_described_where_it_is_on():
    model = make_gpt2()
    usual = describe_numerics(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert describe_numerics(model) == f"{usual}, autocast bfloat16"
    assert "autocast" not in usual


def describe(owner, file):
    """In a process of its own, which alone computes in that precision."""
    part = torch.backends
    for name in owner:
        part = getattr(part, name)
    part.fp32_precision = "tf32"
    Path(file).write_text(describe_numerics(make_gpt2()))


@pytest.mark.parametrize(("owner", "expected"), [(("cuda", "matmul"), "none/tf32/none"), ((), "tf32/tf32/tf32")])
def test_precision_set_by_either_of_torchs_ways_is_described(owner, expected, tmp_path):
    process = CONTEXT.Process(target=describe, args=(owner, str(tmp_path / "described")))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert f"float32 matmul {expected}" in (tmp_path / "described").read_text()
