"""Loading, storing, rounding and packing of activations, in Triton. bfloat16 is handled as its bits."""

from __future__ import annotations

import triton
import triton.language as tl

from trainer.ops.selection import INTERPRETED


@triton.jit
def half(x):
    """Round float32 to bits of bfloat16, to nearest even. Triton's interpreter would only cut bits off."""
    if INTERPRETED:
        bits = x.to(tl.uint32, bitcast=True)
        return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    else:
        return x.to(tl.bfloat16).to(tl.uint16, bitcast=True).to(tl.uint32)


@triton.jit
def full(bits):
    """Convert the bits of bfloat16 to float32."""
    return (bits << 16).to(tl.float32, bitcast=True)


@triton.jit
def load(pointer, offsets, mask, HALF: tl.constexpr):
    """Load elements as float32. With `HALF` they are bfloat16, behind a pointer to 16-bit integers."""
    if HALF:
        return full(tl.load(pointer + offsets, mask=mask, other=0).to(tl.uint16, bitcast=True).to(tl.uint32))
    else:
        return tl.load(pointer + offsets, mask=mask, other=0.0)


@triton.jit
def store(pointer, offsets, x, mask, HALF: tl.constexpr):
    if HALF:
        tl.store(pointer + offsets, half(x).to(tl.uint16).to(tl.int16, bitcast=True), mask=mask)
    else:
        tl.store(pointer + offsets, x, mask=mask)


@triton.jit
def rounded(x, HALF: tl.constexpr):
    """The float32 values as they are after a store and a load."""
    if HALF:
        return full(half(x))
    else:
        return x


@triton.jit
def added_pairs(a, b):
    """Add bfloat16 pairs as torch does: in float32, then rounded."""
    if INTERPRETED:
        low = half((a << 16).to(tl.float32, bitcast=True) + (b << 16).to(tl.float32, bitcast=True))
        high = half(
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
def relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def pair(low, high):
    """Pack two keys into one word."""
    if INTERPRETED:
        return (half(relu(low)) | (half(relu(high)) << 16)) & 0x7FFF7FFF
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
def lanes(sums):
    """A word with all ones in each half whose highest bit is set, and zeros in the others."""
    if INTERPRETED:
        return ((sums >> 15) & 0x00010001) * 0xFFFF
    else:
        return tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, $1, 0xBB99;", "=r,r", [sums], dtype=tl.uint32, is_pure=True, pack=1
        )
