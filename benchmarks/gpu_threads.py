"""Several runs at once in one process, each in a thread and on a CUDA stream of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from benchmarks.gpu_setting import SEED, Bench, figures
from trainer import streams
from trainer.techniques import ALL, Techniques
from trainer.training import Training

T = TypeVar("T")
GATE_SECONDS = 120.0
"""The most that one thread waits for the others."""


def at_once(device: torch.device, works: Sequence[Callable[[threading.Barrier], T]]) -> list[T]:
    """Call each function in a thread and on a stream of its own; return their results in order.

    Each gets a gate at which it may wait for the others. If one fails, nobody waits for it, and its error
    is raised.
    """
    gate = threading.Barrier(len(works), timeout=GATE_SECONDS)

    def call(work: Callable[[threading.Barrier], T]) -> T:
        own = streams.lend(threading.current_thread(), device) if device.type == "cuda" else None
        try:
            with nullcontext() if own is None else torch.cuda.stream(own):
                return work(gate)
        except BaseException:
            gate.abort()
            raise

    with ThreadPoolExecutor(len(works)) as threads:
        calls = [threads.submit(call, work) for work in works]
    errors = [error for it in calls if (error := it.exception())]
    # those that only waited for the one that failed tell nothing
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        raise errors[0]
    return [it.result() for it in calls]


def runs_in_threads(
    bench: Bench, runs: int, epochs: int, techniques: Techniques = ALL
) -> list[dict[str, Any]]:
    """Train one spec in as many threads at once; return what `gpu_children` answers for a run.

    Each records its steps in the first epoch. All begin the second at the same time, and are measured.
    """
    spec = bench.spec(bench.setting.ratio, SEED)

    def work(gate: threading.Barrier) -> dict[str, Any]:
        training = Training(spec, device=bench.device, images=bench.images, techniques=techniques)
        going = iter(training)
        next(going)
        gate.wait()
        moments = [time.monotonic()]
        for _ in range(epochs):
            next(going)
            moments.append(time.monotonic())
        return {"moments": moments, "rows": figures(training.rows), "peak_gib": bench.peak_gib() / runs}

    bench.forget()
    bench.wait()
    return at_once(bench.device, [work] * runs)
