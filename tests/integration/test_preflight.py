"""The questions to a node with a GPU before anything starts.

Those to every node are tested on real clusters, in `chaos`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sweep.cluster.preflight import site_problems, step_problems
from trainer import ops
from trainer.engine import Engine
from trainer.sgd import Sgd

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_a_device_that_keeps_what_the_reference_keeps_is_taken() -> None:
    assert site_problems(DEVICE) == []


def test_one_whose_kernels_cannot_be_made_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("Failed to find C compiler.\nPlease specify one.")

    monkeypatch.setattr(ops, "relu_topk", fail)
    (problem,) = site_problems(DEVICE)
    assert (
        problem == "its GPU cannot run our kernels (torch.float32): RuntimeError: Failed to find C compiler."
    )


def test_one_that_computes_otherwise_in_one_precision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single activation is missing."""
    right = ops.relu_topk

    def wrong(x: Tensor, keep: int) -> Tensor:
        out = right(x, keep).clone()
        if x.dtype == torch.bfloat16:
            out[tuple(out.nonzero()[0])] = 0
        return out

    monkeypatch.setattr(ops, "relu_topk", wrong)
    (problem,) = site_problems(DEVICE)
    assert problem.startswith("its GPU keeps other activations than the reference does (torch.bfloat16)")


def test_a_device_that_trains_as_a_cpu_does_is_taken() -> None:
    assert step_problems(DEVICE) == []


def test_one_that_cannot_train_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Engine] = []
    train = Engine.train

    def fail_second(self: Engine, *given: Any) -> Iterator[int]:
        calls.append(self)
        if len(calls) == 2:  # the first is the CPU that it is compared with
            raise RuntimeError("CUDA error: misaligned address\nmore")
        return train(self, *given)

    monkeypatch.setattr(Engine, "train", fail_second)
    assert step_problems(DEVICE) == [
        "its GPU cannot train our network (float32): RuntimeError: CUDA error: misaligned address"
    ]


def test_one_that_makes_a_single_weight_nan_in_its_last_step_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every other weight is right, and a comparison with NaN is never true."""
    steps: list[Sgd] = []
    step = Sgd.step

    def step_into_nan(self: Sgd) -> None:
        steps.append(self)
        grad = self.leaves[-1].grad
        assert grad is not None
        if len(steps) == 8:  # four of the CPU, then four of the device
            grad[0] = float("nan")
        step(self)

    monkeypatch.setattr(Sgd, "step", step_into_nan)
    (problem,) = step_problems(DEVICE)
    assert problem.startswith("its GPU trains otherwise than a CPU (float32): ")


def test_one_whose_steps_are_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of fifty gradients is three times as large as it should be, and only in bfloat16."""
    calls: list[Sgd] = []
    step = Sgd.step

    def step_too_far(self: Sgd) -> None:
        if self not in calls:
            calls.append(self)
        grad = self.leaves[1].grad
        assert grad is not None
        if len(calls) == 4:
            grad.mul_(3)
        step(self)

    monkeypatch.setattr(Sgd, "step", step_too_far)
    (problem,) = step_problems(DEVICE)
    assert problem.startswith("its GPU trains otherwise than a CPU (bfloat16): ")
