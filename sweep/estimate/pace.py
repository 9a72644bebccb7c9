"""The time of an epoch: by finished runs, by measurements on a GPU, or by a few seconds of training here."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sweep.errors import RejectStudy
from sweep.estimate import measured
from sweep.estimate.measured import Pace, Results
from sweep.ledger.ledger import Ledger
from sweep.study import Candidate, Phase, Study
from trainer.data import Arrays, DataError, load
from trainer.decoded import folder_of
from trainer.models import own
from trainer.spec import RunSpec

CALIBRATION_SECONDS = 6.0
"""The least time for which a run is tried; two epochs, or a few batches, may take longer."""


def pace_of(
    study: Study,
    ledger: Ledger,
    runs: Mapping[Phase, int],
    sharing: int,
    benchmarks: Results,
    gpu: str | None,
    data_dir: Path,
) -> Pace:
    """The pace of a study's runs. `runs` has the number of them in each phase; `sharing` share a GPU.

    It comes from all finished runs. Where there are none it comes from one run of the first tested arm on
    each task, as if the runs of every other arm took as long.
    """
    if gpu is not None and not study.resources.gpus:
        takes = "resources.gpus in the study says what a run takes."
        raise RejectStudy([f"--gpu {gpu}: the runs of {study.name} take no GPU; {takes}"])
    # first of all, so that a wrong name is refused even where finished runs give the pace
    device = None if gpu is None else benchmarks.device(gpu)
    results = ledger.results.values()
    if epochs := sum(result.epochs for result in results):
        seconds = sum(result.seconds for result in results)
        return Pace(seconds / epochs, f"measured on {len(results)} runs")
    first = study.arms[study.family[0]]
    arms = [arm for arm in study.family if study.arms[arm].base == first.base]
    if first.is_repeat:
        arms = study.baselines
    candidates = [study.arms[arm].ends[0] for arm in arms]
    specs = [study.run(candidate, "confirm", 0) for candidate in candidates]
    if study.resources.gpus:
        on_gpu = _OnGpu(study, ledger, runs, sharing, benchmarks, device, data_dir)
        paces = [on_gpu.pace(candidate) for candidate in candidates]
    else:
        paces = [_tried(study, ledger, spec, sharing, data_dir) for spec in specs]
    return _mean_pace(paces, [spec.task.epochs for spec in specs])


def _mean_pace(paces: list[Pace], epochs: list[int]) -> Pace:
    """The mean pace of all tasks or phases, weighted by their epochs.

    Where one's pace is unknown, so is the mean.
    """
    if unknown := [pace for pace in paces if pace.seconds is None]:
        return unknown[0]

    def mean(seconds: Iterable[float]) -> float:
        return math.fsum(map(operator.mul, seconds, epochs)) / sum(epochs)

    def means(packings: list[Mapping[str, float]]) -> dict[str, float]:
        everywhere = [how for how in packings[0] if all(how in there for there in packings)]
        return {how: mean(there[how] for there in packings) for how in everywhere}

    return Pace(
        mean(pace.seconds or 0.0 for pace in paces),
        "; ".join(dict.fromkeys(pace.source for pace in paces)),
        tuple(dict.fromkeys(phrase for pace in paces for phrase in pace.assumed)),
        means([pace.packings for pace in paces]),
        means([pace.predicted for pace in paces]),
    )


@dataclass(frozen=True)
class _OnGpu:
    """What is known about the pace of a study's runs on a GPU."""

    study: Study
    ledger: Ledger
    runs: Mapping[Phase, int]
    sharing: int
    benchmarks: Results
    asked: str | None
    """The measured GPU that was asked for; None: the GPU of this machine."""
    data_dir: Path

    def pace(self, candidate: Candidate) -> Pace:
        """The pace of a candidate's runs."""
        if self.asked and (pace := self._measured(self.asked, candidate)):
            return pace
        here, spec = device_here(), self.study.run(candidate, "confirm", 0)
        # a try on this GPU says nothing about another one
        if here and self.asked in (None, here):
            found = self._measured(here, candidate)
            return found or _tried(self.study, self.ledger, spec, self.sharing, self.data_dir)
        if self.asked:
            advice = "run `sweep plan` on a machine that has one"
            return Pace(None, f"what was measured on {self.asked} does not fit this study: {advice}")
        devices = sorted({file.device for file in self.benchmarks.measured})
        fitting = [device for device in devices if self._measured(device, candidate)]
        what = "no run to measure by, and no GPU here to try one on"
        machine = "or `sweep plan` on a machine that has one"
        ways = f"run `{measured.COMMAND}` in a checkout on such a GPU, {machine}"
        named = f", or give --gpu one that was measured: {', '.join(fitting)}" if fitting else ""
        return Pace(None, f"{what}: {ways}{named}")

    def _measured(self, device: str, candidate: Candidate) -> Pace | None:
        """The mean pace of both phases: a run of the search trains on fewer images, and evaluates more."""
        phases: list[Phase] = [phase for phase, runs in self.runs.items() if runs]
        tasks = [self.study.run(candidate, phase, 0).task for phase in phases]
        paces = [self.benchmarks.pace(device, task, self.sharing) for task in tasks]
        known = [pace for pace in paces if pace]
        if len({pace.assumed for pace in known}) > 1:
            pairs = zip(phases, known, strict=False)
            known = [replace(pace, assumed=_in(phase, *pace.assumed)) for phase, pace in pairs]
        epochs = [self.runs[phase] * task.epochs for phase, task in zip(phases, tasks, strict=True)]
        return _mean_pace(known, epochs) if len(known) == len(paces) else None


