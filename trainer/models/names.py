"""The widths and parameter counts of fully connected networks, read from their names without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

MLP = re.compile(r"mlp-(srelu-)?([1-9]\d{0,5}(?:-[1-9]\d{0,5})*)")


def mlp(name: str) -> tuple[list[int], bool] | None:
    """The hidden widths of a fully connected network and whether it has SReLUs. None for other names."""
    found = MLP.fullmatch(name)
    return ([int(width) for width in found[2].split("-")], bool(found[1])) if found else None


def parameters(name: str, inputs: int, classes: int) -> int:
    """Number of parameters of a dense, fully connected network: weights, biases and four for each SReLU."""
    widths, srelu = _mlp(name)
    return _count([inputs, *widths, classes], srelu)


def matched(name: str, inputs: int, classes: int, target: int) -> str:
    """The network of equal depth whose dense parameter count is nearest to `target`.

    First all hidden widths are scaled by the largest common factor whose count stays within the target, in
    whole neurons. Then neurons are added one by one, each to the layer that brings the count nearest, until
    another one would take it further away.
    """
    widths, srelu = _mlp(name)

    def count(some: Sequence[int]) -> int:
        return _count([inputs, *some, classes], srelu)

    def scaled(factor: float) -> list[int]:
        return [max(1, math.floor(width * factor)) for width in widths]

    low, high = 0.0, 1.0
    while count(scaled(high)) <= target:
        high *= 2
    for _ in range(64):  # more halvings than a float has bits
        middle = (low + high) / 2
        low, high = (middle, high) if count(scaled(middle)) <= target else (low, middle)
    found = scaled(low)
    while True:
        more = [[*found[:i], found[i] + 1, *found[i + 1 :]] for i in range(len(found))]
        nearest = min(more, key=lambda some: abs(count(some) - target))
        if abs(count(nearest) - target) >= abs(count(found) - target):
            break
        found = nearest
    return f"mlp-{'srelu-' if srelu else ''}{'-'.join(map(str, found))}"


def _count(sizes: Sequence[int], srelu: bool) -> int:
    return sum((inside + 1) * outside for inside, outside in pairwise(sizes)) + 4 * sum(sizes[1:-1]) * srelu


def _mlp(name: str) -> tuple[list[int], bool]:
    found = mlp(name)
    if found is None:
        raise ValueError(
            f"{name!r} is no fully connected network: mlp-WIDTH-WIDTH-..., as in mlp-1000-1000-1000."
        )
    return found
