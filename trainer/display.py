"""The progress of one run on stderr: a bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.rows import EpochRow
from trainer.terminal import Terminal

if TYPE_CHECKING:
    from trainer.attempt import Attempt

QUIET_SECONDS, LONG_SECONDS = 10.0, 60.0
"""Seconds between two lines where stderr is not a terminal: between epochs, and within a long epoch."""


class Display:
    """A progress bar on a terminal. Elsewhere a line now and then, also within a long epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.console = Terminal(stderr=True)
        self.attempt: Attempt | None = None
        self.last_line = -QUIET_SECONDS
        self.progress = _Bar(self) if self.console.is_terminal else None
        self.closed = threading.Event()
        if self.progress:
            self.progress.start()
        else:
            threading.Thread(target=self._sign_of_life, daemon=True).start()

    def say(self, line: str) -> None:
        self.console.print(line)

    def row(self, row: EpochRow) -> None:
        shares = {
            "train": row.train_accuracy,
            "test": row.test_accuracy,
            "at r = 1": row.dense_test_accuracy,
        }
        parts = [] if row.keep_ratio is None else [f"r {row.keep_ratio:.3g}"]
        parts += (
            []
            if row.connections is None
            else [f"{row.connections:,} connections", f"{row.active_neurons:,} neurons"]
        )
        parts += [f"loss {row.train_loss:.4f}"]
        parts += [f"{name} {share:.2%}" for name, share in shares.items() if share is not None]
        text = f"epoch {row.epoch}/{self.epochs}  {'  '.join(parts)}"
        if self.progress:
            self.progress.update(self.progress.task, description=text, completed=row.epoch)
        elif time.monotonic() - self.last_line >= QUIET_SECONDS or row.epoch == self.epochs:
            self.last_line = time.monotonic()
            self.say(text)

    def _sign_of_life(self) -> None:
        while not self.closed.wait(LONG_SECONDS):
            attempt = self.attempt
            if attempt and not attempt.outcome and time.monotonic() - self.last_line >= LONG_SECONDS:
                training = attempt.training
                batch = f"batch {training.batch + 1}/{training.batches}"
                self.say(f"epoch {len(training.rows) + 1}/{self.epochs}  {batch}")

    def close(self) -> None:
        self.closed.set()
        if self.progress:
            self.progress.stop()


class _Bar(Progress):
    """A progress bar that reads the training's progress each time it is drawn.

    So the bar moves within a long epoch, and the training needs no reference to it.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        # rich prints rows above the bar where both are on one terminal; any other stdout must stay untouched
        shared = sys.stdout.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=display.console, redirect_stdout=shared, redirect_stderr=False)
        self.task = self.add_task("loading", total=display.epochs)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.display.attempt and not self.display.attempt.outcome:
            training = self.display.attempt.training
            self.update(self.task, completed=len(training.rows) + training.batch / training.batches)
        return super().get_renderables()
