"""How good is the candidate that a search picks? `python -m benchmarks.simulation` takes two minutes.

The real plan and the real proposer search made-up response surfaces whose best candidate is known.
Regret is the best value less the picked candidate's true value, in standard deviations of the surface.
It is shown against the budget in runs. The figures are the same every time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sweep.planning.forecast import play
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Result, Run
from sweep.study import Candidate, Study, Values
from sweep.study.contents import Contents
from trainer.randomness import uniform

RESULTS = Path(__file__).parent / "results"
REPETITIONS = 40
NOISES = (0.25, 0.5, 1.0, 2.0)
"""The standard deviations from seed to seed, in standard deviations of the surface."""
BUDGETS = (40, 80, 160)
GENERATION, SLOTS, SCALE = 16, 32, 0.02
SPACE = {
    "policy.step": (0.01, 0.2, False),
    "task.learning_rate": (0.01, 1.0, True),
    "task.weight_decay": (1e-5, 1e-2, True),
}
"""Each setting's low, high, and whether it is logarithmic."""
FEATURES, REACH, POINTS = 256, 0.35, 20_000


@dataclass(frozen=True)
class Strategy:
    """A way to spend runs."""

    proposer: str
    ladder: tuple[int, ...]
    lag: int = 2

    def generations(self, budget: int) -> float:
        """The number of generations that a budget pays for."""
        runs, alive, before = 0, GENERATION, 0
        for seeds in self.ladder:
            runs, alive, before = runs + alive * (seeds - before), -(-alive // 2), seeds
        return budget / runs

    def candidates(self, budget: int) -> int:
        """The number of candidates that a budget pays for; with several rungs, in whole generations."""
        paid = self.generations(budget)
        return GENERATION * int(paid) if len(self.ladder) > 1 else int(paid * GENERATION)


STRATEGIES = {
    "tpe, ladder 1-2-4-8 (default)": Strategy("tpe", (1, 2, 4, 8)),
    "tpe, one seed each": Strategy("tpe", (1,)),
    "tpe, three seeds each (Repeater)": Strategy("tpe", (3,)),
    "random, ladder 1-2-4-8": Strategy("random", (1, 2, 4, 8)),
    "tpe, ladder 1-2-4-8, lag 0": Strategy("tpe", (1, 2, 4, 8), lag=0),
}
DEFAULT = next(iter(STRATEGIES))


@lru_cache
def surface(seed: int) -> tuple[Callable[[Values], float], float]:
    """Return a smooth random function of a candidate, and its maximum.

    Over the space it has mean 0 and standard deviation 1.
    """
    draw = np.random.default_rng(seed)
    waves, phases = draw.normal(0, 1 / REACH, (FEATURES, len(SPACE))), draw.uniform(0, 2 * math.pi, FEATURES)
    weights = draw.normal(0, 1, FEATURES)

    def height(points: np.ndarray) -> np.ndarray:
        return np.cos(points @ waves.T + phases) @ weights

    over = height(draw.uniform(0, 1, (POINTS, len(SPACE))))
    mean, sd = float(over.mean()), float(over.std())

    def share(value: float, low: float, high: float, log: bool) -> float:
        return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)

    def true(values: Values) -> float:
        place = np.array([[share(values[key], *ends) for key, ends in SPACE.items()]])
        return (float(height(place)[0]) - mean) / sd

    return true, (float(over.max()) - mean) / sd


def study_of(strategy: Strategy, seed: int) -> Study:
    """One searched arm with the largest budget."""
    arm: dict[str, Any] = {"policy": {"name": "additive-reset"}, "task": {}}
    for setting, (low, high, log) in SPACE.items():
        part, key = setting.split(".")
        arm[part][key] = {"low": low, "high": high, "log": log}
    search = {
        "proposer": strategy.proposer,
        "ladder": list(strategy.ladder),
        "generation": GENERATION,
        "lag": strategy.lag,
    }
    whole = {
        "seed": seed,
        "task": {"data": "digits", "model": "wrn-10-1", "epochs": 40},
        "arms": {"dense": {"policy": {"name": "dense"}}, "searched": arm},
        "search": {**search, "budget": strategy.candidates(BUDGETS[-1])},
        "confirm": {"seeds": 1},
        "analysis": {"baseline": "dense"},
    }
    return Study("simulation", Contents.read(whole))


