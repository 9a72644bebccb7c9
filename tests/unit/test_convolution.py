"""The convolution that the lab times beside cuDNN's: what it computes, and what a Hopper GPU gets of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

# In a process of its own, because Triton decides on import whether it interprets. Its interpreter has no
# products in bfloat16; the values are those of bfloat16, so that only the order of the sums differs.
INTERPRETED = """
import json, torch
from torch.nn.functional import conv2d
from benchmarks.convolution import VARIANTS, backward_taps, convolve, forward_taps
drawn = torch.Generator().manual_seed(1)
def normal(*shape):
    return torch.randn(shape, generator=drawn).bfloat16().float()
x, weight = normal(2, 16, 16, 16).to(memory_format=torch.channels_last), normal(32, 16, 3, 3)
x.requires_grad_()
out = conv2d(x, weight, padding=1)
gradient = normal(*out.shape).to(memory_format=torch.channels_last)
(x_gradient,) = torch.autograd.grad(out, x, gradient)
found = []
for variant in VARIANTS:
    ours = convolve(x.detach(), forward_taps(weight), variant)
    back = convolve(gradient, backward_taps(weight), variant)
    for mine, theirs in ((ours, out), (back, x_gradient)):
        assert mine.shape == theirs.shape
        found.append(float((mine - theirs).abs().max() / theirs.abs().max()))
print(json.dumps(found))
"""


def said(*arguments: str, interpreted: bool, cache: str) -> Any:
    environment = {**os.environ, "TRITON_CACHE_DIR": cache}
    environment.pop("TRITON_INTERPRET", None)
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_both_directions_are_torchs_convolution_with_zeros_outside_the_image(tmp_path: Any) -> None:
    differences = said("-c", INTERPRETED, interpreted=True, cache=str(tmp_path))
    assert len(differences) == 10  # five variants, forward and back
    assert max(differences) < 1e-5


@pytest.mark.slow
def test_a_hopper_gpu_multiplies_what_its_copy_unit_fetched(tmp_path: Any) -> None:
    """No operand goes through registers, and nothing spills."""
    found = said("-m", "benchmarks.convolution", interpreted=False, cache=str(tmp_path))
    for variant in found["variants"]:
        assert variant["products"] == variant["from_shared_memory"] > 0
        assert variant["tma_loads"] == variant["stages"]
        assert variant["spilled_bytes"] == 0
        assert variant["shared_bytes"] <= 227 * 1024
        assert variant["registers"] * variant["warps"] * 32 <= 65_536