def _in(phase: Phase, first: str, *rest: str) -> tuple[str, ...]:
    """Assumptions of which the first is about one phase alone."""
    where = {"search": "in the search", "confirm": "in the confirmation"}
    return f"{where[phase]} {first}", *rest


def device_here() -> str | None:
    """The name of this machine's GPU, as in a results file; None where there is no GPU."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _tried(study: Study, ledger: Ledger, spec: RunSpec, sharing: int, data_dir: Path) -> Pace:
    """The pace of a run by a few seconds of training on this machine."""
    gpus = study.resources.gpus
    if why := own.refusal(spec.task.model):
        return Pace(None, f"no run to measure by, and {why}")
    try:
        arrays = partial(load, spec.task.data, data_dir, folder_of(ledger.home.where()), ledger.say)
        seconds = calibrate(spec, study.resources.cpus, "cuda" if gpus else "cpu", arrays)
    except DataError:
        more = f": fetch it, or run `{measured.COMMAND}` in a checkout, which needs none" if gpus else ""
        return Pace(None, f"no run to measure by, and no data here to try one on{more}")
    each = f"{sharing} runs that share a GPU are each as fast as the one that was tried"
    assumed = (f"{each}, which had it to itself",) if sharing > 1 else ()
    return Pace(seconds, "estimated by a few seconds of training here", assumed)


def calibrate(spec: RunSpec, threads: int, device: str, arrays: Callable[[], Arrays]) -> float:
    """The seconds of an epoch on this machine: by whole epochs where one fits the time, else by batches."""
    import torch

    from trainer.engine import place
    from trainer.training import Training

    before: Any = torch.get_num_threads()
    torch.set_num_threads(threads)
    training = Training(spec, device=device, images=place(arrays(), torch.device(device)))
    steps = training.steps()
    # the first batch takes longer, because it makes what all batches use
    next(steps)
    start, batches = time.perf_counter(), 0
    for row in steps:
        batches += row is None
        # on a GPU a batch returns before it is done, and the first epoch is slower, because it is recorded
        enough = len(training.rows) >= 2 if device == "cuda" else training.rows or batches >= 3
        if time.perf_counter() - start > CALIBRATION_SECONDS and enough:
            break
    spent = time.perf_counter() - start
    torch.set_num_threads(before)
    rows = training.rows[1:] or training.rows
    return sum(row.seconds for row in rows) / len(rows) if rows else spent / batches * training.batches