def regrets(name: str, noise: float, seed: int) -> list[float]:
    """Return the regret of one search for each budget.

    A smaller budget's pick is read from the first candidates of the largest one.
    """
    strategy = STRATEGIES[name]
    (true, best), study = surface(seed), study_of(strategy, seed)

    def result(run: Run) -> Result:
        score = 0.5
        if run.arm == "searched":
            task, policy = run.spec.task, run.spec.policy.settings
            values = {
                key: policy[key[7:]] if key.startswith("policy.") else getattr(task, key[5:])
                for key in SPACE
            }
            score += SCALE * (true(values) + noise * NormalDist().inv_cdf(uniform(seed, run.run_id)))
        return Result("completed", 40, 40.0, 10, {"1": score}, {"1": score})

    plan = Plan(study, {}, {})
    play(plan, SLOTS, result, lambda _: 1.0, propose)
    searched = plan.searched("searched")
    picks = [picked(searched[: strategy.candidates(budget)], strategy.ladder[-1]) for budget in BUDGETS]
    assert picks[-1] == plan.finalists("searched")[0]
    return [best - true(pick.values) for pick in picks]


def picked(candidates: list[tuple[Candidate, list[float]]], seeds: int) -> Candidate:
    """Pick the best candidate that climbed the whole ladder, the earlier of equals."""
    return max(
        ((c, scores) for c, scores in candidates if len(scores) == seeds), key=lambda pair: fmean(pair[1])
    )[0]


def main() -> None:
    """Search the same surfaces with every strategy; print a table, keep a file and a picture."""
    jobs = list(product(STRATEGIES, NOISES, range(1, REPETITIONS + 1)))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(jobs, pool.map(regrets, *zip(*jobs, strict=True), chunksize=8), strict=True))
    table = Table(
        "noise", "strategy", *(f"{budget} runs" for budget in BUDGETS), f"less default at {BUDGETS[-1]}"
    )
    kept: list[dict[str, Any]] = []
    for noise, name in product(NOISES, STRATEGIES):
        each = [found[name, noise, seed] for seed in range(1, REPETITIONS + 1)]
        by_budget = list(zip(*each, strict=True))
        pairs = [own[-1] - found[DEFAULT, noise, seed][-1] for seed, own in enumerate(each, 1)]
        means, errors = (
            [fmean(values) for values in by_budget],
            [stdev(values) / math.sqrt(REPETITIONS) for values in by_budget],
        )
        less, less_error = fmean(pairs), stdev(pairs) / math.sqrt(REPETITIONS)
        cells = [f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True)]
        table.add_row(
            f"{noise:g}",
            name,
            *cells,
            "" if name == DEFAULT else f"{less:+.2f} ± {less_error:.2f}",
            end_section=name == list(STRATEGIES)[-1],
        )
        kept.append(
            {
                "noise": noise,
                "strategy": name,
                "regret": means,
                "standard_error": errors,
                "less_default": [less, less_error],
            }
        )
    console = Console(width=120)
    console.print(table)
    about = {
        "repetitions": REPETITIONS,
        "budgets": BUDGETS,
        "candidates": {name: [s.candidates(b) for b in BUDGETS] for name, s in STRATEGIES.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "simulation.json").write_text(
        json.dumps({**about, "optuna": version("optuna"), "results": kept}, indent=1) + "\n"
    )
    draw(kept, RESULTS / "simulation.png")
    console.print(f"kept in {RESULTS / 'simulation.json'} and simulation.png")


def draw(kept: list[dict[str, Any]], path: Path) -> None:
    """Draw regret against budget, a panel for each noise."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(NOISES), figsize=(14, 4), sharey=True, layout="constrained")
    for panel, noise in zip(panels, NOISES, strict=True):
        for i, row in enumerate(row for row in kept if row["noise"] == noise):
            style = "--" if "lag 0" in row["strategy"] else "-"
            panel.errorbar(
                BUDGETS,
                row["regret"],
                row["standard_error"],
                label=row["strategy"],
                capsize=2,
                linestyle=style,
                color=f"C{i}",
            )
        panel.set(
            title=f"seed sd = {noise:g} x surface sd",
            xscale="log",
            xlabel="runs",
            xticks=BUDGETS,
            xticklabels=BUDGETS,
        )
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="regret of the pick, in surface sd (± standard error)", ylim=(0, None))
    panels[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
