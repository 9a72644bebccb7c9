"""Which kernels the device runs, by PyTorch's profiler, and which of them run at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_setting import Bench
from trainer.training import Training


@dataclass(frozen=True)
class Kernel:
    """One run of a kernel; its times are in microseconds on the profiler's clock."""

    name: str
    start: float
    end: float


def kernels(bench: Bench, work: Callable[[], object]) -> list[Kernel]:
    """The kernels of some work in the order of their start. On a CPU they are PyTorch's operations."""
    activity = ProfilerActivity.CPU if bench.rehearsal else ProfilerActivity.CUDA
    with profile(activities=[activity]) as done:
        work()
        bench.wait()
    events: Any = done.events()
    found = [
        Kernel(event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == activity.name
    ]
    return sorted(found, key=lambda kernel: kernel.start)


@dataclass(frozen=True)
class Overlap:
    """How much of some kernels' time they shared."""

    work: float
    """The sum of all kernels' microseconds."""
    busy: float
    """The microseconds in which at least one kernel ran."""
    pairs: list[tuple[str, str, float]]
    """Pairs of kernels with the microseconds in which both ran, longest first."""


def overlap(ordered: Sequence[Kernel]) -> Overlap:
    """How kernels overlap that are ordered by their start."""
    pairs: defaultdict[tuple[str, str], float] = defaultdict(float)
    running: list[Kernel] = []
    busy, until = 0.0, float("-inf")
    for kernel in ordered:
        running = [other for other in running if other.end > kernel.start]
        for other in running:
            first, second = sorted((kernel.name, other.name))
            pairs[first, second] += min(kernel.end, other.end) - kernel.start
        running.append(kernel)
        busy += max(0.0, kernel.end - max(kernel.start, until))
        until = max(until, kernel.end)
    work = sum(kernel.end - kernel.start for kernel in ordered)
    longest = sorted(pairs.items(), key=lambda pair: -pair[1])
    return Overlap(work, busy, [(*names, shared) for names, shared in longest])


def steps(bench: Bench, count: int) -> tuple[list[Kernel], float]:
    """The kernels of some training steps of a recorded run, and the seconds that the steps took together."""
    training = Training(bench.spec(bench.setting.ratio), device=bench.device, images=bench.images)
    going = training.steps()

    def some() -> None:
        for _ in range(count):
            next(going)

    some()  # records
    bench.wait()
    found = kernels(bench, some)
    return found, bench.wall(some)
