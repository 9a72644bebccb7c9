"""Candidates for a generation: a pure function of the study, the generation and the scores it may use. Nothing else imports Optuna."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

from sweep.planning.work import Proposal
from sweep.study.contents import Choice, Range, Values
from sweep.study.space import grid
from sweep.study.study import Study
from trainer.randomness import derive

DIGITS = 6
"""Significant digits of a proposed number: enough for any setting, and out of reach of the last bit's differences between machines."""


STARTUP = 4
"""Scores below which tpe draws at random. Optuna's own 10 are most of a small budget."""


def propose(study: Study, due: Proposal) -> list[Values]:
    """The candidates of a generation. Optuna is built anew from the scores each time, so that nothing else can matter."""
    searched = dict(
        sorted(study.arms[due.arm].searched.items())
    )  # the order in which a study is written must not matter
    if study.search.proposer == "grid":
        points = itertools.product(
            *(grid(it, study.arms[due.arm].takes_whole_numbers(setting)) for setting, it in searched.items())
        )
        start = sum(study.arms[due.arm].generations[: due.generation])
        return [
            dict(zip(searched, point, strict=True))
            for point in itertools.islice(points, start, start + due.size)
        ]
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = derive(study.contents.seed, f"proposals-{due.arm}", due.generation) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        samplers = optuna.samplers
        sampler = (
            samplers.RandomSampler(seed)
            if study.search.proposer == "random"
            else samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        )
        memory = optuna.create_study(sampler=sampler, direction="maximize")
        space = {
            setting: _distribution(it, study.arms[due.arm].takes_whole_numbers(setting))
            for setting, it in searched.items()
        }
        for values, score, _ in due.history:
            memory.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=score))
        asked = [memory.ask(space).params for _ in range(due.size)]
    return [
        {setting: _rounded(params[setting], searched[setting]) for setting in searched} for params in asked
    ]


def _distribution(searched: Range | Choice, whole: bool) -> Any:
    from optuna import distributions

    if isinstance(searched, Choice):
        return distributions.CategoricalDistribution(searched.choice)
    high = (
        grid(searched, whole)[-1] if searched.step else searched.high
    )  # Optuna warns of a step that does not meet the end
    if whole:
        return distributions.IntDistribution(
            int(searched.low), int(high), log=searched.log, step=int(searched.step or 1)
        )
    return distributions.FloatDistribution(searched.low, high, log=searched.log, step=searched.step)


def _rounded(value: Any, searched: Range | Choice) -> Any:
    if isinstance(searched, Choice) or not isinstance(value, float):
        return value
    if searched.step:
        return round(value, 12)
    return min(max(float(f"{value:.{DIGITS}g}"), searched.low), searched.high)


def importances(study: Study, arm: str, told: Sequence[tuple[Values, float]]) -> dict[str, float]:
    """How much of what sets an arm's better candidates apart lies in each searched setting; shares that add up to 1.

    Empty where there is too little to tell: fewer than STARTUP candidates, or all of one score.
    """
    searched = dict(sorted(study.arms[arm].searched.items()))
    if len(told) < STARTUP or len({score for _, score in told}) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {
        setting: _distribution(it, study.arms[arm].takes_whole_numbers(setting))
        for setting, it in searched.items()
    }
    memory = optuna.create_study(direction="maximize")
    for values, score in told:  # a matched arm's values also have its network
        params = {setting: values[setting] for setting in searched}
        memory.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            memory, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {setting: float(found[setting]) for setting in searched}
