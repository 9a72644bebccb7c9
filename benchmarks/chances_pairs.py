"""Errors and power over pairs: repeated looks, a budget that grows, verdicts, intervals, planned power."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Literal

import numpy as np

from benchmarks.chances_statistics import (
    ALPHA,
    Noise,
    Row,
    claimed,
    differences,
    e_p_values,
    flip_intervals,
    flip_p_values,
    generator,
    own_noise,
    percent,
    t_p_values,
)
from sweep import statistics

FAMILIES = (1, 4)
EFFECTS = (0.0, 0.8, 1.0)
"""True gains of the first comparison, in deviations of a difference; the others have none."""
FIXED = (10, 14, 20)
LOOKS = ((8, 10, 14), (10, 20), (8, 12, 16, 20))
MOST_PAIRS, LARGER = 40, 30
"""The most pairs of the e-process, and its most pairs after a larger budget."""
PAIRS = range(6, 21)
"""The numbers of pairs whose power is simulated."""


def looks(studies: int) -> list[Row]:
    """Chances of a claim with one look, with declared looks, and with a look after every pair."""
    rows: list[Row] = []
    for family in FAMILIES:
        found: dict[str, list[float]] = {}
        for effect in EFFECTS:
            gains = differences(generator("looks", family, effect), studies, family, MOST_PAIRS)
            gains[:, 0] += effect
            sizes = sorted({*FIXED, *(size for several in LOOKS for size in several)})
            p_values = {size: flip_p_values(gains[..., :size]) for size in sizes}
            always = claimed(e_p_values(gains))
            events = {f"one look at {size}": claimed(p_values[size]) for size in FIXED}
            for several in LOOKS:
                least = np.minimum.reduce([p_values[size] for size in several])
                events[f"declared looks {several}"] = claimed(np.minimum(1, len(several) * least))
            events[f"e-process to {MOST_PAIRS}"] = always
            events[f"one look at 10, then e-process to {MOST_PAIRS}"] = claimed(p_values[10]) | always
            for name, claims in events.items():
                found.setdefault(name, []).append(chance(claims, effect))
        for name, figures in found.items():
            bound = 7.5 if "then" in name else 5.0 if name.startswith("e-") else 5.5
            rows.append(by_effect({"design": name, "comparisons": family}, figures, bound))
    return rows + budgets(studies)


def chance(claims: np.ndarray, effect: float) -> float:
    """The chance that the first comparison's gain is found or, where there is none, of any claim."""
    return percent(claims[:, 0] if effect else claims.any(1))


def by_effect(case: Mapping[str, str | int | float], figures: list[float], bound: float = math.inf) -> Row:
    """A row of the chance of a false claim, which has a bound, and of the chances to find gains."""
    names = ["false claim", *(f"finds {effect:g} sd" for effect in EFFECTS[1:])]
    gates = {names[0]: (0.0, bound)} if bound < math.inf else {}
    return Row(case, dict(zip(names, figures, strict=True)), gates)


def budgets(studies: int) -> list[Row]:
    """Chances of a claim where a larger budget picks other finalists after a look without any claim.

    The old baseline's runs stay. The new finalist's noise on the old seeds is correlated with the old one's.
    """
    rows: list[Row] = []
    for family, correlation in product(FAMILIES, (0.0, 0.7)):
        found: dict[str, list[float]] = {}
        for effect in EFFECTS:
            rng = generator("budgets", family, correlation, effect)
            baseline, new = own_noise(rng, (studies, 1, LARGER), "normal"), (studies, family, LARGER)
            first = own_noise(rng, new, "normal")
            other = correlation * first + math.sqrt(1 - correlation**2) * own_noise(rng, new, "normal")
            old, later = (first - baseline) / math.sqrt(2), (other - baseline) / math.sqrt(2)
            old[:, 0], later[:, 0] = old[:, 0] + effect, later[:, 0] + effect
            look = claimed(flip_p_values(old[..., :10]))
            nothing = ~look.any(1, keepdims=True)
            every, fresh = claimed(e_p_values(later)), claimed(e_p_values(later[..., 10:]))
            again = claimed(flip_p_values(later[..., :10]))
            tenth = claimed(10 * e_p_values(later))
            halves = claimed(2 * flip_p_values(old[..., :10])) | claimed(2 * e_p_values(later))
            events = {
                "the look at 10 pairs alone": look,
                "then e-process with a tenth of alpha, from the first pair": look | nothing & tenth,
                "then e-process with all of alpha": look | nothing & every,
                "then e-process, fresh pairs alone": look | nothing & fresh,
                "then the same test once more": look | nothing & again,
                "e-process alone, of the new finalist": every,
                "look and e-process, each at half alpha": halves,
            }
            for name, claims in events.items():
                found.setdefault(name, []).append(chance(claims, effect))
        for name, figures in found.items():
            case = {"design": f"larger budget (correlation {correlation:g}): {name}", "comparisons": family}
            rows.append(by_effect(case, figures, 5.5 if "from the first" in name else math.inf))
    return rows


