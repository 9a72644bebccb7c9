"""What the lab makes of its measurements, on made-up ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks import gpu_lab_sites
from benchmarks.gpu_lab import COMMAND
from benchmarks.gpu_lab_convolutions import Layer
from benchmarks.gpu_lab_runs import losers, verdict
from benchmarks.gpu_profile import Kernel, overlap
from benchmarks.gpu_setting import GPU, Bench
from benchmarks.gpu_threads import at_once
from tests.conftest import ROOT

CPU = torch.device("cpu")


def test_the_time_that_kernels_share_is_counted_for_each_pair() -> None:
    """Three kernels; the last begins in both others. They are busy from 0 to 12, and work 10 + 8 + 4."""
    shared = overlap([Kernel("a", 0, 10), Kernel("b", 4, 12), Kernel("c", 8, 12)])
    assert (shared.work, shared.busy) == (22, 12)
    assert shared.pairs == [("a", "b", 6), ("b", "c", 4), ("a", "c", 2)]


def test_kernels_that_follow_each_other_share_nothing() -> None:
    shared = overlap([Kernel("a", 0, 1), Kernel("a", 1, 2), Kernel("b", 3, 4)])
    assert (shared.work, shared.busy, shared.pairs) == (3, 3, [])


def test_a_technique_without_which_an_epoch_is_1_percent_faster_is_a_loser() -> None:
    seconds = {"all": 2.0, "without sums": 2.1, "without copies": 1.99, "without fork": 1.98}
    measured = {name: {"epoch_seconds": value} for name, value in {**seconds, "without tail": 1.8}.items()}
    assert losers(measured) == ["fork", "tail"]
    assert losers(None) == []


def bench(device: str, found: dict[str, Any]) -> Bench:
    return Bench(GPU, torch.device(device), Path(), mock.Mock(), found, lambda: None)


def test_which_techniques_pay_is_only_told_where_it_was_measured() -> None:
    measured = {"techniques": {"all": {}}}
    assert verdict(bench("cuda", measured), ["fork"]) == "Techniques that do not pay: fork."
    assert verdict(bench("cuda", measured), []) == "Techniques that do not pay: none."
    assert "does not tell" in verdict(bench("cpu", measured), ["fork"])
    for lacking in ({}, {"techniques": None}):  # it was not asked for, or failed
        assert "needs the part `techniques`" in verdict(bench("cuda", lacking), [])


def test_the_table_of_sites_has_tiles_and_stages_for_the_backward_kernel_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    forward = {"kernel": "forward", "warps": 8, "tile": 0, "tiles": 0, "stages": 1, "us": 2.0}
    backward = {"kernel": "backward", "warps": 4, "tile": 2048, "tiles": 3, "stages": 2, "us": 5.0}
    now = {"forward": 3.0, "backward": 6.0}
    line = {"shape": [64, 32, 32], "sites": 8, "now_us": now, "added_us": now}
    show = gpu_lab_sites._show  # pyright: ignore[reportPrivateUsage]
    show({"shapes": [{**line, "variants": [forward, backward]}], "ncu": {}})
    cells = [
        [it.strip() for it in said.split("|")[1:-1]] for said in capsys.readouterr().out.strip().split("\n")
    ]
    assert [line[-4:] for line in cells if line[0][0] != "-"] == [
        ["warps", "tile", "tiles", "stages"],
        ["8", "-", "-", "-"],
        ["4", "2048", "3", "2"],
    ]


def test_a_convolutions_operations_are_two_for_each_product() -> None:
    """The largest layer of WRN-28-4, and a shortcut with stride 2, which has a quarter of the places."""
    assert Layer(64, 64, 32, 3, 1).flops(128) == 2 * 128 * 1024 * 64 * 64 * 9
    assert Layer(64, 128, 32, 1, 2).flops(128) == 2 * 128 * 256 * 64 * 128


def test_threads_meet_at_the_gate_and_their_results_keep_their_order() -> None:
    met: list[int] = []

    def work(number: int, gate: threading.Barrier) -> tuple[int, int]:
        met.append(number)
        gate.wait()
        return number, len(met)

    found = at_once(CPU, [lambda gate, number=number: work(number, gate) for number in range(3)])
    assert found == [(0, 3), (1, 3), (2, 3)]


def test_a_thread_that_fails_keeps_nobody_waiting_and_its_error_is_raised() -> None:
    def waits(gate: threading.Barrier) -> None:
        gate.wait()

    def fails(_: threading.Barrier) -> None:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        at_once(CPU, [waits, fails, waits])


def test_the_plan_of_the_lab_has_every_part_and_fits_its_time() -> None:
    assert list(COMMAND.setting.plan) == list(COMMAND.parts)
    assert sum(COMMAND.setting.plan.values()) <= COMMAND.setting.seconds < 540


def test_the_lab_runs_where_only_torch_triton_numpy_and_pyarrow_are_installed() -> None:
    """A machine that is lent for minutes has nothing else: none of the rest may be imported."""
    code = """
import sys
import benchmarks.convolution, benchmarks.gpu, benchmarks.gpu_lab
import trainer.models.wide_resnet, trainer.ops.fused
beside = {"mlflow", "optuna", "pandas", "pydantic", "ray", "rich", "sklearn", "sweep", "typer", "yaml"}
print(*sorted(beside & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
