"""The sparse activation by Triton kernels, on a CUDA device or under Triton's interpreter
(TRITON_INTERPRET=1).

A row holds the activations of one sample, and a place is one pixel of it. A row of up to 32,768 words stays
in registers from its one read to its one write. In bfloat16, with two keys to a word, these are all 25 sites
of WRN-28-4; in float32, the sites of up to 32,768 activations. Longer rows are streamed: their keys are kept
in a scratch row that every pass reads again. With a priority, rows are streamed from half that length on.
The reference handles float16 and float64.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
from torch import Tensor, library

from trainer.ops import kernels, reference
from trainer.ops.reference import Keep

KERNEL_TYPES = (torch.float32, torch.bfloat16)
RESIDENT_WORDS = 2**15
"""Most words of a row in registers: 1,024 threads hold 64 words each, half of them for the row."""
STREAMED_TILE = 2**14
BACKWARD_TILE = 2**11
BACKWARD_TILES = 8
"""Number of tiles per backward program. More tiles make fewer partial sums of the parameters' gradients."""
LEAST_WARPS = 4


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
    """Start a kernel. Products and sums are not fused, because backward must repeat forward bit for bit."""
    kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)


def _warps(words: int) -> int:
    """Number of warps for a row: a thread for every 16 words, or 32 words if there are too few threads."""
    return min(32, max(LEAST_WARPS, words // 512))


def _rows(x: Tensor, norm: bool) -> tuple[Tensor, int, int]:
    """The tensor without gaps, and its numbers of places and channels. Channels are adjacent in memory."""
    if x.ndim == 4 and (norm or not x.is_contiguous()):
        return x.contiguous(memory_format=torch.channels_last), x.shape[2] * x.shape[3], x.shape[1]
    return x.contiguous(), x[0].numel(), 1


def _like(x: Tensor, shaped: Tensor) -> Tensor:
    """`x` with the layout of `shaped`."""
    last = shaped.ndim == 4 and not shaped.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _flat(x: Tensor) -> Tensor:
    """The memory of a tensor without gaps as one row. bfloat16 becomes the 16-bit integers of its bits."""
    row = torch.as_strided(x, (x.numel(),), (1,))
    return row.view(torch.int16) if x.dtype == torch.bfloat16 else row


def _empty(x: Tensor, places: int, norm: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty tensors for the results of a site."""
    samples = x.shape[0]
    nonzero, edge = (x.new_empty((samples, *more), dtype=torch.int32) for more in ((), (3,)))
    return (
        torch.empty_like(x),
        nonzero,
        x.new_empty((samples, places if norm else 0), dtype=torch.float32),
        edge,
    )


@library.custom_op("trainer::site", mutates_args=())
def _site(
    x: Tensor, scale: Tensor | None, bias: Tensor | None, keep: Tensor, eps: float, priority: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Forward pass of a site.

    Returns the output, the nonzero count per sample, the norm's factor per place (empty without a norm) and
    the edge per sample: its threshold and the channel and place of the last surviving tie.
    """
    norm = scale is not None
    x, places, channels = _rows(x, norm)
    out, nonzero, inverse, edge = _empty(x, places, norm)
    block_p, block_c = triton.next_power_of_2(places), triton.next_power_of_2(channels)
    pairs, stride = block_p * block_c // 2, int(keep.numel() > 1)
    constants: dict[str, Any] = {"P": places, "C": channels, "BLOCK_P": block_p, "NORM": norm}
    half = x.dtype == torch.bfloat16
    # every thread takes two neighbouring words at a time, so a row must have enough words, and none twice
    if (
        half
        and priority is None
        and channels % 2 == 0
        and block_c >= 8
        and LEAST_WARPS * 64 <= pairs <= RESIDENT_WORDS
    ):
        read, written = _flat(x).view(torch.int32), _flat(out).view(torch.int32)
        arguments = read, scale, bias, keep, stride, written, inverse, edge, nonzero, eps
        launch(
            kernels.resident_pairs,
            (len(x),),
            *arguments,
            warps=_warps(pairs),
            **constants,
            BLOCK_W=block_c // 2,
        )
        return out, nonzero, inverse, edge
    resident = 2 * pairs <= (RESIDENT_WORDS if priority is None else RESIDENT_WORDS // 2)
    if not resident:
        constants["BLOCK_P"] = block_p = max(1, STREAMED_TILE // block_c)
    scratch = x.new_empty(0 if resident else x.numel(), dtype=torch.int32)
    ranked = None if priority is None else _flat(_like(priority.to(torch.float32), x))
    arguments = _flat(x), scale, bias, keep, stride, ranked, _flat(out), scratch, inverse, edge, nonzero, eps
    constants |= {"BLOCK_C": block_c, "HALF": half, "PRIORITY": priority is not None, "RESIDENT": resident}
    launch(kernels.forward, (len(x),), *arguments, warps=_warps(block_p * block_c), **constants)
    return out, nonzero, inverse, edge


@library.custom_op("trainer::site_backward", mutates_args=())
def _site_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor | None,
    inverse: Tensor,
    edge: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of `x`, and of scale and bias as two rows in float32. `out`, where given, is the mask."""
    norm = scale is not None
    x, places, channels = _rows(x, norm)
    grad, x_grad = _like(grad.to(x.dtype), x), torch.empty_like(x)
    block_c = triton.next_power_of_2(channels)
    block_p = max(1, min(triton.next_power_of_2(places), BACKWARD_TILE // block_c))
    stretch = block_p * BACKWARD_TILES
    grid = (len(x), triton.cdiv(places, stretch))
    # one row of partial sums per program, so that they are added in one order, whichever finishes first
    sums = x.new_empty((grid[0] * grid[1] if norm else 0, 2, channels), dtype=torch.float32)
    mask = None if out is None else _flat(_like(out, x))
    constants = {"P": places, "C": channels, "PLACES": stretch, "BLOCK_P": block_p, "BLOCK_C": block_c}
    flags = {"NORM": norm, "HALF": x.dtype == torch.bfloat16, "MASK": out is not None}
    launch(
        kernels.backward,
        grid,
        _flat(grad),
        _flat(x),
        scale,
        bias,
        mask,
        inverse,
        edge,
        _flat(x_grad),
        sums,
        **constants,
        **flags,
        warps=8,
    )
    return x_grad, sums.sum(0)


@_site.register_fake
def _(
    x: Tensor, scale: Any, _bias: Any, _keep: Any, _eps: Any, _priority: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shaped, places, _ = _rows(x, scale is not None)
    return _empty(shaped, places, scale is not None)


@_site_backward.register_fake
def _(
    _grad: Any, x: Tensor, scale: Any, _bias: Any, _out: Any, _inverse: Any, _edge: Any
) -> tuple[Tensor, Tensor]:
    shaped, _, channels = _rows(x, scale is not None)
    return torch.empty_like(shaped), x.new_empty((2, channels), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, scale, bias, _, _, priority = inputs
    out, nonzero, inverse, edge = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(nonzero, inverse, edge)
    ctx.save_for_backward(x, scale, bias, None if priority is None else out, inverse, edge)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if grads[0] is None:
        return (None,) * 6
    x_grad, sums = _site_backward(grads[0], *ctx.saved_tensors)
    scale_grad, bias_grad = (None, None) if ctx.saved_tensors[1] is None else (sums[0], sums[1])
    return x_grad, scale_grad, bias_grad, None, None, None


_site.register_autograd(_differentiate, setup_context=_remember)


def _run(
    x: Tensor, scale: Tensor | None, bias: Tensor | None, keep: Keep, eps: float, priority: Tensor | None
) -> tuple[Tensor, Tensor]:
    counts = keep if isinstance(keep, Tensor) else torch.full((1,), keep, device=x.device)
    out, nonzero, _, _ = cast(Any, _site)(x, scale, bias, counts.to(torch.int32).contiguous(), eps, priority)
    return out, nonzero


def relu_topk(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """See the reference."""
    if x.dtype not in KERNEL_TYPES:
        return reference.relu_topk(x, keep, priority)
    return _run(x, None, None, keep, 0.0, priority)[0]


def norm_relu_topk(
    x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float = 1e-10, priority: Tensor | None = None
) -> Tensor:
    """See the reference."""
    if x.dtype not in KERNEL_TYPES:
        return reference.norm_relu_topk(x, scale, bias, keep, eps, priority)
    return _run(x, scale, bias, keep, eps, priority)[0]


def counted_norm_relu_topk(
    x: Tensor, scale: Tensor, bias: Tensor, keep: Keep, eps: float = 1e-10, priority: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See the reference."""
    if x.dtype not in KERNEL_TYPES:
        return reference.counted_norm_relu_topk(x, scale, bias, keep, eps, priority)
    out, nonzero = _run(x, scale, bias, keep, eps, priority)
    return out, nonzero.sum()
