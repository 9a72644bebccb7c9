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

from trainer.ops.selection import INTERPRETED, count_above, edge_of, greatest_key, inside, survive


@triton.jit
def _half(x):
    """Round float32 to bits of bfloat16, to nearest even. Triton's interpreter would only cut bits off."""
    if INTERPRETED:
        bits = x.to(tl.uint32, bitcast=True)
        return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    else:
        return x.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.uint32)


@triton.jit
def _full(bits):
    """Convert the bits of bfloat16 to float32."""
    return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def _load(pointer, offsets, mask, HALF: tl.constexpr):
    """Load elements as float32. With `HALF` they are bfloat16, behind a pointer to 16-bit integers."""
    if HALF:
        return _full(
            tl.load(pointer + offsets, mask=mask, other=0).to(tl.uint16, bitcast=True).to(tl.uint32)
        )
    else:
        return tl.load(pointer + offsets, mask=mask, other=0.0)


@triton.jit
def _store(pointer, offsets, x, mask, HALF: tl.constexpr):
    if HALF:
        tl.store(pointer + offsets, _half(x).to(tl.uint16).to(tl.int16, bitcast=True), mask=mask)
    else:
        tl.store(pointer + offsets, x, mask=mask)


@triton.jit
def _rounded(x, HALF: tl.constexpr):
    """The float32 values as they are after a store and a load."""
    if HALF:
        return _full(_half(x))
    else:
        return x


@triton.jit
def _added(a, b):
    """Add bfloat16 pairs as torch does: in float32, then rounded."""
    if INTERPRETED:
        low = _half((a << 16).to(tl.float32, bitcast=True) + (b << 16).to(tl.float32, bitcast=True))
        high = _half(
            (a & 0xFFFF0000).to(tl.float32, bitcast=True) + (b & 0xFFFF0000).to(tl.float32, bitcast=True)
        )
        return low | (high << 16)
    else:  # one rounding gives the same bits as two, because float32 has more than twice as many digits
        return tl.inline_asm_elementwise(
            "{ .reg .b32 ones; mov.b32 ones, 0x3F803F80; fma.rn.bf16x2 $0, $1, ones, $2; }",
            "=r,r,r",
            [a, b],
            dtype=tl.uint32,
            is_pure=True,
            pack=1,
        )


@triton.jit
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _pair(low, high):
    """Pack two keys into one word."""
    if INTERPRETED:
        return (_half(_relu(low)) | (_half(_relu(high)) << 16)) & 0x7FFF7FFF
    else:  # ReLU, rounding and packing are one instruction; NaN comes out without its sign
        return tl.inline_asm_elementwise(
            "cvt.rn.relu.bf16x2.f32 $0, $1, $2;",
            "=r,f,f",
            [high, low],
            dtype=tl.uint32,
            is_pure=True,
            pack=1,
        )


@triton.jit
def _lanes(sums):
    """A word with all ones in each half whose highest bit is set, and zeros in the others."""
    if INTERPRETED:
        return ((sums >> 15) & 0x00010001) * 0xFFFF
    else:
        return tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, $1, 0xBB99;", "=r,r", [sums], dtype=tl.uint32, is_pure=True, pack=1
        )


@triton.jit
def _scaled(normed, scale, bias, channel, real):
    scales, shifts = (
        tl.load(scale + channel, mask=real, other=0.0),
        tl.load(bias + channel, mask=real, other=0.0),
    )
    return tl.fma(
        normed,
        tl.broadcast_to(scales[None, :], normed.shape),
        tl.broadcast_to(shifts[None, :], normed.shape),
    )


