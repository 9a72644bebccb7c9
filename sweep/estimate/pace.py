"""The time of an epoch: by finished runs, by measurements on a GPU, or by a few seconds of training here."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweep.errors import RejectStudy
from sweep.estimate import measured
from sweep.estimate.measured import Pace, Results
from sweep.ledger.ledger import Ledger
from sweep.study import Study
from trainer.data import DataError
from trainer.spec import RunSpec

CALIBRATION_SECONDS = 6.0
"""The least time for which a run is tried; two epochs, or a few batches, may take longer."""


def pace_of(study: Study, ledger: Ledger, benchmarks: Results, gpu: str | None, data_dir: Path) -> Pace:
    """The pace of a study's runs.

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
    specs = [study.run(study.arms[arm].ends[0], "confirm", 0) for arm in arms]
    if study.resources.gpus:
        return _mean_pace([_gpu_pace(study, spec, benchmarks, device, data_dir) for spec in specs], specs)
    return _mean_pace([_tried(study, spec, data_dir) for spec in specs], specs)


def _mean_pace(paces: list[Pace], specs: list[RunSpec]) -> Pace:
    """The mean pace of all tasks, weighted by epochs: every task has equally many runs.

    Where one task's pace is unknown, so is the mean.
    """
    if unknown := [pace for pace in paces if pace.seconds is None]:
        return unknown[0]

    def mean(seconds: Iterable[float]) -> float:
        epochs = [spec.task.epochs for spec in specs]
        return math.fsum(map(operator.mul, seconds, epochs)) / sum(epochs)

    everywhere = [how for how in paces[0].packings if all(how in pace.packings for pace in paces)]
    return Pace(
        mean(pace.seconds or 0.0 for pace in paces),
        _joined(pace.source for pace in paces),
        _joined(pace.assumed for pace in paces),
        {how: mean(pace.packings[how] for pace in paces) for how in everywhere},
    )


def _joined(phrases: Iterable[str]) -> str:
    """The phrases in their order, each once and without empty ones."""
    return "; ".join(dict.fromkeys(filter(None, phrases)))


def _gpu_pace(study: Study, spec: RunSpec, benchmarks: Results, device: str | None, data_dir: Path) -> Pace:
    """The pace of a run on a GPU: on `device`, or on the GPU of this machine where that is None."""
    sharing = study.resources.sharing
    if device and (pace := benchmarks.pace(device, spec.task, sharing)):
        return pace
    here = device_here()
    # a try on this GPU says nothing about another one
    if here and device in (None, here):
        return benchmarks.pace(here, spec.task, sharing) or _tried(study, spec, data_dir)
    if device:
        advice = "run `sweep plan` on a machine that has one"
        return Pace(None, f"what was measured on {device} does not fit this study: {advice}")
    fitting = sorted({file.device for file in benchmarks.measured if file.pace(spec.task, sharing)})
    what = "no run to measure by, and no GPU here to try one on"
    ways = f"run `{measured.COMMAND}` in a checkout on such a GPU, or `sweep plan` on a machine that has one"
    named = f", or give --gpu one that was measured: {', '.join(fitting)}" if fitting else ""
    return Pace(None, f"{what}: {ways}{named}")


def device_here() -> str | None:
    """The name of this machine's GPU, as in a results file; None where there is no GPU."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _tried(study: Study, spec: RunSpec, data_dir: Path) -> Pace:
    """The pace of a run by a few seconds of training on this machine."""
    gpus, sharing = study.resources.gpus, study.resources.sharing
    try:
        seconds = calibrate(spec, study.resources.cpus, "cuda" if gpus else "cpu", data_dir)
    except DataError:
        more = f": fetch it, or run `{measured.COMMAND}` in a checkout, which needs none" if gpus else ""
        return Pace(None, f"no run to measure by, and no data here to try one on{more}")
    assumed = ""
    if sharing > 1:
        each = f"{sharing} runs that share a GPU are each as fast as the one that was tried"
        assumed = f"{each}, which had it to itself"
    return Pace(seconds, "estimated by a few seconds of training here", assumed)


def calibrate(spec: RunSpec, threads: int, device: str, data_dir: Path) -> float:
    """The seconds of an epoch on this machine: by whole epochs where one fits the time, else by batches."""
    import torch

    from trainer.training import Training

    before: Any = torch.get_num_threads()
    torch.set_num_threads(threads)
    training = Training(spec, device=device, data_dir=data_dir)
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
