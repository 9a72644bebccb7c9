"""The kernels as a GPU gets them, without a GPU: Triton compiles for a Hopper GPU wherever it runs.

`test_ops` checks their results, in Triton's interpreter or on a device.
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

pytestmark = [pytest.mark.slow]


def test_a_file_that_cannot_be_added_to_is_told_before_anything_is_compiled(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    other.write_text('{"another": "object"}')
    for into, why in ((other, "is no results file"), (tmp_path / "typo" / "it.json", "there is no folder")):
        command = [sys.executable, "-m", "benchmarks.kernels", "--into", str(into)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 2
        (said,) = done.stderr.splitlines()
        assert why in said
    assert list(tmp_path.iterdir()) == [other]
    assert other.read_text() == '{"another": "object"}'


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cache = {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | cache
    command = [sys.executable, "-m", "benchmarks.kernels", "--ptx"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_site_of_the_papers_network_compiles_for_a_hopper_gpu(compiled: dict[str, Any]) -> None:
    assert compiled["sites"] == 25
    for case, kernels in compiled["cases"].items():
        once = case == "bfloat16, once a step"
        # four shapes, forward and backward; once a step the loss and its gradients, sums, and two updates
        assert len(kernels) == (5 if once else 8)
        assert all(kernel["shared_bytes"] <= 227 * 1024 for kernel in kernels)
        assert all(kernel["registers"] * kernel["warps"] * 32 <= 65_536 for kernel in kernels)


@pytest.mark.parametrize("case", ["bfloat16", "bfloat16, added"])
def test_in_bfloat16_every_row_fits_and_goes_through_the_kernel_that_takes_keys_in_pairs(
    compiled: dict[str, Any], case: str
) -> None:
    forward = [kernel for kernel in compiled["cases"][case] if kernel["kernel"] != "backward"]
    assert {kernel["kernel"] for kernel in forward} == {"resident_pairs"}
    for kernel in forward:
        assert "cvt.rn.relu.bf16x2" in kernel["ptx"]
        assert "dp4a" in kernel["ptx"]
        assert kernel["instructions_a_pass"] < kernel["instructions"] / 4


def test_activations_are_read_and_written_16_bytes_at_a_time_and_only_the_longest_row_spills(
    compiled: dict[str, Any],
) -> None:
    for kernel in [*compiled["cases"]["bfloat16"], *compiled["cases"]["bfloat16, added"]]:
        assert "ld.global.v4.b32" in kernel["ptx"]
        assert "st.global.v4.b32" in kernel["ptx"]
        assert not kernel["spilled_bytes"] or (kernel["kernel"], kernel["channels"]) == (
            "resident_pairs",
            64,
        )


@pytest.mark.parametrize("case", ["float32", "bfloat16, random survivors"])
def test_elsewhere_the_longest_rows_are_streamed(compiled: dict[str, Any], case: str) -> None:
    resident = {
        (it["channels"], it["places"]): it["resident"]
        for it in compiled["cases"][case]
        if it["kernel"] == "forward"
    }
    assert resident[64, 1024] is False
    assert resident[16, 1024] is resident[256, 64] is True


def test_what_a_step_launches_once_keeps_everything_in_registers(compiled: dict[str, Any]) -> None:
    kernels = compiled["cases"]["bfloat16, once a step"]
    assert {it["kernel"] for it in kernels} == {"loss_forward", "loss_backward", "add_up", "step"}
    assert not any(it["spilled_bytes"] for it in kernels)
