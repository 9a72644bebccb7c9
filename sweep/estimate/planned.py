"""The plan of a study: what it would do and cost, what it could detect, and warnings. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep.estimate import measured
from sweep.estimate.detection import Pilot, Strictest, pilot_of
from sweep.estimate.measured import Results
from sweep.estimate.pace import pace_of
from sweep.estimate.warnings import warnings
from sweep.format import rounded_hours
from sweep.ledger.fresh import with_fresh_seeds
from sweep.ledger.gpu_time import used_before
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import GREW, grew_after_look
from sweep.ledger.shared import Shared
from sweep.planning.forecast import Played, forecast
from sweep.planning.plan import Plan
from sweep.planning.values import Run
from sweep.statistics import smallest_p_value
from sweep.study import Phase, Study
from trainer.spec import RunSpec

PHASES: tuple[Phase, ...] = ("search", "confirm")
HOPELESS, EVEN = 0.1, 0.5
"""Chances to find a gain of one standard deviation. A plan below the first gets a warning, which names the
number of seeds that reach the second."""
WORTH_SAYING = 0.95
"""Another packing of the runs is shown where it takes less than this share of the planned GPU-hours."""
FIXED_SECONDS, RUN_SECONDS = 9.0, 0.3
"""The time beside the training. A sweep takes the first for its start and its end on one machine. A run
takes the second to be set up, evaluated, committed, and followed by the next. `benchmarks.sweep` measures
the first; decision 15 says how rough the second is."""


@dataclass(frozen=True)
class Planned:
    """The figures of a plan. Counts are of the whole study; `runs_left` is what `run` would still do."""

    study: str
    runs: dict[str, dict[str, int]]
    """The number of runs, by arm and phase."""
    epochs: int
    runs_done: int
    runs_shared: dict[str, int]
    """The number of runs that `run` takes over from each other study of the store."""
    runs_left: int
    slots: int
    utilisation: float
    """The share of the slots' time in which they train."""
    seconds_per_epoch: float | None
    seconds_from: str
    """How the pace is known, or what to do where it is not, for people."""
    seconds_left: float | None
    """The wall time on these slots, with the start and the end of the sweep."""
    gpu_hours_left: float | None
    """None where a run takes no GPU, or where the pace is unknown."""
    assumed: str
    """The assumptions about time beyond the measurement, for people."""
    faster: list[str]
    """The packings of runs that were measured to take fewer GPU-hours than the study's own, for people."""
    predicted: list[str]
    """The packings of runs that are predicted to take fewer GPU-hours, and not measured yet, for people."""
    searches: int
    """The number of searches of each arm."""
    pairs: int
    """The number of pairs of the tested comparison with the fewest, at the last look."""
    looks: int
    """The number of looks that are paid for; 0: any number of them."""
    comparisons: int
    smallest_p: float
    detectable_sd: float
    """The gain that one comparison finds with 80 % power at the strictest step of Holm, in standard
    deviations of the pair differences. With `resample` it is for the task with the most overlap."""
    power_at_one_sd: float
    """The chance that this comparison finds a gain of one such standard deviation."""
    equivalence_sd: float
    """The margin, in such standard deviations, within which a comparison without a true gain is found to be
    with a chance of 75 %."""
    pilot: list[Pilot] | None
    """What the confirmation of another study says about the pairs, by comparison; None without one."""
    warnings: list[str]

    @classmethod
    def of(
        cls,
        study: Study,
        ledger: Ledger,
        slots: int,
        data_dir: Path,
        gpu: str | None = None,
        pilot: Ledger | None = None,
    ) -> Planned:
        """Plan a study on so many slots, going on from its ledger where there is one.

        `pilot` is the ledger of another study, whose confirmation says how much the pairs vary.

        The time is estimated from the ledger's runs. Without any it comes from a results file of `gpu`, or
        of the GPU here, or else from a few seconds of training here.
        """
        grown = ledger.check(study, extend=True)
        ledger.load(keep=False)
        study, about_seeds = with_fresh_seeds(ledger, study, ledger.declared())
        grew = grew_after_look(ledger, study)
        plan = Plan(study, ledger.results, ledger.proposals())
        runs_done = plan.finished.total()
        runs_shared, seen = Shared(ledger, study).look_ahead(plan)
        all_runs = forecast(Plan(study, {}, {}), slots)
        benchmarks = measured.read(measured.RESULTS) if study.resources.gpus else Results([], [])
        by_phase: dict[Phase, int] = dict.fromkeys(PHASES, 0)
        for (phase, _), runs in all_runs.runs.items():
            by_phase[phase] += runs
        # with few slots no GPU is full
        sharing = min(study.resources.sharing, slots)
        pace = pace_of(study, ledger, by_phase, sharing, benchmarks, gpu, data_dir)
        rest = _rest(plan, slots, pace.seconds)
        gpu_hours = _gpu_hours(study, rest, pace.seconds, sharing)
        strictest = Strictest.of(study, grew)
        return cls(
            study=study.name,
            runs={
                name: {phase: sum(all_runs.runs[phase, arm.name] for arm in arms) for phase in PHASES}
                for name, arms in study.methods.items()
            },
            epochs=all_runs.epochs,
            runs_done=runs_done,
            runs_shared=runs_shared,
            runs_left=rest.runs.total(),
            slots=slots,
            utilisation=rest.utilisation,
            seconds_per_epoch=pace.seconds,
            seconds_from=pace.source,
            seconds_left=_seconds_left(rest, pace.seconds),
            gpu_hours_left=gpu_hours,
            assumed="; ".join(pace.assumed),
            faster=list(_faster(gpu_hours, pace.packings, rest.epochs)),
            predicted=list(_faster(gpu_hours, pace.predicted, rest.epochs)),
            searches=study.search.replicates,
            pairs=strictest.pairs,
            looks=0 if strictest.at_any_time else len(study.contents.looks),
            comparisons=study.comparisons,
            smallest_p=smallest_p_value(strictest.pairs) if study.analysis.test == "sign-flip" else 0.0,
            detectable_sd=strictest.detectable_sd,
            power_at_one_sd=strictest.power(1.0),
            equivalence_sd=strictest.equivalence_sd,
            pilot=None if pilot is None else pilot_of(pilot, strictest),
            warnings=[
                *([f"the study grew ({'; '.join(grown)}); `run --extend` accepts that."] if grown else []),
                *([GREW[grew]] if grew else []),
                *about_seeds,
                *(f"{results}: taking them over counts as a look." for results in seen),
                *_hopeless(study, strictest),
                *_over_budget(study, ledger, gpu_hours),
                *warnings(study),
                *benchmarks.damaged,
            ],
        )


