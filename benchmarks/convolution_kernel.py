"""The Triton kernel of `convolution`.

The convolution is nine matrix products, one for each place of the 3x3 window, added up in float32. One
operand of each is a box of the image, shifted by the place. Hopper's copy unit (TMA) reads such a box from
memory and fills in zeros outside the image, so nothing is rearranged in memory before. The image is the
second operand, transposed: in this form Triton leaves both operands in shared memory, and in the other one
it takes the image through registers.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolve_3x3(image, taps, out,
                 SIDE: tl.constexpr, C: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr,
                 STAGES: tl.constexpr):  # fmt: skip
    """Compute `ROWS` rows of one image, for C channels in and K out. The arguments are descriptors."""
    sample = tl.program_id(0) // (SIDE // ROWS)
    row = tl.program_id(0) % (SIDE // ROWS) * ROWS
    sums = tl.zeros((K, ROWS * SIDE), tl.float32)
    for tap in tl.range(9, num_stages=STAGES):
        # at the edge of the image a box begins at -1 or ends at SIDE
        box = image.load([sample, row + tap // 3 - 1, tap % 3 - 1, 0]).reshape(ROWS * SIDE, C)
        sums = tl.dot(taps.load([tap * K, 0]), box.T, sums)
    out.store([sample, row, 0, 0], sums.T.to(out.dtype).reshape(1, ROWS, SIDE, K))
