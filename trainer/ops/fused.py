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

from trainer.ops import kernels, reference, tilings
from trainer.ops.reference import Keep

KERNEL_TYPES = (torch.float32, torch.bfloat16)
RESIDENT_WORDS = 2**15
"""Most words of a row in registers: 1,024 threads hold 64 words each, half of them for the row."""
STREAMED_TILE = 2**14


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, **constants: Any) -> None:
    """Start a kernel. Products and sums are not fused, because backward must repeat forward bit for bit."""
    kernel[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)


def _rows(x: Tensor, norm: bool) -> tuple[Tensor, int, int]:
    """The tensor without gaps, and its numbers of places and channels. Channels are adjacent in memory."""
    if x.ndim == 4 and (norm or not x.is_contiguous()):
        return x.contiguous(memory_format=torch.channels_last), x.shape[2] * x.shape[3], x.shape[1]
    return x.contiguous(), x[0].numel(), 1


def _like(x: Tensor, shaped: Tensor) -> Tensor:
    """`x` with the layout of `shaped`."""
    last = shaped.ndim == 4 and not shaped.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def flat(x: Tensor) -> Tensor:
    """The memory of a tensor without gaps as one row. bfloat16 becomes the 16-bit integers of its bits."""
    row = torch.as_strided(x, (x.numel(),), (1,))
    return row.view(torch.int16) if x.dtype == torch.bfloat16 else row


