"""The sparse activation: RMSNorm, ReLU and a global top-k, by whichever implementation is best for where the tensor lives."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from trainer.ops import cpu, reference
from trainer.ops.reference import Keep

__all__ = ["Keep", "counted_norm_relu_topk", "keep_count", "norm_relu_topk", "relu_topk"]


def keep_count(ratio: float, size: int) -> int:
    """How many of `size` activations a keep ratio lets survive: ceil(r * D), at least one.

    Rounded first, so that 0.07 of 100 is 7 and not, by a float's last bit, 8.
    """
    return max(1, math.ceil(round(ratio * size, 9)))


@cache
def _implementation(device: str) -> ModuleType:
    if device == "cpu":
        return cpu
    # the kernels hold instructions that NVIDIA's GPUs have since Ampere
    able = (
        device == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability() >= (8, 0)
        and find_spec("triton")
    )
    return import_module("trainer.ops.fused") if able else reference


def relu_topk(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """ReLU, then all but the `keep` largest activations of each sample become zero; `keep` is one count, or a tensor of one per sample."""
    return _implementation(x.device.type).relu_topk(x, keep, priority)


def norm_relu_topk(
    x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float = 1e-10, priority: Tensor | None = None
) -> Tensor:
    """One activation site: RMSNorm over the channels, ReLU, top-k. `priority` ranks the positive activations in place of their value."""
    return _implementation(x.device.type).norm_relu_topk(x, scale, bias, keep, eps, priority)


def counted_norm_relu_topk(
    x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float = 1e-10, priority: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One activation site, and how many activations of the batch are not zero."""
    return _implementation(x.device.type).counted_norm_relu_topk(x, scale, bias, keep, eps, priority)
