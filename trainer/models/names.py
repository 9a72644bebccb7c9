"""What the names of networks say: sizes, and the number of parameters of a fully connected one. Arithmetic alone; no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

MLP = re.compile(r"mlp-(srelu-)?([1-9]\d{0,5}(?:-[1-9]\d{0,5})*)")


def mlp(name: str) -> tuple[list[int], bool] | None:
    """The hidden widths of a fully connected network, and whether it has SReLUs; None where the name is another's."""
    found = MLP.fullmatch(name)
    return ([int(width) for width in found[2].split("-")], bool(found[1])) if found else None


def parameters(name: str, inputs: int, classes: int) -> int:
    """Of a dense, fully connected network: weights, biases, and four numbers for each SReLU."""
    widths, srelu = _mlp(name)
    return _count([inputs, *widths, classes], srelu)


def matched(name: str, inputs: int, classes: int, target: int) -> str:
    """The network of equal depth whose dense parameter count is nearest to `target`: all hidden widths scaled alike.

    The common factor takes them as far as the count stays within the target, in whole neurons; then one neuron more
    wherever that comes nearest, as long as it comes nearer.
    """
    widths, srelu = _mlp(name)

    def count(some: Sequence[int]) -> int:
        return _count([inputs, *some, classes], srelu)

    def scaled(factor: float) -> list[int]:
        return [max(1, math.floor(width * factor)) for width in widths]

    low, high = 0.0, 1.0
    while count(scaled(high)) <= target:
        high *= 2
    for _ in range(64):  # until the factor has no more bits
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
