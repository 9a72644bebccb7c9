"""What a study would do, before it does it: counts, hours, power and warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.estimate import measured
from sweep.estimate.measured import Pace, Results
from sweep.estimate.pace import pace_of
from sweep.estimate.warnings import warnings
from sweep.format import duration
from sweep.gains.seeds import first_place, refuse_what_cannot_reject, seeds_with
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import looks_at
from sweep.planning.forecast import forecast
from sweep.planning.plan import Plan
from sweep.planning.work import Look
from sweep.statistics import minimum_detectable_gain, power, smallest_p_value
from sweep.study import ResolvedArm, Study
from sweep.study.arms import Phase
from trainer.spec import RunSpec

POWER = 0.8
HOPELESS, EVEN = 0.1, 0.5
"""Chances to find a gain of one standard deviation: under the first it is warned, and told with how many seeds it is the second."""
SD = "the standard deviation of the differences within pairs"
MOST_SEEDS = 200
"""That are tried to find that number."""
PHASES: tuple[Phase, ...] = ("search", "confirm")
WORTH_SAYING = 0.95
"""The share of the planned GPU-hours under which another packing of the runs is told."""
FIXED_SECONDS, RUN_SECONDS = 9.0, 0.3
"""What a sweep takes beside its runs, for its start and its end on one machine, and a run beside its epochs: to be
set up, evaluated, committed, and followed by the next. `benchmarks.sweep` measures the first; decision 15 says how
rough the second is."""


@dataclass(frozen=True)
class Planned:
    """Counts are of the whole study; `runs_left` is what `run` would still do."""

    study: str
    runs: dict[str, dict[str, int]]
    """By arm and phase."""
    epochs: int
    runs_done: int
    runs_left: int
    slots: int
    utilisation: float
    seconds_per_epoch: float | None
    seconds_from: str
    seconds_left: float | None
    """Wall time on these slots, the start and the end of the sweep included."""
    gpu_hours_left: float | None
    """None where a run takes no GPU, or where there is nothing to tell by."""
    assumed: str
    """What the times take for granted beyond the measurement, for people."""
    faster: list[str]
    """Packings of the runs that were measured to take fewer GPU-hours than the study's own, for people."""
    pairs: int
    """That are tested: after a look, those of the seeds that were added since."""
    comparisons: int
    smallest_p: float
    detectable_sd: float
    """The gain that one comparison finds with 80 % power, in standard deviations of the pair differences, at the strictest step of Holm;
    where splits are drawn anew, on the task on which they overlap most."""
    power_at_one_sd: float
    """The chance that this comparison finds a gain of one such standard deviation."""
    warnings: list[str]

    @classmethod
    def of(cls, study: Study, ledger: Ledger, slots: int, data_dir: Path, gpu: str | None = None) -> Planned:
        """Reads the ledger, if there is one. Where it holds no run to measure by, a results file tells (of `gpu`, or of the GPU here), or
        else a few seconds of training here."""
        grown = ledger.check(study, extend=True)
        ledger.load(keep=False)
        looks = looks_at(ledger, study)
        refuse_what_cannot_reject(study, looks)
        whole = forecast(Plan(study, {}, {}), slots)
        plan = Plan(study, ledger.results, ledger.proposals())
        done = plan.finished.total()
        gpus = study.resources.gpus
        held = max(gpus, 1 / study.resources.sharing)  # where `gpus` is 0.75 nobody has the rest of it
        benchmarks = measured.read(measured.RESULTS) if gpus else Results([], [])
        pace = pace_of(study, ledger, benchmarks, gpu, data_dir)
        per_epoch = pace.seconds
        rest = forecast(
            plan, slots, lambda run: run_seconds(run.spec, per_epoch) if per_epoch else run.spec.task.epochs
        )
        hours = rest.epochs * per_epoch * held / 3600 if per_epoch and gpus else None
        runs: dict[str, dict[str, int]] = {
            arm: {"search": whole.runs["search", arm], "confirm": whole.runs["confirm", arm]}
            for arm in study.arms
        }
        pairs = min(study.confirm.seeds - first_place(study, arm, looks.seen) for arm in study.tested)
        comparisons, alpha, test = study.comparisons, study.analysis.alpha, study.analysis.test
        overlap = max(study.arms[arm].overlap for arm in study.tested)
        one_sd = power(pairs, 1.0, alpha / comparisons, test, overlap)
        return cls(
            study=study.name,
            runs={arm: dict(counts) for arm, counts in runs.items()},
            epochs=whole.epochs,
            runs_done=done,
            runs_left=rest.runs.total(),
            slots=slots,
            utilisation=rest.utilisation,
            seconds_per_epoch=per_epoch,
            seconds_from=pace.source,
            seconds_left=rest.makespan + (FIXED_SECONDS if rest.makespan else 0) if per_epoch else None,
            gpu_hours_left=hours,
            assumed=pace.assumed,
            faster=list(_faster(hours, pace, rest.epochs)),
            pairs=pairs,
            comparisons=comparisons,
            smallest_p=smallest_p_value(pairs) if test == "sign-flip" else 0.0,
            detectable_sd=minimum_detectable_gain(
                pairs, math.sqrt(1 + pairs * overlap), alpha=alpha / comparisons, power=POWER
            ),
            power_at_one_sd=one_sd,
            warnings=[
                *_growth(grown, study.confirm.seeds - pairs),
                *_hopeless(study, pairs, one_sd, overlap, looks.if_more),
                *warnings(study),
                *benchmarks.damaged,
            ],
        )


