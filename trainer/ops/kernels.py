"""Triton kernels of one activation site, forward and backward; `fused` launches them.

In forward one program owns the row of one sample, as (places, channels) in memory; a place is a pixel. If
the row's keys fit in the program's registers, the row is read once and written once. Otherwise the row is
"streamed": its keys are kept in a scratch row, and every pass over them goes through the cache.

Products are fused into sums only by `tl.fma`, because the kernels are launched with
`enable_fp_fusion=False`. So backward repeats forward's normalisation bit for bit, and finds the survivors
again instead of reading a mask.
"""

from __future__ import annotations

import triton
import triton.language as tl

from trainer.ops.element_kernels import added_pairs, full, half, lanes, load, pair, relu, rounded, store
from trainer.ops.selection import INTERPRETED, edge_of, inside, positive_and_sum, survive

NORMED_PAIR = tl.constexpr(
    "{ .reg .b32 bits; .reg .f32 low, high; "
    "shl.b32 bits, $1, 16; mov.b32 low, bits; mul.rn.f32 low, low, $2; fma.rn.f32 low, low, $3, $4; "
    "and.b32 bits, $1, 0xFFFF0000; mov.b32 high, bits; mul.rn.f32 high, high, $2; "
    "fma.rn.f32 high, high, $5, $6; cvt.rn.relu.bf16x2.f32 $0, high, low; }"
)


@triton.jit
def _scaled(normed, scales, shifts):
    return tl.fma(
        normed,
        tl.broadcast_to(scales[None, :], normed.shape),
        tl.broadcast_to(shifts[None, :], normed.shape),
    )


@triton.jit
def _normed_pair(words, factor, scale, bias, word, real):
    """Normalise, scale and shift two activations to a word, and pack their keys into one."""
    low_scale = tl.load(scale + 2 * word, mask=real, other=0.0)
    low_bias = tl.load(bias + 2 * word, mask=real, other=0.0)
    high_scale = tl.load(scale + 2 * word + 1, mask=real, other=0.0)
    high_bias = tl.load(bias + 2 * word + 1, mask=real, other=0.0)
    if INTERPRETED:
        low, high = full(words & 0xFFFF) * factor[:, None], full(words >> 16) * factor[:, None]
        return pair(_scaled(low, low_scale, low_bias), _scaled(high, high_scale, high_bias))
    else:  # one block of code, because the compiler would hold all 64 floats of 32 words at once
        return tl.inline_asm_elementwise(
            NORMED_PAIR,
            "=r,r,f,f,f,f,f",
            [
                words,
                factor[:, None],
                low_scale[None, :],
                low_bias[None, :],
                high_scale[None, :],
                high_bias[None, :],
            ],
            dtype=tl.uint32,
            is_pure=True,
            pack=1,
        )


@triton.jit
def _key(y, HALF: tl.constexpr):
    """The key of a value: its bits without the sign bit, which NaN (it ranks first) and -0.0 may have."""
    if HALF:
        return (half(y) & 0x7FFF).to(tl.int32)
    else:
        return y.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _keep_edge(edge, sample, t, channel, last):
    tl.store(edge + 3 * sample, t)
    tl.store(edge + 3 * sample + 1, channel)
    tl.store(edge + 3 * sample + 2, last)


