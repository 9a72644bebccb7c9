"""The candidates of a generation, proposed by Optuna or from a grid. No other module imports Optuna.

They depend on the study, the generation and the scores that it may use, and on nothing else.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from typing import Any

from sweep.planning.values import Proposal
from sweep.study import ResolvedArm, Study, Values
from sweep.study.contents import Choice, Range
from sweep.study.space import grid
from trainer.randomness import derive, uniform

DIGITS = 6
"""The significant digits of a proposed number.

They are enough for any setting, and they hide the differences in the last bits between machines.
"""
STARTUP = 4
"""The number of scores below which tpe draws at random. Optuna's 10 would use up a small budget."""


def propose(study: Study, due: Proposal) -> list[Values]:
    """The candidates of a generation.

    In a study with several searches, those that are drawn at random are drawn for all arms alike: two arms
    that search a setting over one range try the same values, and differ in what they make of them.
    """
    arm = study.arms[due.arm]
    if by_optuna(study, due):
        return _from_optuna(study, due)
    if study.search.proposer == "grid":
        return _from_grid(arm, due)
    return [_drawn(study, arm, due.generation, index) for index in range(due.size)]


def by_optuna(study: Study, due: Proposal) -> bool:
    """Whether Optuna proposes a generation. Other candidates follow from the study alone."""
    proposer = study.search.proposer
    learns = proposer == "tpe" and len(due.history) >= STARTUP
    return proposer != "grid" and (learns or study.search.replicates == 1)


@cache
def versions() -> dict[str, str]:
    """The packages that decide what Optuna proposes."""
    return {name: metadata.version(name) for name in ("optuna", "numpy")}


def importances(study: Study, arm: str, scored: Sequence[tuple[Values, float]]) -> dict[str, float]:
    """How much each searched setting decides which candidates of an arm are better; shares that add up to 1.

    Empty with fewer than STARTUP candidates, or where all have the same score: both say too little.
    """
    if len(scored) < STARTUP or len({score for _, score in scored}) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _space(study.arms[arm])
    memory = optuna.create_study(direction="maximize")
    for values, score in scored:
        # The values of a matched arm also hold its network, which is not searched.
        params = {setting: values[setting] for setting in space}
        memory.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=score))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(memory, evaluator=evaluator())
    return {setting: float(shares[setting]) for setting in space}


def _searched(arm: ResolvedArm) -> dict[str, Range | Choice]:
    """The searched settings by name: the order in which a study lists them must not matter."""
    return dict(sorted(arm.searched.items()))


def _from_grid(arm: ResolvedArm, due: Proposal) -> list[Values]:
    """The next points of the grid, in a fixed order."""
    searched = _searched(arm)
    values = [grid(options, arm.takes_whole_numbers(setting)) for setting, options in searched.items()]
    start = sum(arm.generations[: due.generation])
    points = itertools.islice(itertools.product(*values), start, start + due.size)
    return [dict(zip(searched, point, strict=True)) for point in points]


def _drawn(study: Study, arm: ResolvedArm, generation: int, index: int) -> Values:
    """A random candidate. A repeat draws others than the arm that it repeats."""
    stream = f"candidates-{arm.replicate}" + (f"-{arm.base}" if arm.is_repeat else "")
    return {
        setting: _at(
            uniform(study.contents.seed, f"{stream}-{setting}", generation, index),
            options,
            arm.takes_whole_numbers(setting),
        )
        for setting, options in _searched(arm).items()
    }


def _at(share: float, options: Range | Choice, whole: bool) -> Any:
    """The value that stands at a share of the way through a setting's values; below 1."""
    if values := grid(options, whole) if isinstance(options, Choice) or options.step else []:
        return values[int(share * len(values))]
    assert isinstance(options, Range)
    low, high = options.low, options.high
    if whole:
        # each whole number has the numbers around it, up to the middle between it and the next
        low, high = low - 0.5, high + 0.5
    value = low * (high / low) ** share if options.log else low + share * (high - low)
    return min(max(round(value), int(options.low)), int(options.high)) if whole else _rounded(value, options)


def _from_optuna(study: Study, due: Proposal) -> list[Values]:
    """Candidates by Optuna. It is built anew from the scores each time, so that nothing else can matter."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arm = study.arms[due.arm]
    seed = derive(study.contents.seed, f"proposals-{due.arm}", due.generation) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.search.proposer == "random":
            sampler = optuna.samplers.RandomSampler(seed)
        else:
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        memory = optuna.create_study(sampler=sampler, direction="maximize")
        space = _space(arm)
        for values, score, _ in due.history:
            memory.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=score))
        proposed = [memory.ask(space).params for _ in range(due.size)]
    return [
        {setting: _rounded(params[setting], options) for setting, options in _searched(arm).items()}
        for params in proposed
    ]


def _space(arm: ResolvedArm) -> dict[str, Any]:
    """Optuna's distribution of each searched setting."""
    return {
        setting: _distribution(options, arm.takes_whole_numbers(setting))
        for setting, options in _searched(arm).items()
    }


def _distribution(options: Range | Choice, whole: bool) -> Any:
    """Optuna's distribution of a setting."""
    from optuna import distributions

    if isinstance(options, Choice):
        return distributions.CategoricalDistribution(options.choice)
    low, high, log, step = options.low, options.high, options.log, options.step
    if step:
        # Optuna warns where the steps do not end exactly at high.
        high = grid(options, whole)[-1]
    if whole:
        return distributions.IntDistribution(int(low), int(high), log=log, step=int(step or 1))
    return distributions.FloatDistribution(low, high, log=log, step=step)


def _rounded(value: Any, options: Range | Choice) -> Any:
    """A proposed value, the same on every machine."""
    if isinstance(options, Choice) or not isinstance(value, float):
        return value
    if options.step:
        return round(value, 12)
    return min(max(float(f"{value:.{DIGITS}g}"), options.low), options.high)