@triton.jit
def _key(y, HALF: tl.constexpr):
    """The key of a value: its bits without the sign bit, which NaN (it ranks first) and -0.0 may have."""
    if HALF:
        return (_half(y) & 0x7FFF).to(tl.int32)
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

    Pointers to activations point to 32-bit integers, and C is even. Every thread must have two words or
    more, because `count_above` takes them in pairs. With `ADDED` the input is x + y, which goes to `total`.
    """
    W: tl.constexpr = C // 2
    sample = tl.program_id(0)
    place, word = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_W)
    row, offsets = sample.to(tl.int64) * (P * W), place[:, None] * W + word[None, :]
    mask = inside(place[:, None], word[None, :], P, W, BLOCK_P, BLOCK_W)
    words = tl.load(x + row + offsets, mask=mask, other=0).to(tl.uint32, bitcast=True)
    if ADDED:
        words = _added(words, tl.load(y + row + offsets, mask=mask, other=0).to(tl.uint32, bitcast=True))
        tl.store(total + row + offsets, words.to(tl.int32, bitcast=True), mask=mask)
    wanted = tl.load(keep + sample * keep_stride)
    if NORM:
        low, high = (
            (words << 16).to(tl.float32, bitcast=True),
            (words & 0xFFFF0000).to(tl.float32, bitcast=True),
        )
        factor = tl.rsqrt(tl.sum(tl.fma(low, low, high * high), axis=1) / C + eps)
        tl.store(inverse + sample * P + place, factor, mask=place < P)
    # always 16, but hidden from the compiler, which would else hold 64 floats in registers for 32 words
    half = (tl.minimum(wanted, 0) + 16).to(tl.uint32)
    low, high = (
        (words << half).to(tl.float32, bitcast=True),
        (words & (0xFFFFFFFF << half)).to(tl.float32, bitcast=True),
    )
    if NORM:
        real = word < W
        low = _scaled(low * factor[:, None], scale, bias, 2 * word, real)
        high = _scaled(high * factor[:, None], scale, bias, 2 * word + 1, real)
    keys = _pair(low, high)
    if BLOCK_P != P or BLOCK_W != W:
        keys = tl.where(mask, keys, 0)
    positive, greatest = count_above(keys, tl.zeros((), tl.int32), 2), greatest_key(keys, 2)
    t, at, last = positive * 0, positive * 0 - 1, positive * 0
    if positive > wanted:
        t, at, last = edge_of(keys, x, positive, greatest, wanted, P, W, BLOCK_P, BLOCK_W, 2, True, True)
        # the addition of count_above, plus one where a tie survives
        extra = (
            (2 * word < at).to(tl.uint32)
            + ((2 * word + 1 < at).to(tl.uint32) << 16)
            + (0x7FFF - t).to(tl.uint32) * 0x00010001
        )
        # a shift, because languages differ in the division of -1
        tie = tl.where(word == at >> 1, tl.where((at & 1) == 0, 1, 0x00010000), 0).to(tl.uint32)
        row_of_tie = tl.where(place <= last, 0xFFFFFFFF, 0).to(tl.uint32)
        keys &= _lanes(keys + extra[None, :] + (tie[None, :] & row_of_tie[:, None]))
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
    value = _load(x, offsets, mask, HALF)
    if ADDED:
        value = _rounded(value + _load(y, offsets, mask, HALF), HALF)
        _store(total, offsets, value, mask, HALF)
    if NORM:
        factor = tl.rsqrt(tl.sum(value * value, axis=1) / C + eps)
        tl.store(inverse + sample * P + place, factor, mask=place < P)
        value = _scaled(value * factor[:, None], scale, bias, channel, channel < C)
    return tl.where(mask, _relu(value), 0.0), offsets, mask


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
        positive, greatest = count_above(tile, 0, 1), greatest_key(tile, 1)
    else:
        tile = 0
        positive, greatest = 0, 0
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
            positive += count_above(key, 0, 1)
            greatest = tl.maximum(greatest, greatest_key(key, 1))
            tl.store(scratch + offsets, key, mask=mask)
            _store(out, offsets, value, mask, HALF)
        tl.debug_barrier()  # from here on a thread may read what another has written
    t, at, last = positive * 0, positive * 0 - 1, positive * 0
    if positive > wanted:
        t, at, last = edge_of(
            tile, keys, positive, greatest, wanted, P, C, BLOCK_P, BLOCK_C, 1, BITS16, RESIDENT
        )
    channel = tl.arange(0, BLOCK_C)
    if RESIDENT:
        _store(
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
            value, key = _load(out, offsets, mask, HALF), tl.load(scratch + offsets, mask=mask, other=0)
            _store(out, offsets, tl.where(survive(key, place, channel, t, at, last), value, 0.0), mask, HALF)
    _keep_edge(edge, sample, t, at, last)
    tl.store(nonzero + sample, tl.minimum(positive, wanted))


@triton.jit
def backward(grad, total_grad, x, scale, bias, out, inverse, edge, x_grad, sums,
             P: tl.constexpr, C: tl.constexpr, PLACES: tl.constexpr,
             BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
             NORM: tl.constexpr, HALF: tl.constexpr, ADDED: tl.constexpr, MASK: tl.constexpr):  # fmt: skip
    """Gradients of a stretch of `PLACES` places of one sample.

    With `ADDED` the input has another gradient, `total_grad`, from where else it is used.
    `sums` has a row per program: its part of the gradients of scale and bias. The survivors are found again
    from the edge that forward stored. With `MASK` they are the elements where `out` is not zero.
    """
    sample, part = tl.program_id(0), tl.program_id(1)
    channel = tl.arange(0, BLOCK_C)
    real = channel < C
    t, at, last = tl.load(edge + 3 * sample), tl.load(edge + 3 * sample + 1), tl.load(edge + 3 * sample + 2)
    scale_sums, bias_sums = (
        tl.zeros((BLOCK_P, BLOCK_C), tl.float32),
        tl.zeros((BLOCK_P, BLOCK_C), tl.float32),
    )
    for start in range(part * PLACES, tl.minimum((part + 1) * PLACES, P), BLOCK_P):
        place = start + tl.arange(0, BLOCK_P)
        mask = inside(place[:, None], channel[None, :], P, C, P if P % BLOCK_P == 0 else 0, BLOCK_C)
        offsets = sample.to(tl.int64) * P * C + place[:, None] * C + channel[None, :]
        passed, normed = _load(grad, offsets, mask, HALF), _load(x, offsets, mask, HALF)
        y = normed
        if NORM:
            inverses = tl.load(inverse + sample * P + place, mask=place < P, other=0.0)[:, None]
            normed = normed * inverses
            y = _scaled(normed, scale, bias, channel, real)
        if MASK:
            survives = _load(out, offsets, mask, HALF) != 0.0
        else:
            survives = survive(_key(_relu(y), HALF), place, channel, t, at, last)
        passed = tl.where(survives & mask, passed, 0.0)
        if NORM:
            product = passed * normed
            scale_sums += product
            bias_sums += passed
            factors = tl.load(scale + channel, mask=real, other=0.0)[None, :]
            along = tl.sum(product * factors, axis=1)[:, None] / C
            passed = (passed * factors - normed * along) * inverses
        if ADDED:  # the site's own gradient is rounded first, as where autograd adds the two
            passed = _rounded(passed, HALF) + _load(total_grad, offsets, mask, HALF)
        _store(x_grad, offsets, passed, mask, HALF)
    if NORM:
        row = (sample * tl.num_programs(1) + part) * 2 * C
        tl.store(sums + row + channel, tl.sum(scale_sums, axis=0), mask=real)
        tl.store(sums + row + C + channel, tl.sum(bias_sums, axis=0), mask=real)
