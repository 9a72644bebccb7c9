"""What a search of a smaller budget would have found, from the candidates of one search."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sweep.errors import NotComparable


def tuning_curve(
    order: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, budgets: Sequence[int]
) -> list[tuple[float, float]]:
    """The mean and the deviation of what the best of b candidates is worth, for every budget b.

    Of b candidates, drawn with replacement from all, the one with the highest `order` is picked; of equals,
    the earliest. It is worth its entry in `values`: the pick goes by the validation score, say, and is worth
    its test score. Nothing is drawn here: the i-th lowest of N is picked with the chance
    (i / N)^b - ((i - 1) / N)^b.

    The curve is too low for budgets near N, as draws repeat. It says nothing of a search that learns from
    its candidates.
    """
    scores, worths = np.asarray(order, float), np.asarray(values, float)
    if scores.shape != worths.shape or scores.ndim != 1 or not len(scores):
        shapes = f"they have the shapes {scores.shape} and {worths.shape}."
        raise NotComparable(f"a tuning curve needs a score and a worth of each candidate; {shapes}")
    if np.isnan(scores).any() or not np.isfinite(worths).all():
        raise NotComparable("a candidate's score or worth is missing: it has no place on a tuning curve.")
    places = np.arange(len(scores))
    ranked = worths[np.lexsort((-places, scores))]
    shares = np.arange(len(scores) + 1) / len(scores)
    curve: list[tuple[float, float]] = []
    for budget in budgets:
        chances = np.diff(shares**budget)
        mean = float(chances @ ranked)
        curve.append((mean, math.sqrt(float(chances @ (ranked - mean) ** 2))))
    return curve