MARGINS = (0.5, 1.0, 1.5)
GAINS: dict[str, tuple[float, ...]] = {
    "none": (0.0,),
    "half the margin": (0.5,),
    "the margin": (1.0,),
    "less the margin": (-1.0,),
    "two margins": (2.0,),
    "mixed": (0.0, 0.5, 1.0, 2.0),
}
"""True gains in margins: the same one of every comparison, or one for each of four."""


def verdicts(studies: int) -> list[Row]:
    """Verdicts that are read off the family's interval at each look; any false one at any look counts."""
    noises: tuple[Noise, ...] = ("normal", "collapse")
    rows: list[Row] = []
    for noise, family, sizes in product(noises, FAMILIES, ((10,), (10, 14), (8, 10, 14))):
        plain = differences(generator("verdicts", noise, family, sizes), studies, family, sizes[-1], noise)
        level = ALPHA / (family * len(sizes))
        around = [flip_intervals(plain[..., :size], [level])[0] for size in sizes]  # moves with the gain
        for margin, (name, gains) in product(MARGINS, GAINS.items()):
            if len(gains) not in (1, family):
                continue
            true = margin * np.broadcast_to(gains, family)
            false = np.zeros((studies, family), bool)
            better = worse = equivalent = false
            for low, high in around:
                better, worse = low + true > 0, high + true < 0
                equivalent = (low + true > -margin) & (high + true < margin)
                false = false | better & (true <= 0) | worse & (true >= 0)
                false |= equivalent & (np.abs(true) >= margin)
            case = {"noise": noise, "comparisons": family, "looks": str(sizes), "gain": name}
            figures = {
                "any false": percent(false.any(1)),
                "better": percent(better),
                "worse": percent(worse),
                "equivalent": percent(equivalent & ~better & ~worse),
            }
            rows.append(Row({**case, "margin": margin}, figures, {"any false": (0.0, 5.5)}))
    return rows


def coverage(studies: int) -> list[Row]:
    """How often intervals hold the true gain: all of a family together, and those of declared gains.

    One comparison's exact interval holds in 95.0 %. So its gate leaves room for the simulation's own error.
    """
    rows: list[Row] = []
    least = 100 * (1 - ALPHA - 3 * math.sqrt(ALPHA * (1 - ALPHA) / studies))
    for pairs, family in product((6, 10, 14), (1, 4, 8)):
        if 2.0 ** (1 - pairs) > ALPHA / family:
            continue
        plain = differences(generator("coverage", pairs, family), studies, family, pairs)
        corrected, uncorrected = flip_intervals(plain, [ALPHA / family, ALPHA])
        (held, alone) = ((low <= 0) & (high >= 0) for low, high in (corrected, uncorrected))
        case = {"pairs": pairs, "comparisons": family}
        figures = {"all family's hold": percent(held.all(1)), "all uncorrected hold": percent(alone.all(1))}
        rows.append(Row({**case, "true gain": 0.0}, figures, {"all family's hold": (least, 100.0)}))
        for effect in (0.3, 0.6, 1.0):
            declared = claimed(flip_p_values(plain + effect))
            estimates = np.abs(plain.mean(-1) + effect)[declared]
            figures = {
                "declared": percent(declared),
                "family's holds if declared": percent(held[declared]),
                "uncorrected holds if declared": percent(alone[declared]),
                "exaggeration": float(estimates.mean()) / effect if estimates.size else math.nan,
            }
            rows.append(Row({**case, "true gain": effect}, figures))
    return rows


P_VALUES = {"sign-flip": flip_p_values, "paired-t": t_p_values, "any": e_p_values}
"""The p-values of each test; `any` is the one for looks at any time."""


def power(studies: int) -> list[Row]:
    """The simulated chance to find a gain beside the one that the plan prints, and at the gain it prints."""
    tests: tuple[Literal["sign-flip", "paired-t", "any"], ...] = ("sign-flip", "paired-t", "any")
    rows: list[Row] = []
    for test, pairs in product(tests, PAIRS):
        plain = differences(generator("power", test, pairs), studies, 1, pairs)[:, 0]
        p_values = {effect: P_VALUES[test](plain + effect) for effect in (0.5, 1.0, 1.5)}
        for family in (1, 2, 4, 8, 18):
            level, case = ALPHA / family, {"test": test, "pairs": pairs, "comparisons": family}
            for effect, found in p_values.items():
                said = 100 * statistics.power(pairs, effect, level, test)
                figures = {"simulated": percent(found <= level), "forecast": said}
                figures["forecast too high by"] = said - figures["simulated"]
                gate = {"forecast too high by": (-3.0, 3.0)}
                rows.append(Row({**case, "gain": effect}, figures, gate))
            gain = statistics.minimum_detectable_gain(pairs, 1.0, alpha=level, power=0.8, test=test)
            if math.isfinite(gain):
                found = percent(P_VALUES[test](plain + gain) <= level)
                figures = {"simulated": found, "forecast": 80.0, "forecast too high by": 80.0 - found}
                gate = {"forecast too high by": (-3.0, 3.0)}
                rows.append(Row({**case, "gain": f"found with 80 %: {gain:.2f}"}, figures, gate))
    return rows