def _empty(x: Tensor, places: int, norm: bool, added: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty tensors for the results of a site."""
    samples = x.shape[0]
    nonzero, edge = (x.new_empty((samples, *more), dtype=torch.int32) for more in ((), (3,)))
    return (
        torch.empty_like(x) if added else x.new_empty(0),
        torch.empty_like(x),
        nonzero,
        x.new_empty((samples, places if norm else 0), dtype=torch.float32),
        edge,
    )


@library.custom_op("trainer::site", mutates_args=())
def _site(
    x: Tensor,
    y: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    keep: Tensor,
    eps: float,
    priority: Tensor | None,
    _sums: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Forward pass of a site on x + y. Backward writes its partial sums to `_sums`.

    Returns x + y (empty without a `y`), the output, the nonzero count per sample, the norm's factor per
    place (empty without a norm) and the edge per sample: its threshold and the channel and place of the last
    surviving tie.
    """
    norm, added = scale is not None, y is not None
    x, places, channels = _rows(x, norm)
    y = None if y is None else _like(y, x)
    total, out, nonzero, inverse, edge = results = _empty(x, places, norm, added)
    block_p, block_c = triton.next_power_of_2(places), triton.next_power_of_2(channels)
    pairs, stride = block_p * block_c // 2, int(keep.numel() > 1)
    constants: dict[str, Any] = {
        "P": places,
        "C": channels,
        "BLOCK_P": block_p,
        "NORM": norm,
        "ADDED": added,
    }
    half = x.dtype == torch.bfloat16
    # every thread takes four neighbouring words at a time, so a row must have enough words, and none twice
    if (
        half
        and priority is None
        and channels % 2 == 0
        and block_c >= 8
        and tilings.LEAST_WARPS * 128 <= pairs <= RESIDENT_WORDS
    ):
        read, other, sums, written = (
            None if row is None else flat(row).view(torch.int32) for row in (x, y, total, out)
        )
        arguments = read, other, sums, scale, bias, keep, stride, written, inverse, edge, nonzero, eps
        launch(
            kernels.resident_pairs,
            (len(x),),
            *arguments,
            warps=tilings.forward_warps(channels, places, pairs),
            **constants,
            BLOCK_W=block_c // 2,
        )
        return results
    resident = 2 * pairs <= (RESIDENT_WORDS if priority is None else RESIDENT_WORDS // 2)
    if not resident:
        constants["BLOCK_P"] = block_p = max(1, STREAMED_TILE // block_c)
    scratch = x.new_empty(0 if resident else x.numel(), dtype=torch.int32)
    ranked = None if priority is None else flat(_like(priority.to(torch.float32), x))
    inputs = flat(x), None if y is None else flat(y), flat(total), scale, bias, keep, stride, ranked
    arguments = *inputs, flat(out), scratch, inverse, edge, nonzero, eps
    constants |= {"BLOCK_C": block_c, "HALF": half, "PRIORITY": priority is not None, "RESIDENT": resident}
    launch(kernels.forward, (len(x),), *arguments, warps=tilings.warps(block_p * block_c, 512), **constants)
    return results


@library.custom_op("trainer::site_backward", mutates_args=("sums",))
def _site_backward(
    grad: Tensor,
    total_grad: Tensor | None,
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor | None,
    inverse: Tensor,
    edge: Tensor,
    sums: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of `x`, and of scale and bias as two rows in float32. `out`, where given, is the mask.

    `total_grad` is added to the gradient of `x`. With `sums` the partial sums of scale and bias are written
    there, one row after the other, and nobody adds them up: the second result has no rows.
    """
    norm = scale is not None
    x, places, channels = _rows(x, norm)
    grad, x_grad = _like(grad.to(x.dtype), x), torch.empty_like(x)
    other = None if total_grad is None else flat(_like(total_grad.to(x.dtype), x))
    tiling = tilings.backward(channels, places)
    block_p, stretch = tiling.places, tiling.stretch
    grid = (len(x), tilings.partial_sums(channels, places))
    # one row of partial sums per program, so that they are added in one order, whichever finishes first
    rows = grid[0] * grid[1] if norm else 0
    partial = x.new_empty((rows, 2, channels), dtype=torch.float32) if sums is None else sums
    assert len(partial) >= rows, "the batch is larger than the buffer of partial sums is made for"
    mask = None if out is None else flat(_like(out, x))
    block_c = triton.next_power_of_2(channels)
    constants = {
        "P": places,
        "C": channels,
        "PLACES": stretch,
        "BLOCK_P": block_p,
        "BLOCK_C": block_c,
        "STAGES": tiling.stages,
    }
    flags = {
        "NORM": norm,
        "HALF": x.dtype == torch.bfloat16,
        "ADDED": other is not None,
        "MASK": out is not None,
    }
    launch(
        kernels.backward,
        grid,
        flat(grad),
        other,
        flat(x),
        scale,
        bias,
        mask,
        inverse,
        edge,
        flat(x_grad),
        partial,
        **constants,
        **flags,
        warps=tiling.warps,
    )
    return x_grad, partial.sum(0) if sums is None else partial.new_empty((0, channels))


@_site.register_fake
def _(
    x: Tensor, y: Any, scale: Any, _bias: Any, _keep: Any, _eps: Any, _priority: Any, _sums: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shaped, places, _ = _rows(x, scale is not None)
    return _empty(shaped, places, scale is not None, y is not None)


@_site_backward.register_fake
def _(
    _grad: Any,
    _total_grad: Any,
    x: Tensor,
    scale: Any,
    _bias: Any,
    _out: Any,
    _inverse: Any,
    _edge: Any,
    sums: Any,
) -> tuple[Tensor, Tensor]:
    shaped, _, channels = _rows(x, scale is not None)
    return torch.empty_like(shaped), x.new_empty((2 if sums is None else 0, channels), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, y, scale, bias, _, _, priority, sums = inputs
    total, out, nonzero, inverse, edge = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(nonzero, inverse, edge, *(() if y is not None else (total,)))
    read = x if y is None else total
    ctx.save_for_backward(read, scale, bias, None if priority is None else out, inverse, edge)
    # not a saved tensor: the other sites' sums are views of the same buffer, and autograd would take what
    # their backward passes write there for a change of this one
    ctx.added, ctx.sums = y is not None, sums


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    total_grad, out_grad = grads[:2]
    if out_grad is None:
        return total_grad, total_grad, *(None,) * 6
    x_grad, sums = _site_backward(out_grad, total_grad, *ctx.saved_tensors, ctx.sums)
    scale_grad, bias_grad = sums if len(sums) and ctx.saved_tensors[1] is not None else (None, None)
    return x_grad, x_grad if ctx.added else None, scale_grad, bias_grad, *(None,) * 4


_site.register_autograd(_differentiate, setup_context=_remember)


def _run(
    x: Tensor,
    y: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    keep: Keep,
    eps: float,
    priority: Tensor | None,
    sums: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of `x` and `y`, the site's output, and the nonzero activations of each sample."""
    counts = keep if isinstance(keep, Tensor) else torch.full((1,), keep, device=x.device)
    counts = counts.to(torch.int32).contiguous()
    return cast(Any, _site)(x, y, scale, bias, counts, eps, priority, sums)[:3]


def relu_topk(x: Tensor, keep: Keep, priority: Tensor | None = None) -> Tensor:
    """See the reference."""
    if x.dtype not in KERNEL_TYPES:
        return reference.relu_topk(x, keep, priority)
    return _run(x, None, None, None, keep, 0.0, priority, None)[1]


def norm_relu_topk(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    keep: Keep,
    eps: float = 1e-10,
    priority: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """See the reference. With `sums`, backward writes there what `SiteSums` adds up."""
    if x.dtype not in KERNEL_TYPES:
        return reference.norm_relu_topk(x, scale, bias, keep, eps, priority)
    return _run(x, None, scale, bias, keep, eps, priority, sums)[1]


def counted_norm_relu_topk(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    keep: Keep,
    eps: float = 1e-10,
    priority: Tensor | None = None,
    sums: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See the reference. With `sums`, backward writes there what `SiteSums` adds up."""
    if x.dtype not in KERNEL_TYPES:
        return reference.counted_norm_relu_topk(x, scale, bias, keep, eps, priority)
    _, out, nonzero = _run(x, None, scale, bias, keep, eps, priority, sums)
    return out, nonzero.sum()


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
    """See the reference. With `sums`, backward writes there what `SiteSums` adds up."""
    if x.dtype not in KERNEL_TYPES or y.dtype != x.dtype:
        return reference.added_norm_relu_topk(x, y, scale, bias, keep, eps, priority, counted)
    total, out, nonzero = _run(x, y, scale, bias, keep, eps, priority, sums)
    return total, out, nonzero.sum() if counted else None
