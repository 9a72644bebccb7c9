"""What `benchmarks.gpu` measures and how often, its clocks and time limits, and its results file."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import lending
from trainer.engine import Engine, Images
from trainer.rows import WALL, EpochRow, json_ready
from trainer.spec import RunSpec
from trainer.techniques import ALL, Techniques
from trainer.training import Training

SCHEDULE_EPOCHS = 100
"""The schedule of every run. Only its first epochs are trained: they are alike, and the last does more."""
SEED = 1
"""The seed of runs that share a GPU: all must give the same rows, whoever else is there."""
AHEAD_CYCLES = 4_000_000
"""Some two milliseconds, longer than the host needs to call anything that is timed."""


@dataclass(frozen=True)
class Setting:
    """Sizes and repetitions."""

    data: str
    model: str
    batch_size: int
    train: int
    test: int
    ratio: float
    ratios: tuple[float, ...]
    site_ratios: tuple[float, ...]
    site_batch: int
    copy_bytes: int
    matmul_side: int
    repetitions: int
    """How often a measurement of milliseconds is repeated."""
    chunks: int
    """How often a slow rung is measured: each chunk has `steps` of training and `evaluations` batches."""
    steps: int
    evaluations: int
    epochs: int
    """Whole epochs of a fast rung, after one to warm up."""
    ratio_epochs: int
    agreement_train: int
    agreement_epochs: int
    seeds: tuple[int, ...]
    packings: tuple[int, ...]
    packed_epochs: int
    compiler: str
    seconds: float
    """The time limit of the whole command."""
    plan: Mapping[str, float]
    """Seconds meant for each part, in their order."""
    precision: str = "bfloat16"


GPU = Setting(
    data="synthetic-cifar", model="wrn-28-4", batch_size=128, train=50_000, test=10_000,
    ratio=0.3, ratios=(1.0, 0.7, 0.3, 0.05), site_ratios=(1.0, 0.3, 0.05), site_batch=128,
    copy_bytes=2 << 30, matmul_side=8192, repetitions=30,
    chunks=3, steps=10, evaluations=2, epochs=3, ratio_epochs=2,
    agreement_train=12_800, agreement_epochs=3, seeds=(1, 2, 3),
    packings=(1, 2, 4), packed_epochs=3, compiler="inductor",
    seconds=460,
    plan={"ceilings": 10, "sites": 65, "ladder": 120, "ratios": 25, "agreement": 55, "packed": 140},
)  # fmt: skip
REHEARSAL = Setting(
    data="digits", model="wrn-10-1", batch_size=32, train=96, test=64,
    ratio=0.3, ratios=(1.0, 0.7, 0.3, 0.05), site_ratios=(1.0, 0.3, 0.05), site_batch=2,
    copy_bytes=1 << 20, matmul_side=64, repetitions=1,
    chunks=1, steps=2, evaluations=1, epochs=2, ratio_epochs=1,
    agreement_train=64, agreement_epochs=2, seeds=(1, 2, 3),
    packings=(1, 2), packed_epochs=2, compiler="eager",
    seconds=450, plan={},
)  # fmt: skip


@dataclass(frozen=True)
class Requirement:
    """A figure that is asked for."""

    what: str
    required: str
    """What is asked for, for people."""
    measured: Any
    """None where nothing was measured."""
    meets: Callable[[Any], bool]

    def met(self) -> bool | None:
        """Whether the measurement is what was asked for; None without one."""
        return None if self.measured is None else self.meets(self.measured)


@dataclass
class Bench:
    """One call of the command: its device, its findings so far, and its start."""

    setting: Setting
    device: torch.device
    folder: Path
    """A temporary folder for files that children share."""
    images: Images
    found: dict[str, Any]
    keep: Callable[[], None]
    began: float = field(default_factory=time.monotonic)

    @property
    def rehearsal(self) -> bool:
        return self.device.type != "cuda"

    def say(self, text: str) -> None:
        """Report progress on stderr."""
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", file=sys.stderr, flush=True)

    def room(self, part: str) -> float:
        """Return the seconds that a part may still take, so that later parts keep theirs.

        Below 0, repetitions are dropped.
        """
        names = list(self.setting.plan)
        later = (
            sum(self.setting.plan[name] for name in names[names.index(part) + 1 :]) if part in names else 0.0
        )
        return self.setting.seconds - later - (time.monotonic() - self.began)

    def spec(self, ratio: float, seed: int = 1, **task: Any) -> RunSpec:
        """The measured run's spec, at another ratio or with another task."""
        it = self.setting
        whole = {"data": it.data, "model": it.model, "batch_size": it.batch_size, "precision": it.precision}
        whole |= {"train_size": it.train, "epochs": SCHEDULE_EPOCHS, **task}
        return RunSpec.read({"task": whole, "policy": {"name": "fixed", "ratio": ratio}, "seed": seed})

    def train(
        self,
        spec: RunSpec,
        epochs: int,
        part: str,
        *,
        least: int = 2,
        techniques: Techniques = ALL,
        moments: list[float] | None = None,
    ) -> tuple[list[EpochRow], Engine]:
        """Train the first epochs of a run, fewer where time is short but never under `least`.

        The engine is free for the next run when this returns. `moments` gets when the first epoch began
        and when each ended, on a clock that all processes of a machine share.
        """
        rows: list[EpochRow] = []
        training = Training(spec, device=self.device, images=self.images, techniques=techniques)
        seen = [] if moments is None else moments
        seen.append(time.monotonic())
        for row in training:
            seen.append(time.monotonic())
            rows.append(row)
            if len(rows) == epochs or (len(rows) >= least and self.room(part) < 0):
                break
        return rows, training.engine

    def wall(self, work: Callable[[], object]) -> float:
        """Return the seconds until the device has finished `function`."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Return the median seconds of each function; they take turns.

        CUDA events time the device alone, without the host's calls. The cache is flushed before each.
        """
        warm = 1 if self.rehearsal else 3
        for function in functions.values():
            for _ in range(warm):
                function()
        self.wait()
        spoil = torch.empty(0 if self.rehearsal else 256 << 20, dtype=torch.int8, device=self.device)
        rounds = [
            {name: self._once(it, spoil) for name, it in functions.items()}
            for _ in range(self.setting.repetitions)
        ]
        return {name: statistics.median(found[name] for found in rounds) for name in functions}

    def _once(self, function: Callable[[], object], spoil: Tensor) -> float:
        if self.device.type != "cuda":
            return self.wall(function)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        # meanwhile the host calls all of the following
        torch.cuda._sleep(AHEAD_CYCLES)  # pyright: ignore[reportPrivateUsage]
        spoil.zero_()
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def forget(self) -> None:
        """Free the memory of earlier measurements and start the peak anew."""
        lending.forget()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Return the peak of this process's device memory, without CUDA's own context.

        On a CPU it is the peak of all memory.
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def figures(rows: Sequence[EpochRow]) -> list[dict[str, Any]]:
    """The rows without the clock's figures, which alone may differ between two runs of one spec."""
    return [{name: value for name, value in json_ready(row).items() if name not in WALL} for row in rows]


def stock() -> None:
    """Restore PyTorch's own settings for the rivals, except that float32 stays float32.

    The next Training sets ours again.
    """
    torch.set_deterministic_debug_mode("default")


def reason(error: BaseException) -> str:
    """Describe an error for the JSON: its kind and its first lines."""
    return "\n".join([type(error).__name__, *str(error).strip().splitlines()[:8]])[:1500]


def write_whole(path: Path, found: Any) -> None:
    """Write the JSON file whole or not at all; numbers that JSON lacks become null.

    Only a file is ever replaced: anything else at the path is an error.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "is there, and is no file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(_finite(found), indent=1, allow_nan=False) + "\n"
    try:
        with aside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(*lines: tuple[Any, ...]) -> None:
    """Print a table; the first line is the heading."""
    cells = [[_cell(value) for value in line] for line in lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    print(
        *(
            "| " + " | ".join(it.ljust(width) for it, width in zip(line, widths, strict=True)) + " |"
            for line in cells
        ),
        sep="\n",
    )
    print(flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value).split("\n")[0][:100]
