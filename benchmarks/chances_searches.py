"""False claims of a searched arm about itself, and those of tests whose test sets overlap."""

from __future__ import annotations

import math
from itertools import product
from typing import Literal

import numpy as np

from benchmarks.chances_statistics import (
    ALPHA,
    COLLAPSES,
    LOSS,
    Noise,
    Row,
    claimed,
    flip_p_values,
    generator,
    percent,
    t_p_values,
)

Surface = Literal["bowl", "two basins"]
Objective = Literal["first", "rank", "each"]
SURFACES: tuple[Surface, ...] = ("bowl", "two basins")
OBJECTIVES: tuple[Objective, ...] = ("first", "rank", "each")
NOISES: tuple[Noise, ...] = ("normal", "collapse")
REPLICATES, SEEDS, BUDGET = 10, 10, 12
BLOCK = 2_000
"""The most studies that are played at once."""


def values(rng: np.random.Generator, surface: Surface, shape: tuple[int, ...]) -> np.ndarray:
    """The true values of random candidates, of mean 0 and deviation 1."""
    if surface == "bowl":
        return (1 / 3 - rng.uniform(-1, 1, shape) ** 2) / math.sqrt(4 / 45)
    return 2.0 * rng.integers(0, 2, shape) - 1


def run_noise(rng: np.random.Generator, noise: Noise, shape: tuple[int, ...]) -> np.ndarray:
    """The noise of runs at two endpoints, which are the second axis.

    A run's noise at the two endpoints has a correlation of one half. A run that collapses does so at both.
    """
    common, apart = rng.standard_normal((shape[0], 1, *shape[2:])), rng.standard_normal(shape)
    fallen = LOSS * (rng.random(common.shape) < COLLAPSES) if noise == "collapse" else 0.0
    return (common + apart) / math.sqrt(2) - fallen


def finalists(
    rng: np.random.Generator,
    searches: tuple[int, int],
    surface: Surface,
    deviations: tuple[float, float],
    noise: Noise,
    objective: Objective,
    shared: bool,
) -> np.ndarray:
    """The true values of what each search picks: axes of arm, endpoint, study and replicate.

    The arm and the baseline are one arm under two names, so that a search differs by its luck alone.
    """
    true = values(rng, surface, (1 if shared else 2, 2, *searches, BUDGET))
    true = np.broadcast_to(true * np.reshape(deviations, (2, 1, 1, 1)), (2, 2, *searches, BUDGET))
    scores = true + run_noise(rng, noise, true.shape)
    if objective == "rank":
        scores = scores.argsort(-1).argsort(-1).sum(1, keepdims=True)
    elif objective == "first":
        scores = scores[:, :1]
    picks = np.broadcast_to(scores.argmax(-1), true.shape[:-1])
    return np.take_along_axis(true, picks[..., None], -1)[..., 0]


def confirmed(
    rng: np.random.Generator, gains: np.ndarray, seeds: int, noise: Noise, objective: Objective
) -> np.ndarray:
    """The differences of confirmation runs: axes of study, endpoint, and pair.

    `gains` has axes of endpoint, study and replicate. The luck that a seed brings to both runs cancels and
    is left out. Where each endpoint has its own finalist, its runs are others, with noise of their own.
    """
    shape = (2, 2, *gains.shape[1:], seeds)
    noises = run_noise(rng, noise, shape)
    if objective == "each":
        noises[:, 1] = run_noise(rng, noise, shape)[:, 1]
    return np.moveaxis(gains[..., None] + noises[0] - noises[1], 0, 1)