@triton.jit
def resident_pairs(x, y, total, scale, bias, keep, keep_stride, out, inverse, edge, nonzero, eps,
                   P: tl.constexpr, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
                   NORM: tl.constexpr, ADDED: tl.constexpr):  # fmt: skip
    """Forward for bfloat16 rows that fit in registers with two keys to a word.

    Pointers to activations point to 32-bit integers, and C is even. Every thread must have four words
    or more, because they are counted by four. With `ADDED` the input is x + y, which goes to `total`.
    """
    W: tl.constexpr = C // 2
    sample = tl.program_id(0)
    place, word = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_W)
    row, offsets = sample.to(tl.int64) * (P * W), place[:, None] * W + word[None, :]
    mask = inside(place[:, None], word[None, :], P, W, BLOCK_P, BLOCK_W)
    words = tl.load(x + row + offsets, mask=mask, other=0).to(tl.uint32, bitcast=True)
    if ADDED:
        others = tl.load(y + row + offsets, mask=mask, other=0).to(tl.uint32, bitcast=True)
        words = added_pairs(words, others)
        tl.store(total + row + offsets, words.to(tl.int32, bitcast=True), mask=mask)
    wanted = tl.load(keep + sample * keep_stride)
    if NORM:
        low, high = (
            (words << 16).to(tl.float32, bitcast=True),
            (words & 0xFFFF0000).to(tl.float32, bitcast=True),
        )
        factor = tl.rsqrt(tl.sum(tl.fma(low, low, high * high), axis=1) / C + eps)
        tl.store(inverse + sample * P + place, factor, mask=place < P)
    if NORM:
        keys = _normed_pair(words, factor, scale, bias, word, word < W)
    else:
        keys = pair(full(words & 0xFFFF), full(words >> 16))
    if BLOCK_P != P or BLOCK_W != W:
        keys = tl.where(mask, keys, 0)
    positive, key_sum = positive_and_sum(keys, 2, True)
    t, at, last = positive * 0, positive * 0 - 1, positive * 0
    if positive > wanted:
        mean = (key_sum // positive.to(tl.uint32)).to(tl.int32)
        t, at, last = edge_of(keys, x, positive, mean, wanted, P, W, BLOCK_P, BLOCK_W, 2, True, True)
        # the addition that compares keys with `t`, plus one where a tie survives
        extra = (
            (2 * word < at).to(tl.uint32)
            + ((2 * word + 1 < at).to(tl.uint32) << 16)
            + (0x7FFF - t).to(tl.uint32) * 0x00010001
        )
        # a shift, because languages differ in the division of -1
        tie = tl.where(word == at >> 1, tl.where((at & 1) == 0, 1, 0x00010000), 0).to(tl.uint32)
        row_of_tie = tl.where(place <= last, 0xFFFFFFFF, 0).to(tl.uint32)
        keys &= lanes(keys + extra[None, :] + (tie[None, :] & row_of_tie[:, None]))
    tl.store(out + row + offsets, keys.to(tl.int32, bitcast=True), mask=mask)
    _keep_edge(edge, sample, t, at, last)
    tl.store(nonzero + sample, tl.minimum(positive, wanted))


@triton.jit
def _site(x, y, total, scale, bias, inverse, sample, start, eps, P: tl.constexpr, C: tl.constexpr,
          BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
          NORM: tl.constexpr, HALF: tl.constexpr, ADDED: tl.constexpr):  # fmt: skip
    """A tile of the site before its top-k, its offsets in memory and its mask.

    Stores the norm's factors, and x + y.
    """
    place, channel = start + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_C)
    mask = (place[:, None] < P) & (channel[None, :] < C)
    offsets = sample.to(tl.int64) * P * C + place[:, None] * C + channel[None, :]
    value = load(x, offsets, mask, HALF)
    if ADDED:
        value = rounded(value + load(y, offsets, mask, HALF), HALF)
        store(total, offsets, value, mask, HALF)
    if NORM:
        factor = tl.rsqrt(tl.sum(value * value, axis=1) / C + eps)
        tl.store(inverse + sample * P + place, factor, mask=place < P)
        scales = tl.load(scale + channel, mask=channel < C, other=0.0)
        shifts = tl.load(bias + channel, mask=channel < C, other=0.0)
        value = _scaled(value * factor[:, None], scales, shifts)
    return tl.where(mask, relu(value), 0.0), offsets, mask


