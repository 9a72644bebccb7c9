"""How often is a gain found where there is none? `python -m benchmarks.type_one --null self`; two minutes.

Whole studies are played under the null by the real plan and the real proposer, and the comparisons are made
as `sweep report` makes them. With `--null self` one arm stands under two names, and its settings matter.
With `--null flat` settings do nothing; beside the procedure stands what the same studies would show
without the confirmation. The figures are the same every time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats as typed_stats

from benchmarks.machine import RESULTS, describe
from benchmarks.type_one_self import HARD, SEARCHES, rate
from sweep.gains.comparisons import comparisons
from sweep.planning.forecast import play
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Result
from sweep.study import Candidate, Study
from sweep.study.contents import Contents
from trainer.randomness import uniform
from trainer.spec import RunSpec

stats: Any = typed_stats  # its stubs do not know its results' fields
STUDIES, SLOTS = 2_000, 32
BESIDE = 4
"""Of the studies with one search, which stand beside, a quarter is played."""
DEVIATION = 0.01
"""The standard deviation of a seed's luck over all runs, and also of its luck in each run by itself."""
ENDPOINTS = (1.0, 0.05)
EXPECTED_STUDIES = 40_000
RATE = {"low": 0.01, "high": 1.0, "log": True}


def study_of(seed: int) -> Study:
    """A tuned baseline, two searched methods and one with given settings; all else is the default."""
    method = {"drop": {"low": 0.0, "high": 0.05}}
    whole = {
        "seed": seed,
        "task": {"data": "digits", "model": "wrn-10-1", "epochs": 40},
        "arms": {
            "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}},
            "additive": {"policy": {"name": "additive-reset", **method}, "task": {"learning_rate": RATE}},
            "multiplicative": {
                "policy": {"name": "multiplicative-reset", **method},
                "task": {"learning_rate": RATE},
            },
            "fixed": {"policy": {"name": "fixed", "ratio": 0.3}},
        },
        "search": {"proposer": "random", "budget": 16, "generation": 8, "lag": 0, "ladder": [1, 2, 4, 8]},
        "confirm": {"seeds": 10},
        "analysis": {"baseline": "tuned", "endpoints": list(ENDPOINTS)},
    }
    return Study("null", Contents.read(whole))


def result(spec: RunSpec) -> Result:
    """Score a run by its seed's luck and its own, in steps of one image.

    Neither depends on the phase: a seed used twice is as lucky twice.
    """
    policy = spec.policy.settings
    own = f"{spec.policy.name} {policy.get('drop')} {spec.task.learning_rate}"
    scores: dict[str, float] = {}
    for ratio in ENDPOINTS:
        luck = sum(
            NormalDist().inv_cdf(0.5 + 0.999999 * (uniform(spec.seed, name, round(100 * ratio)) - 0.5))
            for name in ("seed", own)
        )
        scores[f"{ratio:g}"] = round(10_000 * (0.9 + DEVIATION * luck)) / 10_000
    return Result("completed", spec.task.epochs, 40.0, 10, scores, scores)


WORDS = {
    "family": "the procedure: any comparison of the confirmation, corrected",
    "each": "one comparison of the confirmation by itself",
    "best_arm": "the comparison with the largest gain, uncorrected",
    "any_arm": "any comparison, uncorrected",
    "searched": "no confirmation: the best candidate by the search's own scores, t test",
}
GAINS = {
    "searched_gain": "gain of the best candidate by the search's own scores",
    "confirmed_gain": "its gain over the fixed arm, confirmed",
}


@dataclass(frozen=True)
class Found:
    """The gains that one study under the null seems to show."""

    family: bool
    """The procedure: some corrected p-value of the confirmation is at most alpha."""
    each: float
    """The share of the confirmation's comparisons whose own p-value is at most alpha."""
    best_arm: bool
    """The confirmation's comparison with the largest gain, uncorrected, is at most alpha."""
    any_arm: bool
    """Some uncorrected p-value of the confirmation is at most alpha."""
    searched: bool
    """The methods' best candidate beats the baseline with its given settings.

    The t test is over the search's own seeds and scores.
    """
    searched_gain: float
    confirmed_gain: float
    """That candidate's gain over an arm without a search, on the confirmation's seeds.

    Both gains are in deviations of a difference.
    """


def found(seed: int) -> Found:
    """Play one study, from its file to its p-values."""
    study = study_of(seed)
    plan = Plan(study, {}, {})
    play(plan, SLOTS, lambda run: result(run.spec), lambda _: 1.0, propose)
    alpha, rows = study.analysis.alpha, comparisons(plan)
    assert len(rows) == study.comparisons == 6
    assert all(row.p_holm is not None for row in rows)
    best = max(rows, key=lambda row: row.gain or 0.0)
    own, gain, arm = without_confirmation(plan)
    accuracy = {row.arm: row.accuracy or 0.0 for row in rows if row.keep_ratio == ENDPOINTS[0]}
    return Found(
        family=any(at_most(row.p_holm, alpha) for row in rows),
        each=fmean(at_most(row.p_value, alpha) for row in rows),
        best_arm=at_most(best.p_value, alpha),
        any_arm=any(at_most(row.p_value, alpha) for row in rows),
        searched=own <= alpha,
        searched_gain=gain / (DEVIATION * math.sqrt(2)),
        confirmed_gain=(accuracy[arm] - accuracy["fixed"]) / (DEVIATION * math.sqrt(2)),
    )


def at_most(p: float | None, alpha: float) -> bool:
    """Say whether there is a p-value that rejects."""
    return p is not None and p <= alpha


