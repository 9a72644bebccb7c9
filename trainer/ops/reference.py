"""The sparse activation in plain PyTorch: slow, short, and the standard for all other implementations.

Per sample, over all of (C, H, W): ReLU, then the `keep` largest values survive and the others become zero.
Among equal values those with the lowest flat index in C, H, W order survive, so that exactly `keep` survive
on every device and in every precision. NaN ranks above all values and is never hidden. The gradient is the
identity on survivors and zero elsewhere.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

Keep = int | Tensor
"""Number of survivors in each sample: one count, or an integer tensor of one count, or of one per sample."""

Reduction = Literal["mean", "sum"]


def survivors(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """Which elements survive. `priority` ranks the positive ones instead of their values."""
    flat = x.flatten(1)
    positive = (flat > 0) | flat.isnan()
    ranked = flat if priority is None else priority.flatten(1)
    ranked = torch.where(positive, ranked, -1)
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    rank = order.argsort(dim=1)  # argsort of a permutation is its inverse
    count = keep.reshape(-1, 1) if isinstance(keep, Tensor) else keep
    return (positive & (rank < count)).view(x.shape)


def relu_topk(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """ReLU, then set all but `keep` activations of each sample to zero."""
    return torch.where(survivors(x.detach(), keep, priority), x, 0)


def rms_norm(x: Tensor, scale: Tensor, bias: Tensor, eps: float = 1e-10) -> Tensor:
    """RMSNorm over the channels at each pixel, computed in float32. The result has the precision of `x`."""
    full = x.float()
    normed = full * torch.rsqrt(full.square().mean(1, keepdim=True) + eps)
    return (normed * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)).to(x.dtype)


def norm_relu_topk(
    x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float = 1e-10, priority: Tensor | None = None
) -> Tensor:
    """One activation site: RMSNorm, ReLU, top-k."""
    return relu_topk(rms_norm(x, scale, bias, eps), keep, priority)


def counted_norm_relu_topk(
    x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float = 1e-10, priority: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One activation site, and the number of nonzero activations in the batch."""
    out = norm_relu_topk(x, scale, bias, keep, eps, priority)
    return out, out.detach().count_nonzero()


def added_norm_relu_topk(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    bias: Tensor,
    keep: Keep,
    eps: float = 1e-10,
    priority: Tensor | None = None,
    counted: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One activation site on x + y.

    Returns x + y, the site's output, and with `counted` the number of nonzero activations in the batch.
    """
    total = x + y
    out = norm_relu_topk(total, scale, bias, keep, eps, priority)
    return total, out, out.detach().count_nonzero() if counted else None


def mean_head_loss(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, reduction: Reduction = "mean"
) -> tuple[Tensor, Tensor]:
    """Mean over the image, linear head and cross entropy.

    Returns the mean or sum of the loss, and whether each sample's greatest logit is that of its label.
    """
    logits = linear(x.mean((2, 3)), weight, bias).float()
    return cross_entropy(logits, labels, reduction=reduction), logits.argmax(1) == labels
