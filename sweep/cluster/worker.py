"""One attempt at a run, worked on for a few seconds at a time. It reports in plain values and never raises; knows no cluster."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.ledger.results import result_of
from trainer.data import Data, DataError, load
from trainer.run_folder import DamagedRun, Superseded
from trainer.spec import RunSpec
from trainer.store import StoreError, open_store

STEP_SECONDS = 2.0
"""From one report to the next."""
LOG_LINES = 20
"""Of a failed attempt's log, in its report."""
IMPORTS = ("trainer.attempt", "trainer.engine", "trainer.training")
"""What an attempt imports when it begins; torch, which takes seconds, is behind them."""


@dataclass(frozen=True)
class Job:
    """What a worker is given."""

    run_id: str
    spec: str
    place: str
    data_dir: str
    device: str
    threads: int
    commit_seconds: float
    keep_weights: bool


_placed: dict[tuple[Data, str], Any] = {}
"""Data that this process has on its device; loaded once, for all its runs."""


class Worker:
    """Call `step` until its report says that the attempt ended."""

    def __init__(self, job: Job) -> None:
        self.job, self.said = job, list[str]()
        self.attempt: Any = None
        self._work: Iterator[dict[str, Any]] | None = None

    def step(self) -> dict[str, Any]:
        """Work for a while. The first report comes at once and says where this process is."""
        if self._work is None:
            self._work = self._train()
            return self._report("began", pid=os.getpid())
        try:
            return next(self._work)
        except (DataError, StoreError) as error:
            return self._failed(str(error), machine=True)
        except DamagedRun as error:
            return self._failed(str(error), damaged=True)
        except Superseded as error:
            return self._failed(str(error), blame=False)
        except (
            BaseException
        ) as error:  # whatever it is, the sweep hears of it from here, and not from a process that fell
            return self._failed(
                f"{type(error).__name__}: {str(error).strip() or 'no message'}",
                trace=traceback.format_exc().rstrip(),
            )

    def stop(self) -> None:
        """Keep the last whole epoch; for when the cluster takes the worker away before the attempt has ended."""
        if self.attempt and not self.attempt.outcome:
            with suppress(
                StoreError, Superseded
            ):  # nobody listens any more; the next attempt goes on from what is kept
                self.attempt.commit()
                self.attempt.say("stopped; what was trained is kept")
                self.attempt.close()

    def _train(self) -> Iterator[dict[str, Any]]:
        import torch

        from trainer.attempt import Attempt
        from trainer.engine import place
        from trainer.training import Training

        job, spec = self.job, RunSpec.from_json(self.job.spec)
        torch.set_num_threads(job.threads)
        device, data = torch.device(job.device), spec.task.data

        def train() -> Training:
            if (data, job.data_dir) not in _placed:
                _placed[data, job.data_dir] = place(load(data, Path(job.data_dir)), device)
            return Training(spec, device=device, images=_placed[data, job.data_dir])

        attempt = self.attempt = Attempt(
            open_store(job.place),
            spec,
            train,
            show=self.said.append,
            commit_seconds=job.commit_seconds,
            keep_weights=job.keep_weights,
        )
        reported = time.monotonic()
        row = None
        for step in attempt.steps():
            row = step or row
            if time.monotonic() - reported >= STEP_SECONDS:
                reported = time.monotonic()
                done = len(attempt.training.rows) + attempt.training.batch / attempt.training.batches
                yield self._report("training", epochs=done, loss=row.train_loss if row else None)
        assert attempt.outcome is not None
        if hasattr(attempt, "training"):
            # The attempt and its folder refer to each other. The next run would have to collect garbage to get the engine.
            del attempt.training
        yield self._report("ended", result=asdict(result_of(attempt.folder, attempt.outcome)))

    def _failed(
        self,
        reason: str,
        *,
        trace: str = "",
        damaged: bool = False,
        machine: bool = False,
        blame: bool = True,
    ) -> dict[str, Any]:
        log = self.attempt.log if self.attempt else self.said
        log += [trace] if trace else []
        if self.attempt and not self.attempt.outcome:
            with suppress(StoreError):
                self.attempt.close()
        tail = "\n".join(log).splitlines()[-LOG_LINES:]
        return self._report("failed", reason=reason, log=tail, damaged=damaged, machine=machine, blame=blame)

    def _report(self, state: str, **more: Any) -> dict[str, Any]:
        said, self.said = self.said, []
        return {"run_id": self.job.run_id, "state": state, "said": said, **more}