@triton.jit
def forward(x, y, total, scale, bias, keep, keep_stride, priority, out, scratch, inverse, edge, nonzero, eps,
            P: tl.constexpr, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
            NORM: tl.constexpr, HALF: tl.constexpr, ADDED: tl.constexpr, PRIORITY: tl.constexpr,
            RESIDENT: tl.constexpr):  # fmt: skip
    """Forward for all other rows, with one key to a word.

    With `ADDED` the input is x + y, which goes to `total`. With `PRIORITY` the numbers in `priority` rank
    the positive activations instead of their values.
    """
    sample = tl.program_id(0)
    keys = scratch + sample.to(tl.int64) * P * C
    BITS16: tl.constexpr = HALF and not PRIORITY
    wanted = tl.load(keep + sample * keep_stride)
    if RESIDENT:
        value, offsets, mask = _site(
            x, y, total, scale, bias, inverse, sample, 0, eps, P, C, BLOCK_P, BLOCK_C, NORM, HALF, ADDED
        )
        tile = _key(value, BITS16)
        if PRIORITY:
            tile = tl.where(
                tile > 0, tl.load(priority + offsets, mask=mask, other=0.0).to(tl.int32, bitcast=True), 0
            )
        positive, key_sum = positive_and_sum(tile, 1, BITS16)
    else:
        tile = 0
        positive, key_sum = 0, tl.zeros((), tl.int64)
        for start in range(0, P, BLOCK_P):
            value, offsets, mask = _site(
                x, y, total, scale, bias, inverse, sample, start, eps, P, C, BLOCK_P, BLOCK_C,
                NORM, HALF, ADDED
            )  # fmt: skip
            key = _key(value, BITS16)
            if PRIORITY:
                key = tl.where(
                    key > 0, tl.load(priority + offsets, mask=mask, other=0.0).to(tl.int32, bitcast=True), 0
                )
            more, more_sum = positive_and_sum(key, 1, BITS16)
            positive, key_sum = positive + more, key_sum + more_sum
            tl.store(scratch + offsets, key, mask=mask)
            store(out, offsets, value, mask, HALF)
        tl.debug_barrier()  # from here on a thread may read what another has written
    t, at, last = positive * 0, positive * 0 - 1, positive * 0
    if positive > wanted:
        mean = (key_sum // positive).to(tl.int32)
        t, at, last = edge_of(
            tile, keys, positive, mean, wanted, P, C, BLOCK_P, BLOCK_C, 1, BITS16, RESIDENT
        )
    channel = tl.arange(0, BLOCK_C)
    if RESIDENT:
        store(
            out,
            offsets,
            tl.where(survive(tile, tl.arange(0, BLOCK_P), channel, t, at, last), value, 0.0),
            mask,
            HALF,
        )
    else:
        for start in range(0, P, BLOCK_P):
            place = start + tl.arange(0, BLOCK_P)
            mask = (place[:, None] < P) & (channel[None, :] < C)
            offsets = sample.to(tl.int64) * P * C + place[:, None] * C + channel[None, :]
            value, key = load(out, offsets, mask, HALF), tl.load(scratch + offsets, mask=mask, other=0)
            store(out, offsets, tl.where(survive(key, place, channel, t, at, last), value, 0.0), mask, HALF)
    _keep_edge(edge, sample, t, at, last)
    tl.store(nonzero + sample, tl.minimum(positive, wanted))


@triton.jit
def backward(grad, total_grad, x, scale, bias, out, inverse, edge, x_grad, sums,
             P: tl.constexpr, C: tl.constexpr, PLACES: tl.constexpr,
             BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
             NORM: tl.constexpr, HALF: tl.constexpr, ADDED: tl.constexpr, MASK: tl.constexpr):  # fmt: skip
    """Gradients of a stretch of `PLACES` places of one sample.

    With `ADDED` the input has another gradient, `total_grad`, from where else it is used.
    `sums` has a row per program: its part of the gradients of scale and bias. The survivors are found again
    from the edge that forward stored. With `MASK` they are the elements where `out` is not zero.
    `STAGES - 1` tiles are loaded ahead.
    """
    sample, part = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, BLOCK_C)
    real = channel < C
    t, at, last = tl.load(edge + 3 * sample), tl.load(edge + 3 * sample + 1), tl.load(edge + 3 * sample + 2)
    scale_sums, bias_sums = (
        tl.zeros((BLOCK_P, BLOCK_C), tl.float32),
        tl.zeros((BLOCK_P, BLOCK_C), tl.float32),
    )
    for start in tl.range(part * PLACES, tl.minimum((part + 1) * PLACES, P), BLOCK_P, num_stages=STAGES):
        place = start + tl.arange(0, BLOCK_P)
        mask = inside(place[:, None], channel[None, :], P, C, P if P % BLOCK_P == 0 else 0, BLOCK_C)
        offsets = sample.to(tl.int64) * P * C + place[:, None] * C + channel[None, :]
        passed, normed = load(grad, offsets, mask, HALF), load(x, offsets, mask, HALF)
        y = normed
        if NORM:
            inverses = tl.load(inverse + sample * P + place, mask=place < P, other=0.0)[:, None]
            normed = normed * inverses
            scales = tl.load(scale + channel, mask=real, other=0.0)
            y = _scaled(normed, scales, tl.load(bias + channel, mask=real, other=0.0))
        if MASK:
            survives = load(out, offsets, mask, HALF) != 0.0
        else:
            survives = survive(_key(relu(y), HALF), place, channel, t, at, last)
        passed = tl.where(survives & mask, passed, 0.0)
        if NORM:
            product = passed * normed
            scale_sums += product
            bias_sums += passed
            factors = scales[None, :]
            along = tl.sum(product * factors, axis=1)[:, None] / C
            passed = (passed * factors - normed * along) * inverses
        if ADDED:  # the site's own gradient is rounded first, as where autograd adds the two
            passed = rounded(passed, HALF) + load(total_grad, offsets, mask, HALF)
        store(x_grad, offsets, passed, mask, HALF)
    if NORM:
        row = (sample * tl.num_programs(1) + part) * 2 * C
        tl.store(sums + row + channel, tl.sum(scale_sums, axis=0), mask=real)
        tl.store(sums + row + C + channel, tl.sum(bias_sums, axis=0), mask=real)
