"""The network and optimizer of a task on one device. Runs of the same task reuse them, one after the other.

The host waits for the device only when somebody reads a result.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trainer import data, models, randomness
from trainer.connections import NetworkConnections
from trainer.models.sites import Network
from trainer.ops.reference import Reduction
from trainer.sgd import Sgd
from trainer.spec import Task
from trainer.step import Recorder, Step
from trainer.techniques import Techniques

EVALUATION_BATCH = 1000
GPU_EVALUATION_BATCH = 2112
"""Sixteen images for each of the 132 multiprocessors of an H100 or H200. A pass over 10,000 images took
71 ms of an H200 with 528 at once, 66 with 1,000 and 61 with these."""
ALIGNED = 8
"""Channels that suit the convolutions of a GPU in bfloat16."""


@dataclass(frozen=True, eq=False)
class Images:
    """A data set on the device. The training images come first, then the test images.

    Images are (N, H, W, C) in memory, so that a gathered batch is channels_last without a copy.
    """

    images: Tensor
    labels: Tensor
    train: int
    """Number of training images."""


def place(arrays: data.Arrays, device: torch.device) -> Images:
    """Copy a data set to the device. A process does this once for all its runs."""
    images = np.concatenate([arrays.train_images, arrays.test_images]).transpose(0, 2, 3, 1)
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    return Images(
        torch.from_numpy(np.ascontiguousarray(images)).to(device),
        torch.from_numpy(labels).to(device),
        len(arrays.train_labels),
    )


@dataclass(frozen=True)
class Scores:
    """Result of one evaluation: the mean loss, correctness per image and nonzero rate per site."""

    loss: float
    correct: np.ndarray
    nonzero_rates: list[float]

    @property
    def accuracy(self) -> float:
        return int(self.correct.sum()) / len(self.correct)


class Engine:
    """Network, optimizer and steps for one run at a time. `lending` has them; `begin` starts a run."""

    def __init__(self, task: Task, images: Images, device: torch.device, techniques: Techniques) -> None:
        self.device, self.images = device, images
        self.generator = torch.Generator(device)
        """The source of all random numbers in a step. The global one belongs to all runs of a process."""
        self.bfloat16 = task.precision == "bfloat16"
        model = _model(task, 0).to(device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = _with_copies(self.model) if techniques.copies and self.bfloat16 else self.model
        """The network that steps go through: the model, or one that has copies of its weights."""
        self.network.draw_from(self.generator)
        self.network.speed_up(techniques, task.batch_size)
        leaves = self.network.parameters()
        self.optimizer = Sgd(self.model.parameters(), task.momentum, task.weight_decay, leaves)
        self.connections = NetworkConnections(self.model, self.optimizer)
        standardise, channels = data.facts(task.data).standardise, images.images.shape[-1]
        self.standard = torch.ones(2, channels, device=device) if standardise else None
        """Mean subtracted from each channel and factor applied to it; None if no scaling is needed."""
        waves = techniques.waves and device.type == "cuda"
        self.evaluation_batch = GPU_EVALUATION_BATCH if waves else EVALUATION_BATCH
        padded = techniques.padded and self.network.takes_padding and self.bfloat16
        self.padding = max(0, ALIGNED - images.images.shape[-1]) if padded and device.type == "cuda" else 0
        """Channels of zeros that images get."""
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.nonzero = torch.zeros(len(self.network.sites), dtype=torch.int64, device=device)
        records = techniques.graph and device.type == "cuda"
        buffers = [buffer for buffer in self.optimizer.buffers if buffer is not None]
        changed = [*self.model.parameters(), *self.network.buffers(), *self.optimizer.copies, *buffers]
        changed += [self.loss, self.correct, self.nonzero]
        self.recorder = Recorder(self.generator, changed, records=records)
        self.used_on: torch.cuda.Stream | None = None
        """The stream of the thread that trained the last run."""
        self.steps: dict[tuple[str, int, bool, tuple[int, ...]], Step] = {}
        """Steps by kind, batch size, whether survivors are drawn at random, and masked layers.

        No step is added after a run's first epoch and its endpoints, unless it masks another layer later.
        """

    def begin(self, task: Task, seed: int, train: np.ndarray) -> None:
        """Start a run: new weights, no momentum, all connections.

        Weights are drawn on the CPU, so that they are the same on every device. Where the data is
        standardised, mean and deviation are taken over the images with the indices `train`.
        """
        if self.device.type == "cuda":
            # a run that was stopped may have left work on the stream of another thread
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self.used_on or here)
            self.used_on = here
        self.model.load_state_dict(_model(task, seed).state_dict())
        self.optimizer.reset()
        self.connections.reset()
        if self.standard is not None:
            seen = self.images.images[torch.from_numpy(train).to(self.device)].flatten(0, 2).double()
            deviation = seen.std(0, correction=0)
            self.standard.copy_(torch.stack([seen.mean(0), 1 / torch.where(deviation > 0, deviation, 1)]))

    def train(
        self, order: np.ndarray, batch_size: int, ratio: float, survivors: int | None
    ) -> Iterator[int]:
        """Train on the images with the indices `order`, one step per batch. `totals` returns the sums.

        Yields each batch's number once its step has been started. The largest activations survive, or where
        `survivors` is a seed, as many drawn at random.
        """
        self.network.train()
        self.network.count_nonzero(None)
        return self._steps("train", self._train_step, order, batch_size, ratio, survivors)

    def totals(self) -> tuple[Tensor, Tensor]:
        """Summed loss and number of correct images of the last pass, as tensors on the device."""
        return self.loss.clone(), self.correct.clone()

    def evaluate(
        self, indices: np.ndarray, ratio: float, survivors: int | None = None
    ) -> Callable[[], Scores]:
        """Evaluate the images with these indices. The returned function waits for the scores."""
        self.network.eval()
        self.network.count_nonzero(self.nonzero)
        self.nonzero.zero_()
        right = torch.empty(len(indices), dtype=torch.bool, device=self.device)
        for batch in self._steps(
            "evaluate", self._evaluation_step, indices, self.evaluation_batch, ratio, survivors
        ):
            some = right[batch * self.evaluation_batch : (batch + 1) * self.evaluation_batch]
            some.copy_(
                self.steps["evaluate", len(some), survivors is not None, self.connections.masked].right
            )
        loss, nonzero = self.loss.clone(), self.nonzero.clone()

        @cache  # at r = 1 one pass serves for both the epoch's ratio and r = 1, and is read twice
        def read() -> Scores:
            sizes = [site.size * len(indices) for site in self.network.sites]
            rates = [count / size for count, size in zip(nonzero.tolist(), sizes, strict=True)]
            return Scores(loss.item() / len(indices), right.cpu().numpy(), rates)

        return read

    def now(self) -> Any:
        """The present point in the device's work, for `between`."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two results of `now`. The device must have finished its work up to `end`."""
        return start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start

    def _steps(
        self,
        kind: str,
        work: Callable[[Step], None],
        indices: np.ndarray,
        size: int,
        ratio: float,
        survivors: int | None,
    ) -> Iterator[int]:
        self.network.set_keep(ratio, at_random=survivors is not None)
        if survivors is not None:
            self.generator.manual_seed(survivors)
        self.optimizer.refresh()  # a policy, a checkpoint or a new run may have changed the weights
        self.loss.zero_()
        self.correct.zero_()
        for batch, index in enumerate(self._on_device(indices).split(size)):
            key = kind, len(index), survivors is not None, self.connections.masked
            if key not in self.steps:
                self.steps[key] = Step(work, len(index), self.recorder)
            self.steps[key](index)
            yield batch

    def _on_device(self, indices: np.ndarray) -> Tensor:
        host = torch.from_numpy(indices)
        # a copy from memory that is not pinned would wait for all earlier work of the device
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def _train_step(self, step: Step) -> None:
        loss, right = self._loss(step.index, "mean")
        loss.backward()
        self.network.add_gradients(len(right))
        self.connections.mask_gradients()
        self.optimizer.step()
        self.loss += loss.detach() * len(right)
        self.correct += right.sum()

    @torch.no_grad()
    def _evaluation_step(self, step: Step) -> None:
        loss, right = self._loss(step.index, "sum")
        self.loss += loss
        step.right.copy_(right)

    def _loss(self, index: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
        """The loss of some images, and whether each is classified right."""
        samples = self.images.images.index_select(0, index)
        if self.standard is not None:
            samples = (samples - self.standard[0]) * self.standard[1]
        if self.padding:
            samples = pad(samples.bfloat16(), (0, self.padding))
        labels = self.images.labels.index_select(0, index)
        with self._precision():
            return self.network.loss(samples.permute(0, 3, 1, 2), labels, reduction)

    def _precision(self) -> AbstractContextManager[Any]:
        # a recorded step must not have a cache of weights that were cast
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)


def _model(task: Task, seed: int) -> Network:
    facts = data.facts(task.data)
    return models.build(
        task, facts.image, facts.classes, randomness.generator(torch.device("cpu"), seed, "init")
    )


def _with_copies(model: Network) -> Network:
    """A network that shares a model's tensors, but has copies of the weights that bfloat16 casts."""
    network = copy.deepcopy(model)
    del network.layers  # they would be read in place of the copies, and are not trained
    casts = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    # by the parameter, because two modules may share one
    copies = {
        parameter: nn.Parameter(parameter.detach().bfloat16())
        for module in casts
        for parameter in module.parameters(recurse=False)
    }
    for name, module in model.named_modules():
        other = network.get_submodule(name)
        for key, parameter in module.named_parameters(recurse=False):
            setattr(other, key, copies.get(parameter, parameter))
        for key, buffer in module.named_buffers(recurse=False):
            setattr(other, key, buffer)
    return network
