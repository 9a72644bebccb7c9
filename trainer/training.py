"""One run, epoch by epoch: iterate over a Training to train; stop iterating to stop. No callback, no logger, no file.

Everything drawn at random is addressed by (seed, stream, epoch), so `state()` after any epoch is all there is to continue from.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer import data, models, process, randomness
from trainer.rows import EndpointRow, EpochRow, from_plain, plain
from trainer.sgd import Sgd
from trainer.spec import RunSpec

EVALUATION_BATCH = 1000
COLLAPSED_SHARE = 0.95
"""A finite final training loss of at least this share of ln(classes) is that of a network that guesses."""


@dataclass(frozen=True)
class Images:
    """Whole sets on the device; images lie as (N, H, W, C) in memory, so that a gathered batch is channels_last without a copy."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def place(arrays: data.Arrays, device: torch.device) -> Images:
    """Bring a data set to the device once, for all the runs of a process."""

    def images(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 2, 3, 1))).to(device)

    def labels(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Images(images(arrays.train_images), labels(arrays.train_labels), images(arrays.test_images), labels(arrays.test_labels))


@dataclass(frozen=True)
class Scores:
    """One pass over a set: per image whether it was right, and per site the share of activations that are not zero."""

    loss: float
    correct: np.ndarray
    nonzero_rates: list[float]

    @property
    def accuracy(self) -> float:
        return int(self.correct.sum()) / len(self.correct)


class Training:
    """A run on one device. `rows` holds every epoch so far; `endpoints` is filled after the last one."""

    def __init__(
        self, spec: RunSpec, *, device: torch.device | str = "cpu", data_dir: Path | None = None, images: Images | None = None
    ) -> None:
        process.prepare()
        self.spec, self.task = spec, spec.task
        self.device = torch.device(device)
        self.rows: list[EpochRow] = []
        self.endpoints: list[EndpointRow] = []
        self.batch = 0
        """Batches of the present epoch that are done: for whoever draws a progress bar."""
        facts = data.DATASETS[self.task.data]
        self.classes = facts.classes
        self.images = images or place(data.load(self.task.data, data_dir), self.device)
        self.split = data.split(self.task, spec.seed)
        self.policy = spec.policy.build(spec.seed)
        randomness.seed_everything(spec.seed)
        start = randomness.generator(torch.device("cpu"), spec.seed, "init")  # on the CPU: the same weights on every device
        self.model = models.build(self.task, facts.image, facts.classes, start)
        self.model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = Sgd(self.model.parameters(), self.task.learning_rate, self.task.momentum, self.task.weight_decay)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        whole = len(self.split.train) / self.task.batch_size
        return math.floor(whole) if self.task.drop_last else math.ceil(whole)

    @property
    def diverged(self) -> bool:
        """Whether the last epoch's loss is not a number: a result, and the end of the run."""
        return bool(self.rows) and not math.isfinite(self.rows[-1].train_loss)

    @property
    def done(self) -> bool:
        return self.diverged or len(self.rows) == self.task.epochs

    @property
    def collapsed(self) -> bool:
        """Whether a run that is done ended at chance."""
        return self.done and COLLAPSED_SHARE * math.log(self.classes) <= self.rows[-1].train_loss < math.inf

    def __iter__(self) -> Iterator[EpochRow]:
        return (row for row in self.steps() if row)

    def steps(self) -> Iterator[EpochRow | None]:
        """The rows, with None after every batch between them, for those who must look up more often than once an epoch."""
        while not self.done:
            row = yield from self._epoch(len(self.rows) + 1)
            self.rows.append(row)
            yield row

    def state(self) -> dict[str, Any]:
        """A copy of all there is, in types that a checkpoint may hold; training on does not change it."""
        return copy.deepcopy(
            {
                "run_id": self.spec.run_id,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "policy": self.policy.state(),
                "rows": [plain(row) for row in self.rows],
                "endpoints": [plain(row) for row in self.endpoints],
            }
        )

    def load(self, state: dict[str, Any]) -> None:
        """Become the training that `state()` was taken from."""
        if state["run_id"] != self.spec.run_id:
            raise ValueError(f"the state is that of run {state['run_id']}, and this is run {self.spec.run_id}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy.load(state["policy"])
        self.rows = [from_plain(EpochRow, row) for row in state["rows"]]
        self.endpoints = [from_plain(EndpointRow, row) for row in state["endpoints"]]

    def _epoch(self, epoch: int) -> Generator[None, None, EpochRow]:
        start = time.perf_counter()
        ratio = self.policy.keep_ratio
        learning_rate = self.task.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / self.task.epochs)) / 2
        loss, accuracy = yield from self._train(epoch, ratio, learning_rate)
        trained = time.perf_counter()
        self.policy.after_epoch(accuracy)
        evaluation: dict[str, Any] = dict.fromkeys(_EVALUATED)
        last = epoch == self.task.epochs
        if math.isfinite(loss) and (last or epoch % self.task.evaluate_every == 0):
            evaluation = self._evaluate(epoch, ratio)
            if last:
                self.endpoints = self._endpoints()
        ended = time.perf_counter()
        return EpochRow(
            run_id=self.spec.run_id,
            epoch=epoch,
            keep_ratio=ratio,
            train_loss=loss,
            train_accuracy=accuracy,
            smoothed_train_accuracy=self.policy.smoothed,
            learning_rate=learning_rate,
            reset=self.policy.reset,
            cycle=self.policy.cycle,
            seconds=ended - start,
            images_per_second=self._seen() / (trained - start),
            ended_at=datetime.now(UTC),
            **evaluation,
        )

    def _seen(self) -> int:
        return min(len(self.split.train), self.batches * self.task.batch_size)

    def _train(self, epoch: int, ratio: float, learning_rate: float) -> Generator[None, None, tuple[float, float]]:
        """Mean loss and accuracy over the epoch's batches. The host waits for the device once, at the end."""
        seed = self.spec.seed
        randomness.seed_everything(seed, epoch)
        draws = self.policy.survivors == "random"
        self.model.set_keep(ratio, randomness.generator(self.device, seed, "survivors", epoch) if draws else None)
        self.model.train()
        self.optimizer.learning_rate = learning_rate
        order = self.split.train[randomness.permutation(len(self.split.train), seed, "order", epoch)]
        indices = torch.from_numpy(order[: self._seen()]).to(self.device)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for batch, index in enumerate(indices.split(self.task.batch_size)):
            self.batch = batch
            labels = self.images.train_labels[index]
            logits = self._logits(self.images.train.index_select(0, index))
            loss = cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.detach() * len(index)
            correct += (logits.argmax(1) == labels).sum()
            yield
        self.batch = 0
        return loss_sum.item() / self._seen(), correct.item() / self._seen()

    def _logits(self, images: Tensor) -> Tensor:
        with self._precision():
            return self.model(images.permute(0, 3, 1, 2)).float()

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.task.precision == "bfloat16")

    def _evaluate(self, epoch: int, ratio: float) -> dict[str, Any]:
        """The row's evaluated columns: at the epoch's ratio with the policy's own survivors, and at r = 1."""
        draws = self.policy.survivors == "random"

        def at_ratio(split: str) -> Scores | None:
            generator = randomness.generator(self.device, self.spec.seed, f"survivors-{split}", epoch) if draws else None
            return self._pass(split, ratio, generator)

        test, validation = at_ratio("test"), at_ratio("validation")
        assert test is not None
        dense_test, dense_validation = (test, validation) if ratio == 1 else (self._pass("test", 1.0), self._pass("validation", 1.0))
        return {
            "nonzero_rate": float(np.mean(test.nonzero_rates)),
            "nonzero_rate_by_site": test.nonzero_rates,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
            "dense_test_accuracy": dense_test and dense_test.accuracy,
            "validation_accuracy": validation and validation.accuracy,
            "dense_validation_accuracy": dense_validation and dense_validation.accuracy,
        }

    def _endpoints(self) -> list[EndpointRow]:
        """The final weights at every declared ratio, the same network function for every policy: the largest survive."""
        return [
            EndpointRow(
                run_id=self.spec.run_id,
                split=split,
                keep_ratio=ratio,
                images=len(scores.correct),
                accuracy=scores.accuracy,
                loss=scores.loss,
                correct=np.packbits(scores.correct).tobytes(),
            )
            for split in ("test", "validation")
            for ratio in self.task.endpoints
            if (scores := self._pass(split, ratio))
        ]

    @torch.inference_mode()
    def _pass(self, split: str, ratio: float, generator: torch.Generator | None = None) -> Scores | None:
        """The network over a whole set; None where the set is empty."""
        if split == "test":
            images, labels = self.images.test, self.images.test_labels
        else:
            held_out = torch.from_numpy(self.split.validation).to(self.device)
            images, labels = self.images.train[held_out], self.images.train_labels[held_out]
        if not len(labels):
            return None
        self.model.eval()
        self.model.set_keep(ratio, generator)
        self.model.count_nonzero(self.device)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct: list[Tensor] = []
        for some, answers in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
            logits = self._logits(some)
            loss_sum += cross_entropy(logits, answers, reduction="sum")
            correct.append(logits.argmax(1) == answers)
        counts = [site.nonzero for site in self.model.sites]
        self.model.count_nonzero(None)
        rates = [int(n) / (site.size * len(labels)) for n, site in zip(counts, self.model.sites, strict=True) if n is not None]
        return Scores(loss_sum.item() / len(labels), torch.cat(correct).cpu().numpy(), rates)


_EVALUATED = (
    "nonzero_rate",
    "nonzero_rate_by_site",
    "test_accuracy",
    "test_loss",
    "dense_test_accuracy",
    "validation_accuracy",
    "dense_validation_accuracy",
)
