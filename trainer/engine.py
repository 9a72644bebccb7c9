"""A task's network on one device, and how it goes over images: what the runs of a task share, one after the other.

A step, of training or of evaluation, works on memory that stays where it is: the indices of its batch, the learning rate, the counts that
survive, the sums. On a CUDA device it is recorded once for each size of a batch, as a CUDA graph, and replayed for every batch of every
epoch of every run that takes the engine over. The host does not wait for the device until somebody reads a result.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer import data, models, randomness
from trainer.connections import NetworkConnections
from trainer.models.sites import Network
from trainer.sgd import Sgd
from trainer.spec import Task

EVALUATION_BATCH = 1000
WARM_UP = 3
"""Steps before one is recorded."""


@dataclass(frozen=True, eq=False)
class Images:
    """A whole data set on the device, test images after the training ones; as (N, H, W, C) in memory, so that a gathered batch is
    channels_last without a copy."""

    images: Tensor
    labels: Tensor
    train: int
    """How many are for training."""


def place(arrays: data.Arrays, device: torch.device) -> Images:
    """Bring a data set to the device once, for all the runs of a process."""
    images = np.concatenate([arrays.train_images, arrays.test_images]).transpose(0, 2, 3, 1)
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    return Images(
        torch.from_numpy(np.ascontiguousarray(images)).to(device),
        torch.from_numpy(labels).to(device),
        len(arrays.train_labels),
    )


@dataclass(frozen=True)
class Scores:
    """One pass over a set: per image whether it was right, and per site the share of activations that are not zero."""

    loss: float
    correct: np.ndarray
    nonzero_rates: list[float]

    @property
    def accuracy(self) -> float:
        return int(self.correct.sum()) / len(self.correct)


class Step:
    """One step for batches of one size: `index` in, `right` out."""

    def __init__(self, engine: Engine, work: Callable[[Step], None], size: int) -> None:
        self.engine, self.work = engine, work
        self.index = torch.zeros(size, dtype=torch.int64, device=engine.device)
        self.right = torch.zeros(size, dtype=torch.bool, device=engine.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, index: Tensor) -> None:
        self.index.copy_(index)
        if not self.engine.records:
            self.work(self)
            return
        if self.graph is None:
            self.graph = self._record()
        self.graph.replay()

    def rehearse(self) -> None:
        """A few steps that leave no trace: libraries set themselves up and kernels are compiled in the first ones."""
        changed = self.engine.changed()
        kept = [tensor.clone() for tensor in changed]
        for _ in range(WARM_UP):
            self.work(self)
        with torch.no_grad():
            for tensor, before in zip(changed, kept, strict=True):
                tensor.copy_(before)

    def _record(self) -> torch.cuda.CUDAGraph:
        """Recording runs nothing, so that every real step is a replay, in the first run as in all that follow."""
        drawn = torch.cuda.get_rng_state(self.engine.device)
        aside, here = torch.cuda.Stream(self.engine.device), torch.cuda.current_stream(self.engine.device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self.rehearse()
        here.wait_stream(aside)
        torch.cuda.set_rng_state(drawn, self.engine.device)
        graph = torch.cuda.CUDAGraph()
        # what other threads do with the device meanwhile is their own
        with torch.cuda.graph(graph, pool=self.engine.pool, capture_error_mode="thread_local"):
            self.work(self)
        self.engine.pool = graph.pool()  # steps take turns, and leave nothing there for each other
        return graph


class Engine:
    """For one run at a time: `begin` it, then pass over images. `acquire` gives one."""

    def __init__(self, task: Task, images: Images, device: torch.device, *, records: bool) -> None:
        self.device, self.images = device, images
        self.records = records and device.type == "cuda"
        self.bfloat16 = task.precision == "bfloat16"
        self.model = _model(task, 0).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = Sgd(self.model.parameters(), task.momentum, task.weight_decay)
        self.connections = NetworkConnections(self.model, self.optimizer)
        columns = images.images.shape[1:] if data.facts(task.data).standardise else None
        self.standard = torch.ones(2, *columns, device=device) if columns else None
        """What is subtracted from every sample, and what it is multiplied by; None where samples come as they should be."""
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.nonzero = torch.zeros(len(self.model.sites), dtype=torch.int64, device=device)
        self.pool: Any = None
        self.steps: dict[tuple[str, int, bool, tuple[int, ...]], Step] = {}
        """By kind, batch size, whether survivors are drawn, and which layers are masked. None is added after a run's first epoch and
        endpoints, unless it begins to mask a layer later."""

    def begin(self, task: Task, seed: int, train: np.ndarray) -> None:
        """Fresh weights, drawn on the CPU so that they are the same on every device, no momentum and all connections; samples are
        standardised by those at these places."""
        self.model.load_state_dict(_model(task, seed).state_dict())
        self.optimizer.reset()
        self.connections.reset()
        if self.standard is not None:
            seen = self.images.images[torch.from_numpy(train).to(self.device)].double()
            deviation = seen.std(0, correction=0)
            self.standard.copy_(torch.stack([seen.mean(0), 1 / torch.where(deviation > 0, deviation, 1)]))

    def changed(self) -> list[Tensor]:
        """All that a step may change."""
        buffers = [buffer for buffer in self.optimizer.buffers if buffer is not None]
        return [
            *self.model.parameters(),
            *self.model.buffers(),
            *buffers,
            self.loss,
            self.correct,
            self.nonzero,
        ]

    def train(
        self, order: np.ndarray, batch_size: int, ratio: float, survivors: int | None
    ) -> Iterator[int]:
        """A step for each batch of the images at these places; the number of each once it is under way. `totals` has their sums.

        The largest activations survive; or, from a seed, as many drawn at random.
        """
        self.model.train()
        self.model.count_nonzero(None)
        return self._steps("train", self._train_step, order, batch_size, ratio, survivors)

    def totals(self) -> tuple[Tensor, Tensor]:
        """Loss summed over images, and how many were right, in the pass that was made last; still on the device."""
        return self.loss.clone(), self.correct.clone()

    def evaluate(
        self, places: np.ndarray, ratio: float, survivors: int | None = None
    ) -> Callable[[], Scores]:
        """The network over the images at these places. The answer is what reads the scores, and waits for them."""
        self.model.eval()
        self.model.count_nonzero(self.nonzero)
        self.nonzero.zero_()
        right = torch.empty(len(places), dtype=torch.bool, device=self.device)
        for batch in self._steps(
            "evaluate", self._evaluation_step, places, EVALUATION_BATCH, ratio, survivors
        ):
            some = right[batch * EVALUATION_BATCH : (batch + 1) * EVALUATION_BATCH]
            some.copy_(
                self.steps["evaluate", len(some), survivors is not None, self.connections.masked].right
            )
        loss, nonzero = self.loss.clone(), self.nonzero.clone()

        @cache  # at r = 1 the pass at the epoch's ratio and the one at 1 are one, and both are asked
        def read() -> Scores:
            sizes = [site.size * len(places) for site in self.model.sites]
            rates = [count / size for count, size in zip(nonzero.tolist(), sizes, strict=True)]
            return Scores(loss.item() / len(places), right.cpu().numpy(), rates)

        return read

    def now(self) -> Any:
        """This moment of the device's work, for `between`."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, start: Any, end: Any) -> float:
        """Seconds from one moment to another; the device must have come so far."""
        return start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start

    def _steps(
        self,
        kind: str,
        work: Callable[[Step], None],
        places: np.ndarray,
        size: int,
        ratio: float,
        survivors: int | None,
    ) -> Iterator[int]:
        self.model.set_keep(ratio, at_random=survivors is not None)
        if survivors is not None:
            torch.manual_seed(survivors)  # a recorded step draws from the device's own generator alone
        self.loss.zero_()
        self.correct.zero_()
        for batch, index in enumerate(self._on_device(places).split(size)):
            key = kind, len(index), survivors is not None, self.connections.masked
            if key not in self.steps:
                self.steps[key] = Step(self, work, len(index))
            self.steps[key](index)
            yield batch

    def _on_device(self, places: np.ndarray) -> Tensor:
        indices = torch.from_numpy(places)
        # from pinned memory, because any other copy waits until the device has done all that came before
        return (
            indices.pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else indices
        )

    def _train_step(self, step: Step) -> None:
        labels = self.images.labels.index_select(0, step.index)
        logits = self._logits(step.index)
        loss = cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.loss += loss.detach() * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()

    @torch.no_grad()
    def _evaluation_step(self, step: Step) -> None:
        labels = self.images.labels.index_select(0, step.index)
        logits = self._logits(step.index)
        self.loss += cross_entropy(logits, labels, reduction="sum")
        step.right.copy_(logits.argmax(1) == labels)

    def _logits(self, index: Tensor) -> Tensor:
        samples = self.images.images.index_select(0, index)
        if self.standard is not None:
            samples = (samples - self.standard[0]) * self.standard[1]
        with self._precision():
            return self.model(samples.permute(0, 3, 1, 2)).float()

    def _precision(self) -> AbstractContextManager[Any]:
        # each weight is cast once in a step, so that there is nothing to remember, and a recorded step must not remember
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)


