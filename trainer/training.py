"""Training of one run, epoch by epoch. It has no callback and no logger, and it writes no file.

Iterate over a Training to train, and stop iterating to stop. Random numbers depend only on (seed, stream,
epoch), so the `state()` after any epoch is enough to continue.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer import data, process, randomness
from trainer.engine import Images, Scores, place
from trainer.lending import acquire
from trainer.rows import EndpointRow, EpochRow, from_plain, plain, to_parquet
from trainer.spec import RunSpec
from trainer.techniques import ALL, Techniques

COLLAPSED_SHARE = 0.95
"""Share of ln(classes) from which a finite final training loss counts as that of a network that guesses."""


class Training:
    """A run on one device. `rows` holds every epoch so far. `endpoints` is filled after the last epoch."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        device: torch.device | str = "cpu",
        data_dir: Path | None = None,
        images: Images | None = None,
        techniques: Techniques = ALL,
    ) -> None:
        """Prepare the run before its first epoch.

        A process that trains many runs passes `images`, so that it loads the data only once.
        """
        process.prepare()
        self.spec, self.task = spec, spec.task
        self.device = torch.device(device)
        self.rows: list[EpochRow] = []
        self.endpoints: list[EndpointRow] = []
        self.batch = 0
        """Number of finished batches of the present epoch, for progress bars."""
        facts = data.facts(self.task.data)
        self.classes = facts.classes
        self.images = images or place(data.load(self.task.data, data_dir), self.device)
        self.split = data.split(self.task, spec.seed)
        self.policy = spec.policy.build(spec.seed)
        self.engine = acquire(self, self.task, self.images, self.device, techniques)
        self.engine.begin(self.task, spec.seed, self.split.train)
        self.model, self.optimizer, self.connections = (
            self.engine.model,
            self.engine.optimizer,
            self.engine.connections,
        )
        self.policy.begin(self.connections)

    @property
    def batches(self) -> int:
        """Number of batches in an epoch."""
        batches = len(self.split.train) / self.task.batch_size
        return math.floor(batches) if self.task.drop_last else math.ceil(batches)

    @property
    def diverged(self) -> bool:
        """Whether the last epoch's loss is not a number. This is a result and ends the run."""
        return bool(self.rows) and not math.isfinite(self.rows[-1].train_loss)

    @property
    def done(self) -> bool:
        return self.diverged or len(self.rows) == self.task.epochs

    @property
    def collapsed(self) -> bool:
        """Whether a finished run ended at chance."""
        return self.done and COLLAPSED_SHARE * math.log(self.classes) <= self.rows[-1].train_loss < math.inf

    def __iter__(self) -> Iterator[EpochRow]:
        return (row for row in self.steps() if row)

    def steps(self) -> Iterator[EpochRow | None]:
        """The rows, and None after each batch, for callers that must act within an epoch."""
        while not self.done:
            row = yield from self._epoch(len(self.rows) + 1)
            self.rows.append(row)
            yield row

    def state(self) -> dict[str, Any]:
        """A copy of the state in types that a checkpoint may hold. Further training does not change it."""
        return copy.deepcopy(
            {
                "run_id": self.spec.run_id,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "policy": self.policy.state(),
                "connections": self.connections.state(),
                "rows": [plain(row) for row in self.rows],
                "endpoints": [plain(row) for row in self.endpoints],
            }
        )

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state()`."""
        if state["run_id"] != self.spec.run_id:
            raise ValueError(
                f"the state is that of run {state['run_id']}, and this is run {self.spec.run_id}"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy.load(state["policy"])
        # older checkpoints have no entry for connections, because no policy moved them then
        self.connections.load(state.get("connections", {}))
        self.rows = [from_plain(EpochRow, row) for row in state["rows"]]
        self.endpoints = [from_plain(EndpointRow, row) for row in state["endpoints"]]
        self._refuse_strange_rows()

    def _refuse_strange_rows(self) -> None:
        """Raise ValueError where rows of a state cannot be those of this run, or could not be written."""
        epochs = [row.epoch for row in self.rows]
        if epochs != list(range(1, len(epochs) + 1)) or len(epochs) > self.task.epochs:
            raise ValueError("its rows are not those of the run's first epochs")
        if not 0 < self.policy.keep_ratio <= 1:
            raise ValueError("its keep ratio is none")
        to_parquet(EpochRow, self.rows)
        to_parquet(EndpointRow, self.endpoints)

    def _epoch(self, epoch: int) -> Generator[None, None, EpochRow]:
        """Train and evaluate one epoch.

        Results are read only after all of the epoch's work has been started, so that the host waits once.
        """
        start, began = time.perf_counter(), self.engine.now()
        ratio, columns = self.policy.keep_ratio, self.policy.before(self.connections)
        parameters = self.connections.parameters
        learning_rate = self.task.learning_rate
        if self.task.schedule == "cosine":
            learning_rate *= (1 + math.cos(math.pi * (epoch - 1) / self.task.epochs)) / 2
        yield from self._train(epoch, ratio, learning_rate)
        totals, trained = self.engine.totals(), self.engine.now()
        last = epoch == self.task.epochs
        evaluated = self._evaluate(epoch, ratio) if last or epoch % self.task.evaluate_every == 0 else None
        ends = self._endpoints() if last else []
        loss, accuracy = (total.item() / self._seen() for total in totals)
        self.policy.after_epoch(accuracy)
        finite = math.isfinite(loss)
        evaluation = evaluated() if evaluated and finite else dict.fromkeys(_EVALUATED)
        self.endpoints = [row for end in ends if finite and (row := end())]
        columns |= self.policy.after()
        if finite and not last:
            self.policy.rewire(self.connections)
        return EpochRow(
            run_id=self.spec.run_id,
            epoch=epoch,
            train_loss=loss,
            train_accuracy=accuracy,
            learning_rate=learning_rate,
            parameters=parameters,
            seconds=time.perf_counter() - start,
            images_per_second=self._seen() / self.engine.between(began, trained),
            ended_at=datetime.now(UTC),
            **evaluation,
            **columns,
        )

    def _seen(self) -> int:
        return min(len(self.split.train), self.batches * self.task.batch_size)

    def _train(self, epoch: int, ratio: float, learning_rate: float) -> Iterator[None]:
        """Train one epoch, yielding after each batch."""
        seed = self.spec.seed
        self.engine.generator.manual_seed(randomness.derive(seed, "torch", epoch))
        self.optimizer.set_rate(learning_rate)
        order = self.split.train[randomness.permutation(len(self.split.train), seed, "order", epoch)]
        for batch in self.engine.train(
            order[: self._seen()], self.task.batch_size, ratio, self._survivors("survivors", epoch)
        ):
            self.batch = batch
            yield
        self.batch = 0

    def _survivors(self, stream: str, epoch: int) -> int | None:
        return (
            randomness.derive(self.spec.seed, stream, epoch) if self.policy.survivors == "random" else None
        )

    def _evaluate(self, epoch: int, ratio: float) -> Callable[[], dict[str, Any]]:
        """Evaluate at the epoch's ratio with the policy's own survivors, and at r = 1.

        The returned function waits for the results and returns the row's evaluated columns.
        """
        test = self._pass("test", ratio, self._survivors("survivors-test", epoch))
        validation = self._pass("validation", ratio, self._survivors("survivors-validation", epoch))
        dense_test, dense_validation = (
            (test, validation) if ratio == 1 else (self._pass("test", 1.0), self._pass("validation", 1.0))
        )

        def read() -> dict[str, Any]:
            scores = test()
            assert scores is not None
            held_out, dense, dense_held_out = validation(), dense_test(), dense_validation()
            return {
                "nonzero_rate": float(np.mean(scores.nonzero_rates)),
                "nonzero_rate_by_site": scores.nonzero_rates,
                "test_accuracy": scores.accuracy,
                "test_loss": scores.loss,
                "dense_test_accuracy": dense and dense.accuracy,
                "validation_accuracy": held_out and held_out.accuracy,
                "dense_validation_accuracy": dense_held_out and dense_held_out.accuracy,
            }

        return read

    def _endpoints(self) -> list[Callable[[], EndpointRow | None]]:
        """Evaluate the final weights at every declared ratio. The largest survive, whatever the policy."""

        def end(split: str, ratio: float) -> Callable[[], EndpointRow | None]:
            scores = self._pass(split, ratio)

            def read() -> EndpointRow | None:
                found = scores()
                return found and EndpointRow(
                    run_id=self.spec.run_id,
                    split=split,
                    keep_ratio=ratio,
                    images=len(found.correct),
                    accuracy=found.accuracy,
                    loss=found.loss,
                    correct=np.packbits(found.correct).tobytes(),
                )

            return read

        return [end(split, ratio) for split in ("test", "validation") for ratio in self.task.endpoints]

    def _pass(self, split: str, ratio: float, survivors: int | None = None) -> Callable[[], Scores | None]:
        """Evaluate a split. The returned function gives the scores, or None if the split is empty."""
        # a benchmark may pass fewer images than the data set has
        test = self.split.test[self.split.test < len(self.images.labels)]
        places = test if split == "test" else self.split.validation
        return self.engine.evaluate(places, ratio, survivors) if len(places) else lambda: None


_EVALUATED = (
    "nonzero_rate",
    "nonzero_rate_by_site",
    "test_accuracy",
    "test_loss",
    "dense_test_accuracy",
    "validation_accuracy",
    "dense_validation_accuracy",
)
