"""The mean over the image, the linear head and the cross entropy by two Triton kernels.

Torch runs some twenty small kernels for these and their gradients, which take longer to start than to run.
All arithmetic is in float32, so that in bfloat16 neither the mean nor the logits are rounded as torch's are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
from torch import Tensor

from trainer.ops import fused, reference, tail_kernels
from trainer.ops.reference import Reduction

MOST = 1024
"""The most channels and classes that the kernels take."""
TILE = 2**14
WARPS = 16
ROWS, COLUMNS = 128, 32
"""Samples that a program of the head's gradients reads at once, and the number of weights that it owns."""


def mean_head_loss(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, reduction: Reduction = "mean"
) -> tuple[Tensor, Tensor]:
    """See the reference."""
    known = {x.dtype, weight.dtype, bias.dtype} <= set(fused.KERNEL_TYPES) and weight.dtype == bias.dtype
    if not known or max(weight.shape) > MOST:
        return reference.mean_head_loss(x, weight, bias, labels, reduction)
    return cast(Any, _MeanHeadLoss).apply(x, weight, bias, labels, reduction)


class _MeanHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, reduction: Reduction
    ) -> tuple[Tensor, Tensor]:
        samples, classes = len(x), len(bias)
        weight = weight.contiguous()
        means, slopes, losses = (
            x.new_empty((samples, *more), dtype=torch.float32) for more in ((x.shape[1],), (classes,), ())
        )
        right = torch.empty(samples, dtype=torch.int8, device=x.device)
        read = _bits(x.permute(0, 2, 3, 1).contiguous()), _bits(weight), _bits(bias), labels
        fused.launch(
            tail_kernels.forward,
            (samples,),
            *read,
            means,
            slopes,
            losses,
            right,
            **_constants(x.shape, x.dtype, weight),
            warps=WARPS,
        )
        ctx.save_for_backward(weight, bias, means, slopes)
        ctx.shape, ctx.dtype = x.shape, x.dtype
        ctx.share = 1 / samples if reduction == "mean" else 1.0
        loss, right = losses.mean() if reduction == "mean" else losses.sum(), right.view(torch.bool)
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        weight, bias, means, slopes = ctx.saved_tensors
        samples, channels, *image = ctx.shape
        x_grad = means.new_empty((samples, *image, channels), dtype=ctx.dtype)
        weight_grad, bias_grad = torch.empty_like(weight), torch.empty_like(bias)
        written = _bits(x_grad), _bits(weight_grad), _bits(bias_grad)
        programs = samples + len(bias) * triton.cdiv(channels, COLUMNS)
        fused.launch(
            tail_kernels.backward,
            (programs,),
            grads[0],
            _bits(weight),
            means,
            slopes,
            *written,
            samples,
            ctx.share,
            **_constants(ctx.shape, ctx.dtype, weight),
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            warps=WARPS,
        )
        return x_grad.permute(0, 3, 1, 2), weight_grad, bias_grad, None, None


def _bits(x: Tensor) -> Tensor:
    """bfloat16 as the 16-bit integers of its bits, which is how the kernels read it."""
    return x.view(torch.int16) if x.dtype == torch.bfloat16 else x


def _constants(shape: torch.Size, dtype: torch.dtype, weight: Tensor) -> dict[str, Any]:
    """The kernels' constants. The tiles of activations and of weights fit in a program's registers."""
    (classes, channels), places = weight.shape, shape[2] * shape[3]
    block_classes = triton.next_power_of_2(classes)
    block_c = min(triton.next_power_of_2(channels), max(1, TILE // block_classes))
    return {
        "P": places,
        "C": channels,
        "CLASSES": classes,
        "BLOCK_P": min(triton.next_power_of_2(places), TILE // block_c),
        "BLOCK_C": block_c,
        "BLOCK_CLASSES": block_classes,
        "HALF": dtype == torch.bfloat16,
        "HALF_HEAD": weight.dtype == torch.bfloat16,
    }
