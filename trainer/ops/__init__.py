"""The sparse activation: RMSNorm, ReLU and a global top-k. The tensor's device decides which code runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainer.ops import cpu, reference
from trainer.ops.reference import Keep, Reduction

if TYPE_CHECKING:
    from trainer.ops.sums import SiteSums

__all__ = [
    "Keep",
    "added_norm_relu_topk",
    "counted_norm_relu_topk",
    "has_kernels",
    "keep_count",
    "mean_head_loss",
    "norm_relu_topk",
    "relu_topk",
    "site_sums",
]


def keep_count(ratio: float, size: int) -> int:
    """Number of `size` activations that survive at a keep ratio: ceil(r * D), at least one.

    The product is rounded first, so that 0.07 of 100 is 7. The last bit of a float would make it 8.
    """
    return max(1, math.ceil(round(ratio * size, 9)))


@cache
def _implementation(device: str) -> ModuleType:
    if device == "cpu":
        return cpu
    # the kernels use instructions that NVIDIA introduced with Ampere
    able = (
        device == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability() >= (8, 0)
        and find_spec("triton")
    )
    return import_module("trainer.ops.fused") if able else reference


def has_kernels(device: torch.device) -> bool:
    """Whether Triton kernels run on this device."""
    return _implementation(device.type).__name__ == "trainer.ops.fused"


def relu_topk(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """ReLU, then set all but the `keep` largest activations of each sample to zero.

    `keep` is one count, or a tensor with one count per sample.
    """
    return _implementation(x.device.type).relu_topk(x, keep, priority)


def norm_relu_topk(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    keep: Keep,
    eps: float = 1e-10,
    priority: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """One activation site: RMSNorm over the channels, ReLU, top-k.

    `priority` ranks the positive activations instead of their values. `sums` is this site's buffer of
    `site_sums`: then `add_up` gives the gradients of scale and bias, and autograd gives none.
    """
    return _implementation(x.device.type).norm_relu_topk(x, scale, bias, keep, eps, priority, *_given(sums))


def counted_norm_relu_topk(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    keep: Keep,
    eps: float = 1e-10,
    priority: Tensor | None = None,
    sums: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One activation site, and the number of nonzero activations in the batch."""
    ops = _implementation(x.device.type)
    return ops.counted_norm_relu_topk(x, scale, bias, keep, eps, priority, *_given(sums))


def added_norm_relu_topk(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    keep: Keep,
    eps: float = 1e-10,
    priority: Tensor | None = None,
    counted: bool = False,
    sums: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One activation site on x + y.

    Returns x + y, the site's output, and with `counted` the number of nonzero activations in the batch.
    """
    ops = _implementation(x.device.type)
    return ops.added_norm_relu_topk(x, y, scale, bias, keep, eps, priority, counted, *_given(sums))


def site_sums(shapes: Sequence[tuple[int, int]], samples: int, device: torch.device) -> SiteSums | None:
    """Buffers for the gradients of the scales and biases of sites with these channels and places.

    None where the device's implementation has no use for them: there autograd gives the gradients.
    """
    if not has_kernels(device):
        return None
    return import_module("trainer.ops.sums").SiteSums(shapes, samples, device)


def mean_head_loss(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, reduction: Reduction = "mean"
) -> tuple[Tensor, Tensor]:
    """Mean over the image, linear head and cross entropy.

    Returns the mean or sum of the loss, and whether each sample's greatest logit is that of its label.
    """
    ops = import_module("trainer.ops.tail") if has_kernels(x.device) else reference
    return ops.mean_head_loss(x, weight, bias, labels, reduction)


def _given(sums: Tensor | None) -> tuple[Tensor, ...]:
    """The argument that the kernels alone take, where there is one."""
    return () if sums is None else (sums,)
