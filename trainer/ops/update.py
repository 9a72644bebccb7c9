"""A step of SGD for many tensors in one Triton kernel, which writes the bfloat16 copies of weights too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import triton
from torch import Tensor

from trainer.ops import fused
from trainer.ops.update_kernels import step

BLOCK = 1024
"""Elements of a tensor that a program updates."""


def update(
    parameters: Sequence[Tensor],
    momenta: Sequence[Tensor],
    copies: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rate: Tensor,
    momentum: float,
    weight_decay: float,
) -> None:
    """Update parameters and momenta by their gradients, and the copies of parameters where there are any.

    With copies, the gradients are bfloat16 too. All tensors of a parameter have one layout without gaps.
    Without momentum `momenta` is empty.
    """
    sizes = [parameter.numel() for parameter in parameters]
    first = [0, *accumulate(triton.cdiv(size, BLOCK) for size in sizes)]
    arguments = (
        tuple(map(_detached, parameters)),
        tuple(map(_detached, momenta)),
        tuple(map(_detached, copies)),
        tuple(map(_detached, gradients)),
        rate,
    )
    constants: dict[str, Any] = {"FIRST": tuple(first), "SIZES": tuple(sizes), "BLOCK": BLOCK}
    constants |= {"MOMENTUM": momentum, "DECAY": weight_decay, "COPIES": bool(copies)}
    fused.launch(step, (first[-1],), *arguments, warps=4, **constants)


def _detached(tensor: Tensor) -> Tensor:
    return fused.flat(tensor.detach())
