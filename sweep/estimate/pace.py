"""How long an epoch takes: by finished runs, by what was measured on a GPU, or by a few seconds of training here."""

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


def pace_of(study: Study, ledger: Ledger, benchmarks: Results, gpu: str | None, data_dir: Path) -> Pace:
    """By all the runs that are done; else by one run of the first tested arm on each task, as if those of every other arm took as long."""
    if gpu is not None and not study.resources.gpus:
        raise RejectStudy(
            [
                f"--gpu {gpu}: the runs of {study.name} take no GPU; resources.gpus in the study says what a run takes."
            ]
        )
    asked = (
        None if gpu is None else benchmarks.device(gpu)
    )  # before all else: a slip is told whether or not the name is needed
    epochs = sum(result.epochs for result in ledger.results.values())
    if epochs:
        return Pace(
            sum(result.seconds for result in ledger.results.values()) / epochs,
            f"measured on {len(ledger.results)} runs",
        )
    first = study.arms[study.family[0]].base
    arms = (
        study.baselines
        if study.arms[study.family[0]].repeats
        else [arm for arm in study.family if study.arms[arm].base == first]
    )
    specs = [study.run(study.arms[arm].ends[0], "confirm", 0) for arm in arms]
    if study.resources.gpus:
        return _together([_gpu_pace(study, spec, benchmarks, asked, data_dir) for spec in specs], specs)
    return _together([_tried(study, spec, data_dir) for spec in specs], specs)


def _together(paces: list[Pace], specs: list[RunSpec]) -> Pace:
    """Average the pace over all tasks, weighted by epochs; every task has equally many runs."""
    if unknown := [pace for pace in paces if pace.seconds is None]:
        return unknown[0]

    def mean(seconds: Iterable[float]) -> float:
        epochs = [spec.task.epochs for spec in specs]
        return math.fsum(map(operator.mul, seconds, epochs)) / sum(epochs)

    everywhere = [how for how in paces[0].packings if all(how in pace.packings for pace in paces)]
    return Pace(
        mean(pace.seconds or 0.0 for pace in paces),
        _listed(pace.source for pace in paces),
        _listed(pace.assumed for pace in paces),
        {how: mean(pace.packings[how] for pace in paces) for how in everywhere},
    )


def _listed(words: Iterable[str]) -> str:
    """Each once, in order; nothing of what is empty."""
    return "; ".join(dict.fromkeys(filter(None, words)))


def _gpu_pace(study: Study, spec: RunSpec, benchmarks: Results, asked: str | None, data_dir: Path) -> Pace:
    sharing = study.resources.sharing
    if asked and (pace := benchmarks.pace(asked, spec.task, sharing)):
        return pace
    here = device_here()
    if here and asked in (None, here):  # what another GPU takes, a try on this one does not tell
        return benchmarks.pace(here, spec.task, sharing) or _tried(study, spec, data_dir)
    if asked:
        return Pace(
            None,
            f"what was measured on {asked} does not fit this study: run `sweep plan` on a machine that has one",
        )
    fitting = sorted({it.device for it in benchmarks.measured if it.pace(spec.task, sharing)})
    known = f", or give --gpu one that was measured: {', '.join(fitting)}" if fitting else ""
    what = "no run to measure by, and no GPU here to try one on"
    ways = f"run `{measured.COMMAND}` in a checkout on such a GPU, or `sweep plan` on a machine that has one"
    return Pace(None, f"{what}: {ways}{known}")


def device_here() -> str | None:
    """The GPU of this machine, by the name that a results file has for it."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _tried(study: Study, spec: RunSpec, data_dir: Path) -> Pace:
    gpus, sharing = study.resources.gpus, study.resources.sharing
    try:
        seconds = calibrate(spec, study.resources.cpus, "cuda" if gpus else "cpu", data_dir)
    except DataError:
        more = f": fetch it, or run `{measured.COMMAND}` in a checkout, which needs none" if gpus else ""
        return Pace(None, f"no run to measure by, and no data here to try one on{more}")
    alone = (
        f"{sharing} runs that share a GPU are each as fast as the one that was tried, which had it to itself"
        if sharing > 1
        else ""
    )
    return Pace(seconds, "estimated by a few seconds of training here", alone)


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
        # a GPU is not waited for after a batch, and its first epoch pays for what is recorded
        enough = len(training.rows) >= 2 if device == "cuda" else training.rows or batches >= 3
        if time.perf_counter() - start > CALIBRATION_SECONDS and enough:
            break
    spent = time.perf_counter() - start
    torch.set_num_threads(before)
    rows = training.rows[1:] or training.rows
    return sum(row.seconds for row in rows) / len(rows) if rows else spent / batches * training.batches