def run_seconds(spec: RunSpec, per_epoch: float) -> float:
    """How long a run keeps its slot."""
    return spec.task.epochs * per_epoch + RUN_SECONDS


def _growth(grown: list[str], seen: int) -> Iterator[str]:
    if grown:
        yield f"the study grew since it was begun ({'; '.join(grown)}); `run --extend` accepts that."
    if seen:
        yield f"the first {seen} seeds have been seen: only those after them are tested. What they said stays in the report."


def _faster(hours: float | None, pace: Pace, epochs: int) -> Iterator[str]:
    """A line about each packing that saves hours worth speaking of."""
    for how, seconds in pace.packings.items():
        if hours and (others := epochs * seconds / 3600) < WORTH_SAYING * hours:
            yield f"{how}: about {_rounded(others)} GPU-hours"


def _hopeless(study: Study, pairs: int, one_sd: float, overlap: float, if_more: list[Look]) -> Iterator[str]:
    """A plan whose comparisons will find next to nothing, and how many seeds would do, where some number does."""
    if one_sd >= HOPELESS:
        return
    alpha, test = study.analysis.alpha / study.comparisons, study.analysis.test
    enough = next(
        (
            more
            for more in range(pairs + 1, MOST_SEEDS + 1)
            if power(more, 1.0, alpha, test, overlap) >= EVEN
        ),
        None,
    )
    advice = ""
    if enough is not None:
        seeds = seeds_with(study, if_more, lambda arm: enough if arm in study.tested else 0)
        advice = f" Write confirm.seeds: {seeds} for a chance of {EVEN:.0%}."
    yield (
        f"the comparison will find next to nothing: {pairs} pairs find a true gain of one SD ({SD}) with a chance of {one_sd:.0%}.{advice}"
    )


def shown_plan(study: Study, planned: Planned) -> RenderableType:
    """For people."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("arm", "searched", "search runs", "confirm runs"):
        table.add_column(name, justify="left" if name in ("arm", "searched") else "right")
    for arm, runs in planned.runs.items():
        shown = arm + (" (baseline)" if arm in study.baselines else "")
        table.add_row(shown, _filled_in(study.arms[arm]), str(runs["search"] or "-"), str(runs["confirm"]))
    total = planned.runs_done + planned.runs_left
    share = study.resources.gpus
    gpus = f" on {math.ceil(planned.slots / study.resources.sharing * max(share, 1))} GPUs" if share else ""
    hours = (
        f"; about {_rounded(planned.gpu_hours_left)} GPU-hours" if planned.gpu_hours_left is not None else ""
    )
    lines = [
        f"{total} runs, {planned.epochs:,} epochs; {planned.runs_done} runs are done.",
        f"{planned.slots} at once{gpus}, {planned.utilisation:.0%} busy; time: {duration(planned.seconds_left)}{hours} "
        f"({planned.seconds_from}).",
        *([f"Assumed: {planned.assumed}."] if planned.assumed else []),
        *(f"Faster by the same measurement: {line}." for line in planned.faster),
        f"{planned.comparisons} comparisons of {planned.pairs} pairs ({study.analysis.test}, Holm at {study.analysis.alpha:g}), at r = "
        + " and ".join(f"{ratio:g}" for ratio in study.analysis.endpoints)
        + ".",
        f"A true gain of {planned.detectable_sd:.2f} SD is found with a chance of {POWER:.0%}, one of 1 SD with "
        f"{planned.power_at_one_sd:.0%}. (SD: {SD}. Counted for the comparison that Holm holds to the strictest level.)",
    ]
    parts: list[RenderableType] = [table, *map(Text, lines)]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in planned.warnings]
    return Group(*parts)


def _filled_in(arm: ResolvedArm) -> str:
    """What of an arm is not in the study's file."""
    if arm.repeats:
        return f"as {arm.repeats.base}, on other seeds"
    parts = [", ".join(setting.split(".", 1)[1] for setting in arm.searched)]
    if arm.match and arm.follows:
        other, taken = arm.follows.base, [setting.split(".", 1)[1] for setting in arm.match.settings]
        if taken:
            parts.append(
                f"{', '.join(taken)} as {other}'s finalist has {'it' if len(taken) == 1 else 'them'}"
            )
        if arm.match.at:
            parts.append(f"as many parameters as {other} has at the {arm.match.at}")
    return "; ".join(filter(None, parts)) or "-"


def _rounded(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
