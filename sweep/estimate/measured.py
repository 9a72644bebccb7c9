"""The speed of a kind of GPU, by the results files of `python -m benchmarks.gpu`. Imports no torch.

What has not been measured yet may be predicted, by a file that `python -m benchmarks.predicted` makes of a
results file. A prediction is shown beside a measurement, and never takes its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from sweep.errors import RejectStudy
from trainer import settings
from trainer.code import code_hash
from trainer.data import DATASETS, facts, held_out_of, sizes
from trainer.settings import Excerpt, Share, SpecError, Within
from trainer.spec import Count, Task

COMMAND = "python -m benchmarks.gpu"
"""The command that measures a GPU. It is part of a checkout and is not installed."""
RESULTS = Path(__file__).parent / "gpus"


@dataclass(frozen=True)
class Pace:
    """The time of an epoch, how it is known, and what is assumed."""

    seconds: float | None
    """The seconds of one run's epoch, beside the other runs on the same GPU; None where unknown."""
    source: str
    """How the seconds are known, or what to do where they are not, for people."""
    assumed: tuple[str, ...] = ()
    """The assumptions beyond the measurement, for people."""
    packings: Mapping[str, float] = field(default_factory=dict[str, float])
    """The GPU-seconds of an epoch with the best measured packings of runs on a GPU, by description."""
    predicted: Mapping[str, float] = field(default_factory=dict[str, float])
    """The same of packings that nobody has measured yet."""


@dataclass(frozen=True)
class Packed(Excerpt):
    """The speed of some runs on one GPU: the epochs that they finish together in a second.

    Several runs on one GPU are threads of one process, or processes under MPS.
    """

    runs: Count
    mps: bool
    epochs_per_second: Annotated[float, Within(above=0)]
    threads: bool = False
    """False in files from before runs could be threads, where several runs are processes."""
    rows_equal: bool = True
    """Whether the runs had the rows that they have alone."""
    peak_gib: Annotated[float, Within(at_least=0)] = 0.0
    """The GPU memory of each run; 0 where it was not measured."""

    def __str__(self) -> str:
        runs = f"{self.runs} runs on each GPU" if self.runs > 1 else "one run on each GPU"
        mps = ", and `nvidia-cuda-mps-control -d` on every node before Ray starts" if self.mps else ""
        return f"{runs}{' under MPS' if self.mps else ''} (`gpus: {1 / self.runs:g}`{mps})"

    @property
    def is_had(self) -> bool:
        """Whether a study's runs can share a GPU in this way. Several processes need MPS."""
        return self.rows_equal and (self.runs == 1 or self.threads or self.mps)


@dataclass(frozen=True)
class Epoch(Excerpt):
    """The time of an epoch at a keep ratio, and of its training alone."""

    ratio: Share
    epoch_seconds: Annotated[float, Within(above=0)]
    training_seconds: Annotated[float, Within(above=0)]


@dataclass(frozen=True)
class Ratios(Excerpt):
    """Epochs at several keep ratios. Those below 1 have two evaluations: at their own ratio and at 1."""

    epochs: list[Epoch]

    @property
    def evaluation(self) -> float:
        """The share of an epoch that its evaluations take; 0 where it is not known."""
        shares = [1 - it.training_seconds / it.epoch_seconds for it in self.epochs if it.ratio < 1]
        return sum(shares) / len(shares) if shares else 0.0


@dataclass(frozen=True)
class Trained(Excerpt):
    """The task of an epoch, which trains on `train` images and evaluates `test` images at r and at r = 1."""

    data: str
    model: str
    precision: str
    batch_size: Count
    train: Count
    test: Count


@dataclass(frozen=True)
class Facts(Excerpt):
    """The GPU, and what it was measured with."""

    date: str = ""
    code: str = ""
    """The hash of the trainer's code."""
    memory_gib: Annotated[float, Within(above=0)] = math.inf