def against_itself(studies: int) -> list[Row]:
    """Search one arm twice under two names: how often does it seem to differ from itself?"""
    rows: list[Row] = []
    settings = list(product((0.0, 1.0, 3.0), (0.0, 1.0, 3.0)))
    every = product(SURFACES, NOISES, OBJECTIVES, (True, False), settings)
    for surface, noise, objective, shared, deviations in every:
        rng = generator("self", surface, noise, objective, shared, deviations)
        method, setting = np.zeros(studies, bool), np.zeros(studies, bool)
        for start in range(0, studies, BLOCK):
            part = slice(start, min(start + BLOCK, studies))
            searches = (part.stop - start, REPLICATES)
            picks = finalists(rng, searches, surface, deviations, noise, objective, shared)
            gains = picks[0] - picks[1]
            means = confirmed(rng, gains, 1, noise, objective).mean(-1)
            method[part] = claimed(flip_p_values(means)).any(-1)
            pairs = confirmed(rng, gains[..., :1], SEEDS, noise, objective)[:, :, 0]
            setting[part] = claimed(flip_p_values(pairs)).any(-1)
        case = {"surface": surface, "noise": noise, "objective": objective}
        names = {"proposals": "shared" if shared else "own", "settings": "{:g}, {:g}".format(*deviations)}
        figures = {"ten searches": percent(method), "one search": percent(setting)}
        rows.append(Row({**case, **names}, figures, {"ten searches": (0.0, 5.5)}))
    skewed = generator("skewed").exponential(size=(studies, 2, REPLICATES)) - 1
    found = percent(claimed(flip_p_values(skewed)).any(-1))
    case = {"surface": "none", "noise": "exponential differences of mean 0"}
    rows.append(Row({**case, "objective": "", "proposals": "", "settings": ""}, {"ten searches": found}))
    return rows


ROWS, TEST_ROWS = 600, 200
RIGHT = TEST_ROWS / (ROWS - TEST_ROWS)


def resampled_differences(
    rng: np.random.Generator, studies: int, seeds: int, train_size: int, training: float, noise: float
) -> np.ndarray:
    """Differences of two arms without a gain, where each seed draws its test set from the same rows.

    A row has its difficulty, by which each arm classifies it rightly or wrongly, with every seed alike.
    `training` is the deviation of what the choice of training rows adds, and `noise` that of what the seed
    adds, in deviations of what the choice of test rows adds.
    """
    difficulty = rng.uniform(-2, 2, (studies, 1, ROWS))
    right = rng.standard_normal((studies, 2, ROWS)) > difficulty
    by_row = right[:, 0].astype(float) - right[:, 1]
    places = rng.random((studies, seeds, ROWS))
    bounds = np.partition(places, (TEST_ROWS - 1, ROWS - train_size), -1)
    result = np.einsum("skr,sr->sk", places <= bounds[..., TEST_ROWS - 1, None], by_row) / TEST_ROWS
    unit = float(by_row.std()) / math.sqrt(TEST_ROWS)
    if training:
        worth = rng.standard_normal((studies, ROWS))
        trained = np.einsum("skr,sr->sk", places >= bounds[..., ROWS - train_size, None], worth)
        result += training * unit * trained / math.sqrt(train_size)
    return result + noise * unit * rng.standard_normal(result.shape)


def resampled(studies: int) -> list[Row]:
    """How often does the corrected t test find a gain where there is none?

    Only where nothing but the test rows matters does the correction hold exactly, and only there is a gate.
    """
    cases: list[tuple[int, int, float, float]] = [
        (seeds, size, 0.0, 0.0) for seeds, size in ((5, 400), (10, 400), (20, 400), (10, 200), (10, 100))
    ]
    cases += [(10, size, training, 0.0) for size, training in product((400, 100), (0.5, 1.0, 2.0))]
    cases += [(10, 400, 0.0, noise) for noise in (1.0, 2.0)]
    rows: list[Row] = []
    for seeds, size, training, noise in cases:
        rng = generator("resampled", seeds, size, training, noise)
        step = max(1, BLOCK // 4)
        sizes = [min(step, studies - start) for start in range(0, studies, step)]
        found = np.concatenate(
            [resampled_differences(rng, some, seeds, size, training, noise) for some in sizes]
        )
        overlaps = {"overlap .5": RIGHT, "test over training": TEST_ROWS / size, "no correction": 0.0}
        figures = {name: percent(t_p_values(found, it) <= ALPHA) for name, it in overlaps.items()}
        gates = {} if training or noise else {"overlap .5": (4.0, 6.0)}
        case = {"pairs": seeds, "training rows": size, "their effect": training, "seed's noise": noise}
        rows.append(Row(case, figures, gates))
    return rows
