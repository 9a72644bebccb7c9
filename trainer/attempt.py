"""One attempt at a run: a Training, its folder, regular commits and a final outcome.

The caller iterates over the rows. The caller (the command line, an actor of a cluster) decides when to stop.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from trainer import process
from trainer.claims import Hold
from trainer.models import own
from trainer.options import COMMIT_SHARE
from trainer.rows import EndpointRow, EpochRow, to_parquet
from trainer.run_folder import Completed, Diverged, File, Outcome, RunFolder, Superseded
from trainer.spec import RunSpec
from trainer.store import Store, StoreError
from trainer.training import Training

LOG_LINES = 200


class Attempt:
    """One attempt at a run, which continues from the run's best commit.

    Its messages go to `show` and to the attempt's log.
    """

    def __init__(
        self,
        store: Store,
        spec: RunSpec,
        train: Callable[[], Training],
        *,
        show: Callable[[str], None],
        commit_share: float = COMMIT_SHARE,
        keep_weights: bool = False,
        lease: int = 0,
        silent: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start or continue the run. `train` makes the Training; it is not called for a finished run.

        Raises Claimed where somebody trains the run now. `lease` and `silent` are those of
        `RunFolder.next_attempt`.
        """
        self.show, self.commit_share, self.keep_weights, self.clock = show, commit_share, keep_weights, clock
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.folder = RunFolder(store, spec, self.say)
        self.uncommitted: dict[str, Any] | None = None
        self.breakable = False
        """Whether a signal handler may raise now: true in training, false while files are being written."""
        if self._is_finished():
            return
        # before the data are loaded; the claim itself comes after, so that a node without data makes none
        self.folder.next_attempt(lease, silent)
        training = train()
        environment = process.describe(training.device) | own.record(spec.task.model)
        number = self.folder.claim(environment, lease, silent)
        if number is None and self._is_finished():
            # by somebody else, while the data were being loaded
            return
        assert number
        self.training, self.number, self.kept_epochs = training, number, 0
        self._hold = Hold(store, spec.run_id, self.number)
        # whoever drops an attempt without a word must not seem to be at work on it
        weakref.finalize(self, self._hold.forget).atexit = False
        try:
            self._continue()
        except BaseException:
            with suppress(StoreError):
                self.release()
            raise

    def _is_finished(self) -> bool:
        """Whether the run has its outcome, which is taken over then."""
        self.outcome = self.folder.outcome()
        if self.outcome:
            self.folder.tidy(self.outcome)
        return bool(self.outcome)

    def _continue(self) -> None:
        """Take the training up where the best commit has it."""
        epochs = self.training.task.epochs
        if commit := self.folder.latest(self.training.load):
            self.kept_epochs = commit.epoch
            kept = f"epoch {commit.epoch} of {epochs}, kept by attempt {commit.attempt}"
            self.say(f"attempt {self.number} continues from {kept}")
        else:
            self.say(f"attempt {self.number} starts at epoch 1 of {epochs}")
        self._write_log()
        to_parquet(EpochRow, [])  # imports what tables need, which is not the cost of a commit
        self.committed_at, self.commit_cost = self.clock(), 0.0

    def __iter__(self) -> Iterator[EpochRow]:
        """The rows still to come. After the last one `outcome` is set."""
        return (row for row in self.steps() if row)

    def steps(self) -> Iterator[EpochRow | None]:
        """The rows still to come, and None after each batch, for callers that must act within an epoch."""
        if self.outcome:
            return
        steps = self.training.steps()
        while not self.training.done:
            row = self._next(steps)
            if row:
                self.uncommitted = self.training.state()
                if not self.training.done and self._is_due():
                    self.commit()
            yield row
        self._finish()

    def _next(self, steps: Iterator[EpochRow | None]) -> EpochRow | None:
        self.breakable = True
        try:
            return next(steps)
        finally:
            self.breakable = False

    def _is_due(self) -> bool:
        """Whether the last commit took less than `commit_share` of the time since it began.

        The first one is due at once: an attempt that is killed soon has brought its run forward then.
        """
        return self.commit_cost <= self.commit_share * (self.clock() - self.committed_at)

    def say(self, line: str) -> None:
        """Show a line to the user and add it to the log."""
        self._note(line)
        self.show(line)

    def _note(self, line: str) -> None:
        self.log.append(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}")

    def commit(self) -> None:
        """Commit the last complete epoch, unless it is committed. A later, incomplete epoch is dropped."""
        if self.uncommitted:
            self._commit(self.uncommitted)

    def release(self) -> None:
        """Write the log, and let another attempt begin at once."""
        try:
            self._write_log()
        finally:
            self._hold.release()

    def _write_log(self) -> None:
        self.folder.write_log(self.number, list(self.log))

    def _commit(self, state: dict[str, Any]) -> dict[str, File]:
        began_at = self.clock()
        rows, endpoints = self.training.rows[: len(state["rows"])], self.training.endpoints
        tables = {"epochs": to_parquet(EpochRow, rows)}
        if self.training.done:
            tables["endpoints"] = to_parquet(EndpointRow, endpoints)
        try:
            kept = self.folder.commit(self.number, state, tables)
        except Superseded as error:
            self._note(str(error))
            self._hold.stop()
            self._write_log()
            raise
        self._note(f"kept epoch {len(rows)}")
        self._write_log()
        self.uncommitted, self.kept_epochs = None, len(rows)
        self.committed_at, self.commit_cost = began_at, self.clock() - began_at
        return kept

    def _finish(self) -> None:
        """Write every file from the state, and the outcome last.

        So a run that was stopped after its last epoch is finished without training.
        """
        training = self.training
        files = self._commit(training.state())
        if not self.keep_weights:
            del files["checkpoint"]
        epochs = len(training.rows)
        if training.diverged:
            outcome: Outcome = Diverged(epochs, self.number, files)
        else:
            outcome = Completed(epochs, training.collapsed, self.number, files)
        self.say(f"{type(outcome).__name__.lower()} at epoch {epochs}")
        self._write_log()
        self._hold.stop()
        self.outcome = self.folder.finish(outcome)
