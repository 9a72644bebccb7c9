"""The kernels as a GPU gets them, on a machine without one: Triton compiles for a Hopper GPU wherever it runs.

That they are right is `test_ops`' business, in Triton's interpreter or on a device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

COMPILE = """
import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from trainer.models.wide_resnet import WideResNet
from trainer.ops import fused


class Hopper:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


driver.set_active(Hopper())
compiled = {}


def launch(kernel, grid, *arguments, warps, **constants):
    done = kernel.warmup(*arguments, grid=grid, **constants, num_warps=warps, enable_fp_fusion=False)
    compiled[f"{kernel.__name__} {json.dumps(constants)}"] = {
        "warps": warps,
        "shared": done.metadata.shared,
        "ptx": [line.strip() for line in done.asm["ptx"].splitlines()],
        "cubin": len(done.asm["cubin"]),
    }


fused.launch = launch
shapes = []
model = WideResNet(28, 4, 10)
for site in model.sites:
    site.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[1:])))
with torch.no_grad():
    model(torch.zeros(1, 3, 32, 32))
for shape in sorted(set(shapes)):
    for dtype, random in json.loads(sys.argv[1]):
        x = torch.zeros((2, *shape), dtype=getattr(torch, dtype)).contiguous(memory_format=torch.channels_last).requires_grad_()
        ones = torch.ones(shape[0], requires_grad=True)
        priority = torch.ones(x.shape) if random else None
        out = fused.norm_relu_topk(x, ones, ones, torch.tensor(5, dtype=torch.int32), priority=priority)
        out.sum().backward()
print(json.dumps({"sites": len(shapes), "shapes": len(set(shapes)), "compiled": compiled}))
"""


def compiled_for_hopper(folder: Path, cases: list[tuple[str, bool]]) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, json.dumps(cases)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_site_of_the_papers_network_compiles_for_a_hopper_gpu_in_bfloat16(tmp_path: Path) -> None:
    found = compiled_for_hopper(tmp_path, [("bfloat16", False)])
    assert found["sites"] == 25
    kernels = found["compiled"]
    assert {name.split()[0] for name in kernels} == {"resident_pairs", "backward"}  # every row fits, so nothing is streamed
    assert len(kernels) == 2 * found["shapes"]
    for name, kernel in kernels.items():
        assert kernel["cubin"] > 0
        assert kernel["shared"] <= 227 * 1024, name
    forward = [kernel for name, kernel in kernels.items() if name.startswith("resident_pairs")]
    assert all(any("cvt.rn.relu.bf16x2" in line for line in kernel["ptx"]) for kernel in forward)
    assert all(any("dp4a" in line for line in kernel["ptx"]) for kernel in forward)


@pytest.mark.parametrize(("dtype", "random"), [("float32", False), ("bfloat16", True)])
def test_so_it_does_in_float32_and_with_random_survivors_where_the_longest_rows_are_streamed(
    tmp_path: Path, dtype: str, random: bool
) -> None:
    found = compiled_for_hopper(tmp_path, [(dtype, random)])
    resident = {name: '"RESIDENT": true' in name for name in found["compiled"] if name.startswith("forward")}
    assert len(resident) == found["shapes"]
    assert set(resident.values()) == {True, False}
