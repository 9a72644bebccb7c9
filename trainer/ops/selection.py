"""The search for a row's threshold, in Triton, and for the ties at the threshold that survive.

The threshold is a `t` with at most `keep` keys above it. A key is the bits of a non-negative float, which
sort like the floats. A row is (places, words) in memory, where a place is a pixel. A word holds one key, or
two bfloat16 keys with the even channel in the lower half. bfloat16 keys have 15 bits, so that one addition
compares two of them and its carries say which are greater. A row is one tile in a program's registers
(`RESIDENT`), or is read tile by tile from memory in each pass.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
COUNT_EIGHT = tl.constexpr(
    "{ .reg .b32 x, y; prmt.b32 x, $4, $5, 0xFDB9; prmt.b32 y, $6, $7, 0xFDB9; "
    "dp4a.s32.s32 x, x, 0xFFFFFFFF, 0; dp4a.s32.s32 $0, y, 0xFFFFFFFF, x; "
    "mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0; }"
)
SUM_EIGHT = tl.constexpr(
    "dp2a.lo.u32.u32 $0, $4, 0x0101, 0; dp2a.lo.u32.u32 $0, $5, 0x0101, $0; "
    "dp2a.lo.u32.u32 $0, $6, 0x0101, $0; dp2a.lo.u32.u32 $0, $7, 0x0101, $0; "
    "mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0;"
)


@triton.jit
def _above(words, t, LANES: tl.constexpr):
    """A tile whose sum is the number of keys that are greater than `t`."""
    if LANES == 2:
        # bits 15 and 31 are set where a key is greater
        sums = words + (0x7FFF - t).to(tl.uint32) * 0x00010001
        if INTERPRETED:
            return (((sums >> 15) & 1) + (sums >> 31)).to(tl.int32)
        else:  # the eight bits of four words become bytes of -1, which two instructions add up
            return tl.inline_asm_elementwise(
                COUNT_EIGHT, "=r,=r,=r,=r,r,r,r,r", [sums], dtype=tl.int32, is_pure=True, pack=4
            )
    else:
        return (words > t).to(tl.int32)


@triton.jit
def positive_and_sum(words, LANES: tl.constexpr, HALF: tl.constexpr):
    """Number of keys of a tile that are greater than 0, and the sum of the upper 16 bits of all keys."""
    positive = _above(words, tl.zeros((), tl.int32), LANES)
    if LANES == 2:
        if INTERPRETED:
            key_sum = (words & 0xFFFF) + (words >> 16)
        else:
            key_sum = tl.inline_asm_elementwise(
                SUM_EIGHT, "=&r,=r,=r,=r,r,r,r,r", [words], dtype=tl.uint32, is_pure=True, pack=4
            )
        both = tl.sum(positive.to(tl.int64) + (key_sum.to(tl.int64) << 32))
        return both.to(tl.int32), (both >> 32).to(tl.uint32)
    else:
        return tl.sum(positive), tl.sum((words if HALF else words >> 16).to(tl.int64))


@triton.jit
def _restored(half, t, mean):
    """A count of up to 65,536 from its lower 16 bits.

    Where they are 0, it is 0 or 65,536. Below the mean it cannot be 0, and from the mean on not 65,536.
    """
    return tl.where((half == 0) & (t < mean), 0x10000, half.to(tl.int32))


@triton.jit
def _count_above(words, a, b, mean, LANES: tl.constexpr):
    """Numbers of keys of a tile that are greater than `a` and than `b`, as int32.

    One word takes both, because each sum over all threads makes them wait for each other.
    """
    if LANES == 2:
        both = tl.sum(_above(words, a, 2).to(tl.uint32) + (_above(words, b, 2).to(tl.uint32) << 16))
        above_a = _restored(both & 0xFFFF, a, mean)
        return above_a, _restored((both - above_a.to(tl.uint32)) >> 16, b, mean)
    else:
        both = tl.sum((words > a).to(tl.int64) + ((words > b).to(tl.int64) << 32))
        return both.to(tl.int32), (both >> 32).to(tl.int32)


@triton.jit
def _tied(words, t, LANES: tl.constexpr):
    """A word per word of keys, with 1 in each lane whose key is `t`."""
    if LANES == 2:
        return ((((words ^ (t.to(tl.uint32) * 0x00010001)) + 0x7FFF7FFF) >> 15) & 0x00010001) ^ 0x00010001
    else:
        return (words == t).to(tl.uint32)


@triton.jit
def inside(place, column, P: tl.constexpr, W: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr):
    """The mask of a tile, or a constant that the compiler can drop if the tile is as large as the row."""
    if BLOCK_P == P and BLOCK_W == W:
        return tl.broadcast_to(tl.full((1, 1), True, tl.int1), (place * column).shape)
    else:
        return (place < P) & (column < W)


@triton.jit
def _words(keys, start, P: tl.constexpr, W: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr):
    """A tile of a streamed row's keys. Beyond the row's end they are 0, which is above nothing."""
    place, word = start + tl.arange(0, BLOCK_P)[:, None], tl.arange(0, BLOCK_W)[None, :]
    return tl.load(keys + place * W + word, mask=(place < P) & (word < W), other=0)


@triton.jit
def _count(tile, keys, a, b, mean, P: tl.constexpr, W: tl.constexpr,
           BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
           LANES: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """Numbers of keys of the whole row that are greater than `a` and than `b`."""
    if RESIDENT:
        return _count_above(tile, a, b, mean, LANES)
    else:
        above_a, above_b = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
        for start in range(0, P, BLOCK_P):
            more_a, more_b = _count_above(_words(keys, start, P, W, BLOCK_P, BLOCK_W), a, b, mean, LANES)
            above_a, above_b = above_a + more_a, above_b + more_b
        return above_a, above_b


@triton.jit
def _log(count):
    """A measure of the logarithm of a count: the bits of a float grow nearly like its logarithm."""
    return (count + 0.5).to(tl.float32).to(tl.int32, bitcast=True)


@triton.jit
def _depth(count, size: tl.constexpr):
    """About how many standard deviations the `count` largest of `size` normal values are away from the mean.

    This is 1.6 times the root of the logarithm of their share, less a constant.
    """
    return 1.6 * tl.sqrt((_log(count * 0 + size) - _log(count)).to(tl.float32) * 2.0**-23)


@triton.jit
def _threshold(tile, keys, positive, mean, keep, P: tl.constexpr, W: tl.constexpr,
               BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
               LANES: tl.constexpr, HALF: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """A `t` with at most `keep` keys above it, and their number.

    Either exactly `keep` keys are above `t`, or `t` is the least such number and only some of the ties at it
    survive. Each pass counts the keys above two numbers, `a` and `b`, around a guess. The first guess takes
    activations for normal. The next ones follow the line through both counts' logarithms. Now and then
    a pass cuts the bracket into thirds instead, so that no data can make the search slow.
    """
    size: tl.constexpr = P * W * LANES
    SHIFT: tl.constexpr = 16 if HALF else 0
    TOP: tl.constexpr = 0x7FFF if HALF else 0x7FFFFFFF
    LARGE: tl.constexpr = 0x7B7F if HALF else 0x7B7FFFFF  # far from infinity, so that guesses are finite
    low, high, above_high, step = positive * 0, positive * 0 + TOP, positive * 0, 0
    # the mean key of the upper half of normal values is that of 0.53 standard deviations
    deviation = (tl.minimum(mean, 0x7B7F) << 16).to(tl.float32, bitcast=True) / 0.53
    value = deviation * (_depth(keep, size) - _depth(positive, size))
    spread, thirds = positive * 0 + (9 << (16 - SHIFT)), step > 0
    while (high - low > 1) & (above_high != keep):
        guess = tl.minimum(tl.maximum(value.to(tl.int32, bitcast=True) >> SHIFT, low + 1), high - 1)
        third = (high - low) // 3
        a = tl.maximum(tl.where(thirds, low + third, guess - spread), low + 1)
        b = tl.where(thirds, high - tl.maximum(third, 1), guess + tl.minimum(spread + 1, high - 1 - guess))
        above_a, above_b = _count(tile, keys, a, b, mean, P, W, BLOCK_P, BLOCK_W, LANES, RESIDENT)
        few_a, few_b = above_a <= keep, above_b <= keep
        low = tl.where(few_a, low, tl.where(few_b, a, b))
        high = tl.where(few_a, a, tl.where(few_b, b, high))
        above_high = tl.where(few_a, above_a, tl.where(few_b, above_b, above_high))
        least = (tl.minimum(a, LARGE) << SHIFT).to(tl.float32, bitcast=True)
        most = (tl.minimum(b, LARGE) << SHIFT).to(tl.float32, bitcast=True)
        fall = _log(above_a) - _log(above_b)
        share = (_log(above_a) - _log(keep)).to(tl.float32) / tl.maximum(fall, 1).to(tl.float32)
        value = least + (most - least) * tl.minimum(tl.maximum(share, -8.0), 8.0)
        spread = (b - a) >> tl.where(few_a == few_b, 3, 5)
        step += 1
        thirds = (step % 8 == 5) | (fall == 0)
    return high, above_high


@triton.jit
def _here(words, word, channel, t, LANES: tl.constexpr):
    """A vector with 1 for each place of a tile whose key in one channel is `t`."""
    column = tl.sum(tl.where(word[None, :] == channel // LANES, words, 0), axis=1).to(tl.int32)
    if LANES == 2:
        column = (column >> ((channel & 1) * 16)) & 0xFFFF
    return (column == t).to(tl.int32)


@triton.jit
def _before(ties, number):
    """How many places come before the one that has tie `number` of a column, counted from 1."""
    return tl.sum((tl.cumsum(ties, 0) < number).to(tl.int32), axis=0)


@triton.jit
def _cut(tile, keys, t, need, P: tl.constexpr, W: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
         LANES: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """Channel and place of the last of the `need` ties at `t` that survive.

    Ties in lower channels come first, and in one channel ties at lower places.
    """
    word = tl.arange(0, BLOCK_W)
    if RESIDENT:
        columns = tl.sum(_tied(tile, t, LANES), axis=0)
    else:
        columns = tl.zeros((BLOCK_W,), tl.uint32)
        for start in range(0, P, BLOCK_P):
            columns += tl.sum(_tied(_words(keys, start, P, W, BLOCK_P, BLOCK_W), t, LANES), axis=0)
    if LANES == 2:
        even, odd = (columns & 0xFFFF).to(tl.int32), (columns >> 16).to(tl.int32)
    else:
        even, odd = columns.to(tl.int32), tl.zeros((BLOCK_W,), tl.int32)
    through = tl.cumsum(even + odd, 0)
    between = through - odd
    before = between - even
    # the edge's channel, and how many of its ties survive, as one number; every other channel has 0
    code = tl.where((before < need) & (need <= between), LANES * word * P + need - before - 1, 0)
    if LANES == 2:
        code += tl.where((between < need) & (need <= through), (2 * word + 1) * P + need - between - 1, 0)
    code = tl.sum(code, axis=0)
    channel, rest = code // P, code % P + 1
    if RESIDENT:
        last = _before(_here(tile, word, channel, t, LANES), rest)
    else:
        last, passed = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
        for start in range(0, P, BLOCK_P):
            here = _here(_words(keys, start, P, W, BLOCK_P, BLOCK_W), word, channel, t, LANES)
            last += _before(here, rest - passed)
            passed += tl.sum(here)
    return channel, last


@triton.jit
def edge_of(tile, keys, positive, mean, keep, P: tl.constexpr, W: tl.constexpr,
            BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
            LANES: tl.constexpr, HALF: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """The edge (t, channel, place) of a row with more than `keep` keys above 0.

    A key survives if it is above `t`. A key equal to `t` survives in a lower channel, or in the edge's
    channel up to and with the edge's place. In other rows the edge is (0, -1, 0): all positive keys survive.
    """
    t, above = _threshold(tile, keys, positive, mean, keep, P, W, BLOCK_P, BLOCK_W, LANES, HALF, RESIDENT)
    channel, last = positive * 0 - 1, positive * 0
    if above < keep:
        channel, last = _cut(tile, keys, t, keep - above, P, W, BLOCK_P, BLOCK_W, LANES, RESIDENT)
    return t, channel, last


@triton.jit
def survive(key, place, channel, t, at, last):
    """Which keys of a tile survive, given its row's edge."""
    first_without = at + (place <= last).to(tl.int32)  # the first channel of a place whose ties are dropped
    return key > t - (channel[None, :] < first_without[:, None]).to(tl.int32)
