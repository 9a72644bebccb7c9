"""The Triton kernel that adds up partial sums; `sums` launches it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_up(partial, gradients, table, samples, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Add up all rows of a few columns of one site, in one order.

    The program's line of `table` says where: the first column in `partial` and in `gradients`, the number
    of columns, the length of a row, and the number of rows for each sample.
    """
    line = table + 5 * tl.program_id(0)
    source, target, columns = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    length, rows = tl.load(line + 3), tl.load(line + 4) * samples
    column = tl.arange(0, COLUMNS)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row[:, None] < rows) & (column[None, :] < columns)
        sums += tl.load(partial + source + row[:, None] * length + column[None, :], mask=mask, other=0.0)
    tl.store(gradients + target + column, tl.sum(sums, axis=0), mask=column < columns)
