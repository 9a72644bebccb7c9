"""A training or evaluation step, which on a CUDA device is recorded once and then replayed.

A step uses fixed memory: the indices of its batch, the learning rate, the numbers of survivors, the sums. So
one recording (a CUDA graph) serves every batch of a size, in all epochs and runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer import streams

WARM_UP = 3
"""Number of steps that run before a step is recorded: libraries choose and allocate in the first ones."""
_recording = threading.Lock()
"""Held while a step is recorded: a process that trains several runs at once records one step at a time."""


class Recorder:
    """What all steps of an engine share."""

    def __init__(self, generator: torch.Generator, changed: list[Tensor], *, records: bool) -> None:
        """`changed` is every tensor that a step may change, and `generator` is what a step draws from."""
        self.generator, self.changed = generator, changed
        self.device = generator.device
        # A stream of the engine's own, because graphs that are recorded on one stream share cuBLAS's
        # workspace, and the graphs of two engines may be replayed at once.
        self.stream = streams.lend(self, self.device) if records else None
        self.pool: Any = None

    def record(self, work: Callable[[], None], rehearse: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Record some work. Recording runs nothing, so every real step is a replay, in every run."""
        aside, here = self.stream, torch.cuda.current_stream(self.device)
        assert aside is not None
        drawn = self.generator.get_state()
        graph = torch.cuda.CUDAGraph()
        with _recording:
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                rehearse()
            here.wait_stream(aside)
            self.generator.set_state(drawn)
            graph.register_generator_state(self.generator)
            # other threads may use the device meanwhile, and their work must not be recorded or refused
            with torch.cuda.graph(graph, pool=self.pool, stream=aside, capture_error_mode="thread_local"):
                work()
        # steps run one after the other and leave nothing in the pool, so they can share it
        self.pool = graph.pool()
        return graph


class Step:
    """A step for one batch size. It reads `index`; an evaluation fills `right`."""

    def __init__(self, work: Callable[[Step], None], size: int, recorder: Recorder) -> None:
        self.work, self.recorder = work, recorder
        self.index = torch.zeros(size, dtype=torch.int64, device=recorder.device)
        self.right = torch.zeros(size, dtype=torch.bool, device=recorder.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, index: Tensor) -> None:
        self.index.copy_(index)
        if not self.recorder.stream:
            self.work(self)
            return
        if self.graph is None:
            self.graph = self.recorder.record(lambda: self.work(self), self.rehearse)
        self.graph.replay()

    def rehearse(self) -> None:
        """Run a few steps and undo their changes, so that libraries start up and kernels are compiled."""
        changed = self.recorder.changed
        kept = [tensor.clone() for tensor in changed]
        for _ in range(WARM_UP):
            self.work(self)
        with torch.no_grad():
            for tensor, before in zip(changed, kept, strict=True):
                tensor.copy_(before)
