"""What a study would do, before it does it: counts, hours, power and warnings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.analysis import first_place, refuse_what_cannot_reject
from sweep.forecast import forecast, warnings
from sweep.ledger import Ledger
from sweep.looks import looks_at
from sweep.plan import Plan
from sweep.shown import duration
from sweep.statistics import minimum_detectable_gain, power, smallest_p_value
from sweep.study import Study
from sweep.told import Phase
from trainer.data import DataError
from trainer.spec import RunSpec

POWER = 0.8
PHASES: tuple[Phase, ...] = ("search", "confirm")
CALIBRATION_SECONDS = 6.0


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
    """Wall time on these slots."""
    pairs: int
    """That are tested: after a look, those of the seeds that were added since."""
    comparisons: int
    smallest_p: float
    detectable_sd: float
    """The gain that one comparison finds with 80 % power, in standard deviations of the pair differences, at the strictest step of Holm."""
    power_at_one_sd: float
    """The chance that this comparison finds a gain of one such standard deviation."""
    warnings: list[str]

    @classmethod
    def of(cls, study: Study, ledger: Ledger, slots: int, data_dir: Path) -> Planned:
        """Reads the ledger, if there is one, and trains for a few seconds where it holds no run to measure by."""
        grown = ledger.check(study, extend=True)
        ledger.load(keep=False)
        looks = looks_at(ledger, study)
        refuse_what_cannot_reject(study, looks)
        whole = forecast(Plan(study, {}, {}), slots)
        plan = Plan(study, ledger.results, ledger.proposals())
        done = plan.finished.total()
        per_epoch, source = _seconds_per_epoch(study, ledger, data_dir)
        rest = forecast(plan, slots, (lambda run: run.spec.task.epochs * per_epoch) if per_epoch else lambda run: run.spec.task.epochs)
        runs: dict[str, dict[str, int]] = {
            arm: {"search": whole.runs["search", arm], "confirm": whole.runs["confirm", arm]} for arm in study.arms
        }
        pairs = min(study.confirm.seeds - first_place(study, arm, looks) for arm in study.family)
        comparisons, alpha = study.comparisons, study.analysis.alpha
        return cls(
            study=study.name,
            runs={arm: dict(counts) for arm, counts in runs.items()},
            epochs=whole.epochs,
            runs_done=done,
            runs_left=rest.runs.total(),
            slots=slots,
            utilisation=rest.utilisation,
            seconds_per_epoch=per_epoch,
            seconds_from=source,
            seconds_left=rest.makespan if per_epoch else None,
            pairs=pairs,
            comparisons=comparisons,
            smallest_p=smallest_p_value(pairs) if study.analysis.test == "sign-flip" else 0.0,
            detectable_sd=minimum_detectable_gain(pairs, 1.0, alpha=alpha / comparisons, power=POWER),
            power_at_one_sd=power(pairs, 1.0, alpha / comparisons, study.analysis.test),
            warnings=[*_growth(grown, study.confirm.seeds - pairs), *warnings(study)],
        )


def _growth(grown: list[str], seen: int) -> Iterator[str]:
    if grown:
        yield f"the study grew since it was begun ({'; '.join(grown)}); `run --extend` accepts that."
    if seen:
        yield f"the first {seen} seeds have been seen: only those after them are tested. What they said stays in the report."


def shown_plan(study: Study, planned: Planned) -> RenderableType:
    """For people."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("arm", "searched", "search runs", "confirm runs"):
        table.add_column(name, justify="left" if name in ("arm", "searched") else "right")
    for arm, runs in planned.runs.items():
        repeated = study.arms[arm].repeat
        searched = f"as {repeated}, on other seeds" if repeated else ", ".join(key.split(".", 1)[1] for key in study.searched(arm)) or "-"
        table.add_row(arm + (" (baseline)" if arm == study.baseline else ""), searched, str(runs["search"] or "-"), str(runs["confirm"]))
    total = planned.runs_done + planned.runs_left
    lines = [
        f"{total} runs, {planned.epochs:,} epochs; {planned.runs_done} runs are done.",
        f"{planned.slots} at once, {planned.utilisation:.0%} busy: {duration(planned.seconds_left)} ({planned.seconds_from}).",
        f"{planned.comparisons} comparisons of {planned.pairs} pairs ({study.analysis.test}, Holm at {study.analysis.alpha:g}), at r = "
        + " and ".join(f"{ratio:g}" for ratio in study.analysis.endpoints)
        + ".",
        f"The smallest gain that the strictest of them finds with {POWER:.0%} power: "
        f"{planned.detectable_sd:.2f} standard deviations of the pair differences; "
        f"a gain of one it finds with {planned.power_at_one_sd:.0%}.",
    ]
    parts: list[RenderableType] = [table, *map(Text, lines)]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in planned.warnings]
    return Group(*parts)


def _seconds_per_epoch(study: Study, ledger: Ledger, data_dir: Path) -> tuple[float | None, str]:
    epochs = sum(result.epochs for result in ledger.results.values())
    if epochs:
        return sum(result.seconds for result in ledger.results.values()) / epochs, f"measured on {len(ledger.results)} runs"
    if study.resources.gpus:
        import torch

        if not torch.cuda.is_available():
            return None, "no run to measure by, and no GPU here to try one on"
    spec = study.run(study.ends(study.family[0] if not study.arms[study.family[0]].repeat else study.baseline)[0], "confirm", 0)
    try:
        return calibrate(
            spec, study.resources.cpus, "cuda" if study.resources.gpus else "cpu", data_dir
        ), "estimated by a few seconds of training here"
    except DataError:
        return None, "no run to measure by, and no data here to try one on"


def calibrate(spec: RunSpec, threads: int, device: str, data_dir: Path) -> float:
    """Seconds of an epoch on this machine: of whole epochs where some fit in the time, else from its batches alone."""
    import torch

    from trainer.training import Training

    before: Any = torch.get_num_threads()
    torch.set_num_threads(threads)
    training = Training(spec, device=device, data_dir=data_dir)
    steps = training.steps()
    next(steps)  # the first batch pays for what is made once
    start, batches = time.perf_counter(), 0
    for row in steps:
        batches += row is None
        if time.perf_counter() - start > CALIBRATION_SECONDS and (training.rows or batches >= 3):
            break
    spent = time.perf_counter() - start
    torch.set_num_threads(before)
    return spent / len(training.rows) if training.rows else spent / batches * training.batches
