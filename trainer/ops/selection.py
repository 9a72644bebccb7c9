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
COUNT_FOUR = tl.constexpr(
    "{ .reg .b32 bytes; prmt.b32 bytes, $2, $3, 0xFDB9; "
    "dp4a.s32.s32 $0, bytes, 0x01010101, 0; mov.b32 $1, 0; }"
)


@triton.jit
def count_above(words, t, LANES: tl.constexpr):
    """Number of keys of a tile that are greater than `t`, as an int32."""
    if LANES == 2:
        # bits 15 and 31 are set where a key is greater
        sums = words + (0x7FFF - t).to(tl.uint32) * 0x00010001
        if INTERPRETED:
            return tl.sum(((sums >> 15) & 1) + (sums >> 31)).to(tl.int32)
        else:  # the four bits of two words become bytes of -1, which one instruction adds up
            return -tl.sum(
                tl.inline_asm_elementwise(
                    COUNT_FOUR, "=r,=r,r,r", [sums], dtype=tl.int32, is_pure=True, pack=2
                )
            )
    else:
        return tl.sum((words > t).to(tl.int32))


@triton.jit
def greatest_key(words, LANES: tl.constexpr):
    if LANES == 2:
        return tl.maximum(tl.max(words << 16) >> 16, tl.max(words) >> 16).to(tl.int32)
    else:
        return tl.max(words)


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
def _count(tile, keys, t, P: tl.constexpr, W: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
           LANES: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """Number of keys of the whole row that are greater than `t`."""
    if RESIDENT:
        return count_above(tile, t, LANES)
    else:
        total = tl.zeros((), tl.int32)
        for start in range(0, P, BLOCK_P):
            total += count_above(_words(keys, start, P, W, BLOCK_P, BLOCK_W), t, LANES)
        return total


@triton.jit
def _tail(count, size: tl.constexpr):
    """About how many standard deviations the `count` largest of `size` normal values are away from the mean.

    This is the root of the logarithm of their share. The bits of a float approximate it.
    """
    share = (count + 0.5) / size
    return tl.sqrt((0x40000000 - share.to(tl.float32).to(tl.int32, bitcast=True)).to(tl.float32) * 2.0**-23)


@triton.jit
def _threshold(tile, keys, positive, greatest, keep, P: tl.constexpr, W: tl.constexpr,
               BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
               LANES: tl.constexpr, HALF: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """A `t` with at most `keep` keys above it, and their number.

    Either exactly `keep` keys are above `t`, or `t` is the least such number and only some of the ties at it
    survive. Activations are nearly normal. So the next guess is the point where a normal tail through both
    ends of the bracket would have `keep` keys, which takes five passes instead of fifteen. Every fourth
    guess is the middle, so that no data can make the search slow.
    """
    low, above_low, high, above_high, step = positive * 0, positive, greatest, positive * 0, 0
    size: tl.constexpr = P * W * LANES
    SHIFT: tl.constexpr = 16 if HALF else 0
    FINITE: tl.constexpr = 0x7F7F if HALF else 0x7F7FFFFF
    wanted_tail, low_tail, high_tail = _tail(keep, size), _tail(above_low, size), _tail(above_high, size)
    while (high - low > 1) & (above_high != keep):
        least = (tl.minimum(low, FINITE) << SHIFT).to(tl.float32, bitcast=True)
        most = (tl.minimum(high, FINITE) << SHIFT).to(tl.float32, bitcast=True)
        share = (wanted_tail - low_tail) / (high_tail - low_tail)
        guess = (least + (most - least) * share).to(tl.int32, bitcast=True) >> SHIFT
        middle = low + (high - low) // 2
        t = tl.minimum(tl.maximum(tl.where(step % 4 == 3, middle, guess), low + 1), high - 1)
        above = _count(tile, keys, t, P, W, BLOCK_P, BLOCK_W, LANES, RESIDENT)
        few, tail = above <= keep, _tail(above, size)
        low, above_low, low_tail = (
            tl.where(few, low, t),
            tl.where(few, above_low, above),
            tl.where(few, low_tail, tail),
        )
        high, above_high, high_tail = (
            tl.where(few, t, high),
            tl.where(few, above, above_high),
            tl.where(few, tail, high_tail),
        )
        step += 1
    return high, above_high


@triton.jit
def _here(words, word, channel, t, LANES: tl.constexpr):
    """A vector with 1 for each place of a tile whose key in one channel is `t`."""
    column = tl.sum(tl.where(word[None, :] == channel // LANES, words, 0), axis=1).to(tl.int32)
    if LANES == 2:
        column = (column >> ((channel & 1) * 16)) & 0xFFFF
    return (column == t).to(tl.int32)


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
    before = through - even - odd
    in_even, in_odd = (before < need) & (need <= before + even), (before + even < need) & (need <= through)
    channel = tl.sum(tl.where(in_even, word * LANES, 0) + tl.where(in_odd, word * LANES + 1, 0))
    rest = tl.sum(tl.where(in_even, need - before, 0) + tl.where(in_odd, need - before - even, 0))
    if RESIDENT:
        here = _here(tile, word, channel, t, LANES)
        last = tl.sum(tl.where((here > 0) & (tl.cumsum(here, 0) == rest), tl.arange(0, BLOCK_P), 0))
    else:
        last, passed = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
        for start in range(0, P, BLOCK_P):
            here = _here(_words(keys, start, P, W, BLOCK_P, BLOCK_W), word, channel, t, LANES)
            last += tl.sum(
                tl.where(
                    (here > 0) & (tl.cumsum(here, 0) == rest - passed), start + tl.arange(0, BLOCK_P), 0
                )
            )
            passed += tl.sum(here)
    return channel, last


@triton.jit
def edge_of(tile, keys, positive, greatest, keep, P: tl.constexpr, W: tl.constexpr,
            BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr,
            LANES: tl.constexpr, HALF: tl.constexpr, RESIDENT: tl.constexpr):  # fmt: skip
    """The edge (t, channel, place) of a row with more than `keep` keys above 0.

    A key survives if it is above `t`. A key equal to `t` survives in a lower channel, or in the edge's
    channel up to and with the edge's place. In other rows the edge is (0, -1, 0): all positive keys survive.
    """
    t, above = _threshold(
        tile, keys, positive, greatest, keep, P, W, BLOCK_P, BLOCK_W, LANES, HALF, RESIDENT
    )
    channel, last = positive * 0 - 1, positive * 0
    if above < keep:
        channel, last = _cut(tile, keys, t, keep - above, P, W, BLOCK_P, BLOCK_W, LANES, RESIDENT)
    return t, channel, last


@triton.jit
def survive(key, place, channel, t, at, last):
    return key > t - ((channel < at)[None, :] | ((channel == at)[None, :] & (place <= last)[:, None])).to(
        tl.int32
    )
