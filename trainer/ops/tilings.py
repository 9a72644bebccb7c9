"""How the kernels of a site divide their work: tables that a measurement can replace."""

from __future__ import annotations

from typing import NamedTuple

import triton

LEAST_WARPS = 4
FORWARD_WARPS = {(64, 1024): 16, (128, 256): 8, (256, 64): 8, (16, 1024): 8}
"""Warps of a program that keeps a bfloat16 row in registers, by (channels, places). Other rows get a warp
for every 1,024 words. Chosen by measuring on an H200 (`benchmarks.gpu_lab`)."""


class Tiling(NamedTuple):
    """How a program of the backward kernel goes through its places. More tiles make fewer partial sums."""

    places: int
    """Number of places that are worked on at once; a power of two."""
    tiles: int
    warps: int = 8
    stages: int = 1
    """With 2, the next tile is loaded ahead, at the cost of a third of the programs that run at once."""

    @property
    def stretch(self) -> int:
        """Number of places of a program."""
        return self.places * self.tiles


BACKWARD_ELEMENTS = 2**11
"""Most activations of a tile that is not in the table."""
BACKWARD_TILINGS = {
    (64, 1024): Tiling(32, 8),
    (128, 256): Tiling(32, 4, warps=4),
    (256, 64): Tiling(32, 1, warps=4),
    (16, 1024): Tiling(256, 1, warps=4),
}
"""By (channels, places): the fastest that was measured on an H200 (`benchmarks.gpu_lab`)."""


def warps(words: int, words_per_warp: int) -> int:
    """Number of warps for a row of so many words."""
    return min(32, max(LEAST_WARPS, words // words_per_warp))


def forward_warps(channels: int, places: int, words: int) -> int:
    """Number of warps of a program that keeps a row in registers, with two keys to a word."""
    return FORWARD_WARPS.get((channels, places), warps(words, 1024))


def backward(channels: int, places: int) -> Tiling:
    """The table's tiling, or one with tiles of at most `BACKWARD_ELEMENTS`."""
    most = max(1, BACKWARD_ELEMENTS // triton.next_power_of_2(channels))
    default = Tiling(min(triton.next_power_of_2(places), most), 8)
    return BACKWARD_TILINGS.get((channels, places), default)


def partial_sums(channels: int, places: int) -> int:
    """Number of rows of partial sums that backward writes for one sample."""
    return triton.cdiv(places, backward(channels, places).stretch)
