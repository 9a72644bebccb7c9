"""The speed of a kind of GPU, by the results files of `python -m benchmarks.gpu`. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sweep.errors import RejectStudy
from trainer import settings
from trainer.data import DATASETS, facts, held_out_of, sizes
from trainer.settings import Excerpt, SpecError, Within
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
    assumed: str = ""
    """The assumptions beyond the measurement, for people."""
    packings: Mapping[str, float] = field(default_factory=dict[str, float])
    """The GPU-seconds of an epoch with the best measured packings of runs on a GPU, by description."""


@dataclass(frozen=True)
class Packed(Excerpt):
    """The measured speed of some runs on one GPU: the epochs that they finish together in a second."""

    runs: Count
    mps: bool
    epochs_per_second: Annotated[float, Within(above=0)]

    def __str__(self) -> str:
        runs = f"{self.runs} runs on each GPU" if self.runs > 1 else "one run on each GPU"
        mps = ", and `nvidia-cuda-mps-control -d` on every node before Ray starts" if self.mps else ""
        return f"{runs}{' under MPS' if self.mps else ''} (`gpus: {1 / self.runs:g}`{mps})"


@dataclass(frozen=True)
class Trained(Excerpt):
    """The measured task. An epoch trains on `train` images and is evaluated at r and at r = 1."""

    data: str
    model: str
    precision: str
    batch_size: Count
    train: Count


@dataclass(frozen=True)
class Measured(Excerpt):
    """One results file."""

    measured: bool
    """False where the command ran without a GPU: such a file only shows that the command works."""
    device: str
    task: Trained
    packed: list[Packed]

    def pace(self, task: Task, sharing: int) -> Pace | None:
        """The pace of a run when `sharing` runs share a GPU; None where the file does not fit the task."""
        packed = self._nearest(sharing)
        if packed is None or not self._fits(task):
            return None
        images = task.train_size or sizes(task)[0] - held_out_of(task)
        batches = f"in batches of {self.task.batch_size}"
        assumed = [f"every epoch trains {task.model} on {images:,} images {batches} and is evaluated"]
        if sharing > 1:
            assumed.append(f"{sharing} runs share a GPU{' under MPS' if packed.mps else ''}")
        else:
            assumed.append("a run has a GPU to itself")
        if packed.runs < sharing:
            assumed.append(f"together they are as fast as the {packed.runs} that were measured")
        # a measured epoch has other images: time goes by their number
        epoch = images / self.task.train
        packings = {str(packing): epoch / packing.epochs_per_second for packing in self._fastest()}
        per_epoch = sharing / packed.epochs_per_second * epoch
        return Pace(per_epoch, f"measured by benchmarks.gpu on {self.device}", "; ".join(assumed), packings)

    def _fits(self, task: Task) -> bool:
        """Whether the measured task has this task's model, precision and size of image."""
        data = DATASETS.get(self.task.data)
        same = (self.task.model, self.task.precision) == (task.model, task.precision)
        return same and data is not None and data.image == facts(task.data).image

    def _nearest(self, sharing: int) -> Packed | None:
        """The packing with the most runs, up to `sharing`; without MPS where both were measured.

        MPS has to be started on every node, and nothing here starts it.
        """
        packings = [packing for packing in self.packed if packing.runs <= sharing]
        return max(packings, key=lambda packing: (packing.runs, not packing.mps), default=None)

    def _fastest(self) -> list[Packed]:
        """The fastest packing without MPS and the fastest with it, where they were measured."""
        groups = ([packing for packing in self.packed if packing.mps == mps] for mps in (False, True))
        return [max(group, key=lambda packing: packing.epochs_per_second) for group in groups if group]


@dataclass(frozen=True)
class Results:
    """Every results file that can be used, and a line about each one that cannot."""

    measured: list[Measured]
    damaged: list[str]

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
        """The pace by the first file of a device that fits the task; None where no file fits."""
        for file in self.measured:
            if file.device == device and (pace := file.pace(task, sharing)):
                return pace
        return None


def read(folder: Path) -> Results:
    """Read every results file of a folder. A folder that does not exist has none."""
    results = Results([], [])
    for path in sorted(folder.glob("gpu-*.json")):
        try:
            given = json.loads(path.read_bytes())
            if not (isinstance(given, dict) and given.get("measured") is False):
                results.measured.append(settings.read(Measured, given, takes="a results file"))
        except OSError as error:
            results.damaged.append(f"{path} cannot be read, and is not used: {error.strerror}.")
        except SpecError as error:
            results.damaged.append(f"{path} is damaged, and is not used: {error.problems[0]}")
        except (ValueError, RecursionError) as error:
            results.damaged.append(f"{path} is damaged, and is not used: it is not JSON: {error}.")
    return results