def _model(task: Task, seed: int) -> Network:
    facts = data.facts(task.data)
    return models.build(
        task, facts.image, facts.classes, randomness.generator(torch.device("cpu"), seed, "init")
    )


_idle: dict[tuple[Any, ...], Engine] = {}
"""The engine that was given back last. One, because its network and its recordings hold a good part of a GPU that may be shared."""


def acquire(
    user: object, task: Task, images: Images, device: torch.device, *, records: bool = True
) -> Engine:
    """An engine for this task until `user` is no more: the last one given back, if it fits, recordings and all."""
    network = (task.data, task.model, task.shortcut, task.dropout)
    key = (*network, task.precision, task.momentum, task.weight_decay, id(images), device, records)
    if key not in _idle:
        _collect(device)  # its last user may be gone in all but a cycle of references
    engine = _idle.pop(key, None)
    if engine is None:
        _idle.clear()  # before there is another
        _collect(device)
        engine = Engine(task, images, device, records=records)
    weakref.finalize(user, _give_back, key, engine).atexit = False
    return engine


def _collect(device: torch.device) -> None:
    """Collect garbage where the memory of an engine is scarce. On a CPU that would take longer than a small run."""
    if device.type != "cpu":
        gc.collect()


def _give_back(key: tuple[Any, ...], engine: Engine) -> None:
    _idle.clear()
    _idle[key] = engine
