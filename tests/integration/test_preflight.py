"""The questions to a node with a GPU before anything starts.

Those to every node are tested on real clusters, in `chaos`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sweep.cluster.preflight import site_problems
from trainer import ops

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