@dataclass(frozen=True)
class Measured(Excerpt):
    """One results file, or a prediction, which has the same form."""

    measured: bool
    """False in a prediction, and where the command ran without a GPU and only showed that it works."""
    device: str
    task: Trained
    packed: list[Packed]
    ratios: Ratios | None = None
    facts: Facts = Facts()

    def pace(self, task: Task, sharing: int) -> Pace | None:
        """The pace of a run when `sharing` runs share a GPU; None where the file does not fit the task."""
        packed = self._nearest(sharing)
        if packed is None or not self._fits(task):
            return None
        images, tested = _images(task)
        trains = f"trains {task.model} on {images:,} images in batches of {self.task.batch_size}"
        assumed = [f"an epoch {trains} and evaluates {tested:,}"]
        if sharing > 1:
            assumed.append(f"{sharing} runs share a GPU{' under MPS' if packed.mps else ''}")
            if (needed := sharing * packed.peak_gib) > self.facts.memory_gib:
                memory = f"{self.facts.memory_gib:.0f} GiB"
                assumed.append(f"its {memory} suffice for them, though {needed:.0f} GiB were measured")
        else:
            assumed.append("a run has a GPU to itself")
        if packed.runs < sharing:
            known = f"the {packed.runs} that were" if packed.runs > 1 else "one, which was"
            assumed.append(f"together they are as fast as {known} measured")
        per_epoch = sharing / packed.epochs_per_second * self._epochs(task)
        return Pace(per_epoch, self._source, tuple(assumed), self.gpu_seconds(task, self._fastest()))

    @property
    def _source(self) -> str:
        date = f", {self.facts.date[:10]}" if self.facts.date else ""
        older = ", with an earlier version" if self.facts.code and self.facts.code != code_hash() else ""
        return f"measured by benchmarks.gpu on {self.device}{date}{older}"

    def gpu_seconds(self, task: Task, packings: Iterable[Packed]) -> dict[str, float]:
        """The GPU-seconds of the task's epoch in each packing, by its description."""
        return {str(packing): self._epochs(task) / packing.epochs_per_second for packing in packings}

    def predicts(self, device: str, task: Task) -> bool:
        """Whether this prediction is about a device and fits a task."""
        return self.device == device and self._fits(task)

    @property
    def knows_threads(self) -> bool:
        """Whether runs that share a GPU in one process were measured."""
        return any(packing.threads for packing in self.packed)

    def _epochs(self, task: Task) -> float:
        """The measured epochs that one of the task's takes as long as. Time goes by the number of images."""
        images, tested = _images(task)
        evaluation = self.ratios.evaluation if self.ratios else 0.0
        training = (1 - evaluation) * images / self.task.train
        return training + evaluation * tested / self.task.test / task.evaluate_every

    def _fits(self, task: Task) -> bool:
        """Whether the measured task has this task's model, precision and size of image."""
        data = DATASETS.get(self.task.data)
        same = (self.task.model, self.task.precision) == (task.model, task.precision)
        return same and data is not None and data.image == facts(task.data).image

    def _nearest(self, sharing: int) -> Packed | None:
        """The packing with the most runs, up to `sharing`.

        MPS has to be started on every node, and nothing here starts it: it counts where nothing else does.
        """
        packings = [packing for packing in self.packed if packing.runs <= sharing and packing.is_had]
        return max(packings, key=lambda packing: (not packing.mps, packing.runs), default=None)

    def _fastest(self) -> list[Packed]:
        """The fastest packing without MPS and the fastest with it, where they were measured."""
        had = [packing for packing in self.packed if packing.is_had]
        groups = ([packing for packing in had if packing.mps == mps] for mps in (False, True))
        return [max(group, key=lambda packing: packing.epochs_per_second) for group in groups if group]


def _images(task: Task) -> tuple[int, int]:
    """The images that an epoch of a task trains on, and those that it evaluates: tested and held out."""
    train, test = sizes(task)
    return task.train_size or train - held_out_of(task), test + held_out_of(task)


@dataclass(frozen=True)
class Results:
    """Every results file that can be used, and a line about each one that cannot."""

    measured: list[Measured]
    damaged: list[str]
    predicted: list[Measured] = field(default_factory=list[Measured])

    def device(self, name: str) -> str:
        """The one measured device with this name, or with this part of a name. Raises RejectStudy."""
        if not name.strip():
            raise RejectStudy(["--gpu wants the name of a GPU, or a part of it."])
        devices, lower = sorted({file.device for file in self.measured}), name.lower()
        matches = [device for device in devices if device.lower() == lower]
        matches = matches or [device for device in devices if lower in device.lower()]
        if len(matches) == 1:
            return matches[0]
        what = f"could be {' or '.join(matches)}" if matches else "has not been measured"
        there = f"Measured are: {', '.join(devices)}." if devices else "No GPU has been measured yet."
        more = f"To measure one: `{COMMAND}` on it, in a checkout."
        raise RejectStudy([f"--gpu {name}: {what}. {there} {more}", *self.damaged])

    def pace(self, device: str, task: Task, sharing: int) -> Pace | None:
        """The pace by the first file of a device that fits the task; None where no file fits.

        What is predicted of the device is added, unless the file has measured it.
        """
        for file in self.measured:
            if file.device == device and (pace := file.pace(task, sharing)):
                return pace if file.knows_threads else replace(pace, predicted=self._predicted(device, task))
        return None

    def _predicted(self, device: str, task: Task) -> dict[str, float]:
        fitting = (file for file in self.predicted if file.predicts(device, task))
        return next((file.gpu_seconds(task, file.packed) for file in fitting), {})


def read(folder: Path) -> Results:
    """Read every results file of a folder, and every prediction. A folder that does not exist has none."""
    results = Results([], [])
    for path in sorted([*folder.glob("gpu-*.json"), *folder.glob("predicted-*.json")]):
        try:
            given = json.loads(path.read_bytes())
            if path.name.startswith("predicted-"):
                results.predicted.append(settings.read(Measured, given, takes="a prediction"))
            elif not (isinstance(given, dict) and given.get("measured") is False):
                results.measured.append(settings.read(Measured, given, takes="a results file"))
        except OSError as error:
            results.damaged.append(f"{path} cannot be read, and is not used: {error.strerror}.")
        except SpecError as error:
            results.damaged.append(f"{path} is damaged, and is not used: {error.problems[0]}")
        except (ValueError, RecursionError) as error:
            results.damaged.append(f"{path} is damaged, and is not used: it is not JSON: {error}.")
    return results