def run_seconds(spec: RunSpec, per_epoch: float) -> float:
    """The time for which a run keeps its slot."""
    return spec.task.epochs * per_epoch + RUN_SECONDS


def _rest(plan: Plan, slots: int, per_epoch: float | None) -> Played:
    """The plan played to its end: in seconds where the pace is known, in epochs elsewhere."""

    def time(run: Run) -> float:
        return run_seconds(run.spec, per_epoch) if per_epoch else run.spec.task.epochs

    return forecast(plan, slots, time)


def _seconds_left(rest: Played, per_epoch: float | None) -> float | None:
    if not per_epoch:
        return None
    return rest.makespan + (FIXED_SECONDS if rest.makespan else 0)


def _gpu_hours(study: Study, rest: Played, per_epoch: float | None, sharing: int) -> float | None:
    """The GPU time of the runs that are left; None where they take no GPU or their pace is unknown."""
    if not per_epoch or not study.resources.gpus:
        return None
    # a run with `gpus: 0.75` holds a whole GPU, because no other run fits beside it
    held = max(study.resources.gpus, 1 / sharing)
    return rest.epochs * per_epoch * held / 3600


def _over_budget(study: Study, ledger: Ledger, hours_left: float | None) -> Iterator[str]:
    """The warning that the study takes more GPU-hours than it may."""
    budget = study.resources.gpu_hours
    if budget is None or hours_left is None:
        return
    used = used_before(ledger, study)
    if used + hours_left > budget:
        yield (
            f"the study takes about {rounded_hours(used + hours_left)} GPU-hours, {rounded_hours(used)} of "
            f"them used so far, and resources.gpu_hours is {budget:g}: it will stop before its end."
        )


def _faster(hours: float | None, packings: Mapping[str, float], epochs: int) -> Iterator[str]:
    """A line about each packing that saves hours worth speaking of."""
    for how, seconds in packings.items():
        if hours and (others := epochs * seconds / 3600) < WORTH_SAYING * hours:
            yield f"{how}: about {rounded_hours(others)} GPU-hours"


def _hopeless(study: Study, strictest: Strictest) -> Iterator[str]:
    """The warning that the comparisons will find next to nothing, with a number of pairs that would do."""
    if strictest.power(1.0) >= HOPELESS:
        return
    comparisons = "comparison" if study.comparisons == 1 else "comparisons"
    what = "search.replicates" if strictest.searches > 1 else "confirm.seeds"
    enough = strictest.pairs_for(1.0, EVEN)
    advice = f" Write {what}: {enough} for a chance of {EVEN:.0%}." if enough else ""
    yield (
        f"the {comparisons} will find next to nothing: with {strictest.pairs} pairs, a true gain of one "
        "standard deviation of the differences within pairs is found with a chance of "
        f"{strictest.power(1.0):.0%}.{advice}"
    )