def without_confirmation(plan: Plan) -> tuple[float, float, str]:
    """Return the best candidate's p-value and gain by the search's own scores, and its arm."""
    study, seeds = plan.study, plan.study.arms["tuned"].search_seeds
    whole = [
        (c, scores)
        for arm in ("additive", "multiplicative")
        for c, scores in plan.searched(arm)
        if len(scores) == len(seeds)
    ]
    best, scores = max(whole, key=lambda pair: fmean(pair[1]))
    given = Candidate("tuned", "tuned", {"task.learning_rate": 0.1})
    baseline = [result(study.run(given, "search", seed)).score("validation", ENDPOINTS[0]) for seed in seeds]
    return float(stats.ttest_rel(scores, baseline).pvalue), fmean(scores) - fmean(baseline), best.arm


@lru_cache
def expected(pairs: int, arms: int, alpha: float) -> float:
    """Simulate the family-wise error of exact sign-flip tests of independent noise, without our code."""
    draw = np.random.default_rng(1)
    signs = 1 - 2 * ((np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs)) & 1)
    rejected = 0
    for _ in range(EXPECTED_STUDIES // 100):
        noise = draw.standard_normal((100, arms + 1, len(ENDPOINTS), pairs))
        differences = noise[:, 1:] - noise[:, :1]  # what the seed does to every run is not in a difference
        sums = np.abs(differences @ signs.T)
        p_values = (sums >= np.abs(differences.sum(-1))[..., None] * (1 - 1e-9)).mean(-1)
        rejected += int((p_values.min((1, 2)) <= alpha / (arms * len(ENDPOINTS))).sum())
    return rejected / EXPECTED_STUDIES


def band(rate: float, studies: int) -> tuple[float, float]:
    """The interval that holds 95 % of the shares of so many studies, if each rejects with this rate."""
    binomial = stats.binom(studies, rate)
    return float(binomial.ppf(0.025)) / studies, float(binomial.ppf(0.975)) / studies


def flat(console: Console, studies: int) -> tuple[dict[str, Any], bool]:
    """Play studies in which settings do nothing; return the figures, and whether they are in bounds."""
    start, alpha = time.perf_counter(), 0.05
    each: list[Found] = []
    for seed in range(1, studies + 1):
        each.append(found(seed))
        if seed % 200 == 0:
            console.print(f"{seed} studies, {time.perf_counter() - start:.0f} s", style="dim")
    rates = {name: fmean(getattr(it, name) for it in each) for name in WORDS}
    gains = {
        name: [fmean(values), stdev(values) / math.sqrt(studies)]
        for name in GAINS
        if (values := [getattr(it, name) for it in each])
    }
    exact = expected(10, 3, alpha)
    bands = {"alpha": band(alpha, studies), "expected": band(exact, studies)}
    sound = bands["expected"][0] <= rates["family"] <= min(high for _, high in bands.values())
    table = Table("under the null, of 100 studies", "reject")
    for name, words in WORDS.items():
        table.add_row(words, f"{100 * rates[name]:.2f}")
    console.print(table)
    for words, share, (low, high) in (
        ("alpha", alpha, bands["alpha"]),
        ("sign flips of independent noise", exact, bands["expected"]),
    ):
        console.print(
            f"{words}: {100 * share:.2f};"
            f" of {studies} studies 95 % of the time {100 * low:.2f} to {100 * high:.2f}"
        )
    for name, words in GAINS.items():
        console.print(f"{words}: {gains[name][0]:+.3f} ± {gains[name][1]:.3f} deviations of a difference")
    return {"rates": rates, "expected": exact, "bands": bands, "gains": gains}, sound


def itself(console: Console, studies: int) -> tuple[dict[str, Any], bool]:
    """Play studies of one arm under two names; return the figures, and whether they are in bounds."""
    table = Table("one arm held against itself, % of studies", f"{SEARCHES} searches", "one search")
    cells: list[dict[str, Any]] = []
    for cell in HARD:
        several, one = rate(cell, SEARCHES, studies), rate(cell, 1, studies // BESIDE)
        table.add_row(cell.words, f"{100 * several:.2f}", f"{100 * one:.2f}")
        cells.append({"cell": cell.words, "several_searches": several, "one_search": one})
    console.print(table)
    # the binomial's own limit: a true rate of 5 % gives less than this in 99.9 % of so many studies
    most = float(stats.binom(studies, 0.05).ppf(0.999)) / studies
    console.print(f"{SEARCHES} searches: at most {100 * most:.2f} % may claim a difference that is none.")
    return {"cells": cells, "most": most}, all(cell["several_searches"] <= most for cell in cells)


NULLS = {"flat": flat, "self": itself}


def main() -> int:
    """Play one of the nulls, print a table, keep a file; return 1 if the error is out of bounds."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.type_one", description=__doc__)
    options.add_argument("--null", choices=NULLS, default="self", help="what is true: by default self")
    options.add_argument("--studies", type=int, default=STUDIES, help="how many studies are played")
    options.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    given = options.parse_args()
    console, start = Console(width=110, stderr=given.json), time.perf_counter()
    figures, sound = NULLS[given.null](console, given.studies)
    machine = describe("numpy", "scipy", "optuna")
    body = {"null": given.null, "studies": given.studies, **figures, "sound": sound}
    body |= {"seconds": time.perf_counter() - start, "machine": machine}
    text, kept = json.dumps(body, indent=1) + "\n", RESULTS / f"type-one-{given.null}.json"
    kept.write_text(text)
    if given.json:
        print(text, end="")
    console.print(f"{body['seconds']:.0f} s; kept in {kept}")
    if not sound:
        console.print("The procedure's error is outside of its bounds.", style="bold red")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
