"""Triton kernels for the mean over the image, the linear head and the cross entropy; `tail` launches them.

A row is one sample's activations as (places, channels) in memory; a place is a pixel. All arithmetic is in
float32. Activations may be bfloat16 (`HALF`), and so may the head (`HALF_HEAD`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from trainer.ops.kernels import _load, _store


@triton.jit
def forward(x, weight, bias, labels, means, slopes, losses, right,
            P: tl.constexpr, C: tl.constexpr, CLASSES: tl.constexpr,
            BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
            HALF: tl.constexpr, HALF_HEAD: tl.constexpr):  # fmt: skip
    """Mean, loss and correctness of one sample, and the gradient of its loss by its logits (`slopes`)."""
    sample = tl.program_id(0)
    label = tl.load(labels + sample)
    kind = tl.arange(0, BLOCK_CLASSES)
    real, chosen = kind < CLASSES, kind == label
    logits = _load(bias, kind, real, HALF_HEAD)
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        sums = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
        for first in range(0, P, BLOCK_P):
            place = first + tl.arange(0, BLOCK_P)
            offsets = (sample.to(tl.int64) * P + place[:, None]) * C + channel[None, :]
            sums += _load(x, offsets, (place[:, None] < P) & (channel[None, :] < C), HALF)
        mean = tl.sum(sums, axis=0) / P
        tl.store(means + sample * C + channel, mean, mask=channel < C)
        weights = _weights(weight, kind, channel, C, CLASSES, HALF_HEAD)
        logits += tl.sum(weights * mean[None, :], axis=1)
    greatest = tl.max(tl.where(real, logits, float("-inf")))
    shifted = tl.where(real, logits - greatest, float("-inf"))
    powers = tl.exp(shifted)
    total = tl.sum(powers)
    tl.store(losses + sample, tl.log(total) - tl.sum(tl.where(chosen, shifted, 0.0)))
    slope = powers / total - tl.where(chosen, 1.0, 0.0)
    tl.store(slopes + sample * CLASSES + kind, slope, mask=real)
    # the first of the greatest logits, or the first NaN, as torch's argmax
    nan = real & (logits != logits)
    found = tl.where(tl.max(nan.to(tl.int32)) > 0, nan, logits == greatest)
    answer = tl.min(tl.where(found, kind, BLOCK_CLASSES))
    tl.store(right + sample, (answer == label).to(tl.int8))


@triton.jit
def backward(grad, weight, means, slopes, x_grad, weight_grad, bias_grad, samples, share,
             P: tl.constexpr, C: tl.constexpr, CLASSES: tl.constexpr,
             BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
             ROWS: tl.constexpr, COLUMNS: tl.constexpr,
             HALF: tl.constexpr, HALF_HEAD: tl.constexpr):  # fmt: skip
    """All gradients, given the loss's own, `grad`. `share` is a sample's share of the loss.

    The first `samples` programs own a sample's activations each, the others a few weights of one class.
    """
    program, factor = tl.program_id(0), tl.load(grad) * share
    if program < samples:
        _x_gradient(weight, slopes, x_grad, program, factor, P, C, CLASSES, BLOCK_P, BLOCK_C, BLOCK_CLASSES,
                    HALF, HALF_HEAD)  # fmt: skip
    else:
        _head_gradients(means, slopes, weight_grad, bias_grad, program - samples, samples, factor,
                        C, CLASSES, ROWS, COLUMNS, HALF_HEAD)  # fmt: skip


@triton.jit
def _x_gradient(weight, slopes, x_grad, sample, factor,
                P: tl.constexpr, C: tl.constexpr, CLASSES: tl.constexpr,
                BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
                HALF: tl.constexpr, HALF_HEAD: tl.constexpr):  # fmt: skip
    """The gradient of one sample's activations. All places of a channel have the same."""
    kind = tl.arange(0, BLOCK_CLASSES)
    slope = tl.load(slopes + sample * CLASSES + kind, mask=kind < CLASSES, other=0.0) * factor
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        weights = _weights(weight, kind, channel, C, CLASSES, HALF_HEAD)
        along = tl.sum(slope[:, None] * weights, axis=0) / P
        for first in range(0, P, BLOCK_P):
            place = first + tl.arange(0, BLOCK_P)
            offsets = (sample.to(tl.int64) * P + place[:, None]) * C + channel[None, :]
            mask = (place[:, None] < P) & (channel[None, :] < C)
            _store(x_grad, offsets, tl.broadcast_to(along[None, :], (BLOCK_P, BLOCK_C)), mask, HALF)


@triton.jit
def _head_gradients(means, slopes, weight_grad, bias_grad, part, samples, factor,
                    C: tl.constexpr, CLASSES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                    HALF_HEAD: tl.constexpr):  # fmt: skip
    """The gradients of `COLUMNS` weights of one class, and of its bias. Samples are added in one order."""
    kind, block = part // tl.cdiv(C, COLUMNS), part % tl.cdiv(C, COLUMNS)
    channel = block * COLUMNS + tl.arange(0, COLUMNS)
    sums, bias_sums = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS,), tl.float32)
    for start in range(0, samples, ROWS):
        row = start + tl.arange(0, ROWS)
        slope = tl.load(slopes + row * CLASSES + kind, mask=row < samples, other=0.0)
        mask = (row[:, None] < samples) & (channel[None, :] < C)
        sums += slope[:, None] * tl.load(means + row[:, None] * C + channel[None, :], mask=mask, other=0.0)
        bias_sums += slope
    _store(weight_grad, kind * C + channel, tl.sum(sums, axis=0) * factor, channel < C, HALF_HEAD)
    if block == 0:
        _store(bias_grad, kind, tl.sum(bias_sums) * factor, None, HALF_HEAD)


@triton.jit
def _weights(weight, kind, channel, C: tl.constexpr, CLASSES: tl.constexpr, HALF_HEAD: tl.constexpr):
    """A tile of the head's weights, (classes, channels) in memory."""
    mask = (kind[:, None] < CLASSES) & (channel[None, :] < C)
    return _load(weight, kind[:, None] * C + channel[None, :], mask, HALF_HEAD)
