"""A step of SGD for many tensors in one Triton kernel, which writes the bfloat16 copies of weights too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
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
    """Update parameters and momenta by their gradients. With copies, both they and gradients are bfloat16.

    All tensors of a parameter have the same layout without gaps. Without momentum `momenta` is empty.
    """
    sizes = [parameter.numel() for parameter in parameters]
    first = [0, *accumulate(triton.cdiv(size, BLOCK) for size in sizes)]
    arguments = (
        tuple(map(_row, parameters)),
        tuple(map(_row, momenta)),
        tuple(map(_row, copies)),
        tuple(map(_row, gradients)),
        rate,
    )
    constants: dict[str, Any] = {"FIRST": tuple(first), "SIZES": tuple(sizes), "BLOCK": BLOCK}
    constants |= {"MOMENTUM": momentum, "DECAY": weight_decay, "COPIES": bool(copies)}
    fused.launch(step, (first[-1],), *arguments, warps=4, **constants)


def _row(tensor: Tensor) -> Tensor:
    """The memory of a tensor without gaps as one row; bfloat16 as the integers of its bits."""
    row = tensor.detach().as_strided((tensor.numel(),), (1,))
    return row.view(torch.int16) if tensor.dtype == torch.bfloat16 else row
