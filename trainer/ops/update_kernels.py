"""The Triton kernel of `update`."""

from __future__ import annotations

import triton
import triton.language as tl

from trainer.ops.kernels import _load, _store


@triton.jit
def step(parameters, momenta, copies, gradients, rate, FIRST: tl.constexpr, SIZES: tl.constexpr,
         BLOCK: tl.constexpr, MOMENTUM: tl.constexpr, DECAY: tl.constexpr,
         COPIES: tl.constexpr):  # fmt: skip
    """The programs from `FIRST[i]` on update the tensor `i`."""
    program, size = tl.program_id(0), tl.load(rate)
    for i in tl.static_range(len(SIZES)):
        if (program >= FIRST[i]) & (program < FIRST[i + 1]):
            place = (program - FIRST[i]) * BLOCK + tl.arange(0, BLOCK)
            mask = place < SIZES[i]
            weight = tl.load(parameters[i] + place, mask=mask)
            change = _load(gradients[i], place, mask, COPIES)
            if DECAY != 0.0:
                change = _times_plus(DECAY, weight, change)
            if MOMENTUM != 0.0:
                moving = MOMENTUM * tl.load(momenta[i] + place, mask=mask) + change
                tl.store(momenta[i] + place, moving, mask=mask)
                change = _times_plus(MOMENTUM, moving, change)
            weight = _times_plus(-size, change, weight)
            tl.store(parameters[i] + place, weight, mask=mask)
            if COPIES:
                _store(copies[i], place, weight, mask, True)


@triton.jit
def _times_plus(factor, x, y):
    """A product and a sum with one rounding, as in torch's own step."""
    return tl.fma(tl.broadcast_to(tl.full((1,), factor, tl.float32), x.shape), x, y)
