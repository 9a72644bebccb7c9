"""The sparse activation in plain PyTorch: slow, short, and the judge of every other implementation.

Per sample, over all of (C, H, W): ReLU, then the `keep` largest stay and the rest become zero. Among equal values the lowest flat index,
in C, H, W order, stays, so that exactly `keep` survive on every device and in every precision. NaN ranks above everything and is never
hidden. The gradient is the identity on survivors and zero elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

Keep = int | Tensor
"""How many survive in each sample: one count, or an integer tensor with one count for all or one per sample."""


def survivors(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """Which elements survive; `priority` ranks the positive ones in place of their value."""
    flat = x.flatten(1)
    positive = (flat > 0) | flat.isnan()
    ranked = flat if priority is None else priority.flatten(1)
    ranked = torch.where(positive, ranked, -1)
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    rank = order.argsort(dim=1)  # a permutation's inverse
    count = keep.reshape(-1, 1) if isinstance(keep, Tensor) else keep
    return (positive & (rank < count)).view(x.shape)


def relu_topk(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """ReLU, then all but `keep` activations of each sample become zero."""
    return torch.where(survivors(x.detach(), keep, priority), x, 0)


def rms_norm(x: Tensor, scale: Tensor, bias: Tensor, eps: float = 1e-10) -> Tensor:
    """Over the channels at each place, in float32 whatever the precision; the result has the precision of `x`."""
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
    """A site, and how many activations of the batch are not zero."""
    out = norm_relu_topk(x, scale, bias, keep, eps, priority)
    return out, out.detach().count_nonzero()
