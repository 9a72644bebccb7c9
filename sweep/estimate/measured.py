"""How fast a kind of GPU trains, by the results files of `python -m benchmarks.gpu`. Imports no torch."""

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
"""It stands in a checkout and is not installed."""
RESULTS = Path(__file__).parent / "gpus"


@dataclass(frozen=True)
class Pace:
    """What an epoch of a run takes beside those on the same GPU, how that is known, and what is assumed."""

    seconds: float | None
    source: str
    assumed: str = ""
    packings: Mapping[str, float] = field(default_factory=dict[str, float])
    """The best measured ways to pack runs on a GPU, in words, and the GPU-seconds that an epoch takes."""


@dataclass(frozen=True)
class Packed(Excerpt):
    """So many runs at once on one GPU, and the epochs that all of them together finish in a second."""

    runs: Count
    mps: bool
    epochs_per_second: Annotated[float, Within(above=0)]

    def __str__(self) -> str:
        runs = f"{self.runs} runs on each GPU" if self.runs > 1 else "one run on each GPU"
        mps = ", and `nvidia-cuda-mps-control -d` on every node before Ray starts" if self.mps else ""
        return f"{runs}{' under MPS' if self.mps else ''} (`gpus: {1 / self.runs:g}`{mps})"


@dataclass(frozen=True)
class Trained(Excerpt):
    """What was trained: an epoch is `train` images, and an evaluation at r and another at r = 1."""

    data: str
    model: str
    precision: str
    batch_size: Count
    train: Count


@dataclass(frozen=True)
class Measured(Excerpt):
    """One results file."""

    measured: bool
    """False where the command ran without a GPU: that tries the command, and gives no figure of anything."""
    device: str
    task: Trained
    packed: list[Packed]

    def pace(self, task: Task, sharing: int) -> Pace | None:
        """Of one among so many runs that share a GPU; None where something else was measured."""
        ours, data = self.task, DATASETS.get(self.task.data)
        # without MPS where there is a choice: it has to be started on a node, and nothing here starts it
        best = max(
            (it for it in self.packed if it.runs <= sharing),
            key=lambda it: (it.runs, not it.mps),
            default=None,
        )
        if (ours.model, ours.precision, data and data.image) != (
            task.model,
            task.precision,
            facts(task.data).image,
        ) or not best:
            return None
        images = task.train_size or sizes(task)[0] - held_out_of(task)
        assumed = [
            f"every epoch trains {task.model} on {images:,} images in batches of {ours.batch_size} "
            "and is evaluated"
        ]
        assumed.append(
            f"{sharing} runs share a GPU{' under MPS' if best.mps else ''}"
            if sharing > 1
            else "a run has a GPU to itself"
        )
        if best.runs < sharing:
            assumed.append(f"together they are as fast as the {best.runs} that were measured")
        epoch = images / ours.train
        packings = {str(it): epoch / it.epochs_per_second for it in self._fastest()}
        per_epoch = sharing / best.epochs_per_second * epoch
        return Pace(per_epoch, f"measured by benchmarks.gpu on {self.device}", "; ".join(assumed), packings)

    def _fastest(self) -> list[Packed]:
        """The fastest packing without MPS and the fastest under it, so far as either was measured."""
        ways = ([it for it in self.packed if it.mps == mps] for mps in (False, True))
        return [max(way, key=lambda it: it.epochs_per_second) for way in ways if way]


@dataclass(frozen=True)
class Results:
    """Every GPU that was measured, and a line about each file that cannot tell."""

    measured: list[Measured]
    damaged: list[str]

    def device(self, name: str) -> str:
        """The one device that is meant by its name or a part of it; RejectStudy with those there are."""
        if not name.strip():
            raise RejectStudy(["--gpu wants the name of a GPU, or a part of it."])
        devices, asked = sorted({it.device for it in self.measured}), name.lower()
        meant = [it for it in devices if it.lower() == asked] or [
            it for it in devices if asked in it.lower()
        ]
        if len(meant) == 1:
            return meant[0]
        what = f"could be {' or '.join(meant)}" if meant else "has not been measured"
        there = f"Measured are: {', '.join(devices)}." if devices else "No GPU has been measured yet."
        more = f"To measure one: `{COMMAND}` on it, in a checkout."
        raise RejectStudy([f"--gpu {name}: {what}. {there} {more}", *self.damaged])

    def pace(self, device: str, task: Task, sharing: int) -> Pace | None:
        """By the first file of a device that fits."""
        return next(
            (pace for it in self.measured if it.device == device and (pace := it.pace(task, sharing))), None
        )


def read(folder: Path) -> Results:
    """Every results file of a folder; a folder that is not there has none."""
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
