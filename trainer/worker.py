"""One attempt at a run, in steps of a few seconds. It reports plain values and never raises.

It knows nothing of who handed the run out: a sweep on a cluster, or a list of runs.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.claims import Claimed
from trainer.data import DataError
from trainer.decoded import folder_of
from trainer.models import own
from trainer.reports import Began, Busy, Ended, Failed, Progress, Report
from trainer.rows import EpochRow, read_table
from trainer.run_folder import DamagedRun, Outcome, RunFolder, Superseded
from trainer.spec import RunSpec
from trainer.store import StoreError, open_store

STEP_SECONDS = 2.0
"""The time from one report to the next."""
LOG_LINES = 20
"""The number of lines of a failed attempt's log in its report."""
IMPORTS = ("trainer.attempt", "trainer.placed", "trainer.training")
"""The modules that an attempt imports when it begins. They import torch, which takes seconds."""


@dataclass(frozen=True)
class Job:
    """The work that a worker is given, in plain values."""

    run_id: str
    spec: str
    """The run's spec as JSON."""
    runs_url: str
    """The folder or URL of all run folders."""
    data_dir: str
    device: str
    threads: int
    commit_share: float
    keep_weights: bool
    hosted: bool = False
    """Whether it is trained in a host together with other runs, if its node has no better way."""
    allowed: list[str] = field(default_factory=list[str])
    """The packages whose code the run may use."""
    lease: int = 0
    """The number of the driver's lease. What was begun under it, or under an earlier one, is lost."""
    store_url: str = ""
    """The store in which `runs_url` lies: no link below it is followed. Empty where it is one itself."""
    silent: str = ""
    """The stamp of a claim on the run that gave no sign of life, and is taken over."""


class Worker:
    """The work on one attempt. Call `step` until its report says that the attempt ended or failed."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.attempt: Any = None
        self._messages: list[str] = []
        self._work: Iterator[Report] | None = None

    def step(self) -> Report:
        """Work for some seconds and report. The first report comes at once, before any work."""
        if self._work is None:
            self._work = self._train()
            return Began(run_id=self.job.run_id, messages=self._new_messages(), pid=os.getpid())
        try:
            return next(self._work)
        except (DataError, StoreError) as error:
            return self._failed(str(error), machine=True)
        except DamagedRun as error:
            return self._failed(str(error), damaged=True)
        except own.ModelError as error:
            return self._failed(str(error), trace=error.trace)
        except Superseded as error:
            return self._failed(str(error), blame=False)
        except Claimed as error:
            messages, claim = self._new_messages(), error.claim
            return Busy(run_id=self.job.run_id, messages=messages, claim=str(claim), stamp=claim.stamp)
        except BaseException as error:
            # a report gives the reason, which a process that ends does not
            reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
            trace = traceback.format_exc().rstrip()
            return self._failed(reason, trace=trace, fatal=_gpu_is_lost(self.job.device))

    def stop(self) -> None:
        """Commit the last whole epoch, because the worker is ended before the attempt has ended."""
        if self.attempt and not self.attempt.outcome:
            # nobody would hear of an error any more, and the next attempt goes on from the last commit
            with suppress(StoreError, Superseded):
                self.attempt.commit()
                self.attempt.say("stopped; what was trained is kept")
                self.attempt.release()

    def result(self, folder: RunFolder, outcome: Outcome) -> Any:
        """What the last report gives of a finished run."""
        seconds = read_table(EpochRow, folder.table(outcome, "epochs"), ["seconds"])["seconds"]
        kind = type(outcome).__name__.lower()
        return {"outcome": kind, "epochs": outcome.epochs, "seconds": round(sum(seconds.to_pylist()), 3)}

    def _train(self) -> Iterator[Report]:
        import torch

        from trainer.attempt import Attempt
        from trainer.placed import images
        from trainer.training import Training

        job, spec = self.job, RunSpec.from_json(self.job.spec)
        own.allow(job.allowed)
        torch.set_num_threads(job.threads)
        device = torch.device(job.device)

        def train() -> Training:
            cache, say = folder_of(job.runs_url), self._messages.append
            placed = images(spec.task.data, Path(job.data_dir), device, cache, say)
            return Training(spec, device=device, images=placed)

        attempt = self.attempt = Attempt(
            open_store(job.runs_url, within=job.store_url or None),
            spec,
            train,
            show=self._messages.append,
            commit_share=job.commit_share,
            keep_weights=job.keep_weights,
            lease=job.lease,
            silent=job.silent,
        )
        if attempt.outcome:
            self._messages.append("finished before; nothing to train")
        reported = time.monotonic()
        row = None
        for step in attempt.steps():
            row = step or row
            if time.monotonic() - reported >= STEP_SECONDS:
                reported = time.monotonic()
                done = len(attempt.training.rows) + attempt.training.batch / attempt.training.batches
                loss = row.train_loss if row else None
                messages = self._new_messages()
                kept = attempt.kept_epochs
                yield Progress(run_id=job.run_id, messages=messages, epochs=done, loss=loss, kept=kept)
        assert attempt.outcome is not None
        if hasattr(attempt, "training"):
            # The attempt and its folder refer to each other. So without this line the next run would get the
            # engine only after garbage collection.
            del attempt.training
        messages = self._new_messages()
        result = self.result(attempt.folder, attempt.outcome)
        yield Ended(run_id=job.run_id, messages=messages, result=result)

    def _failed(
        self,
        reason: str,
        *,
        trace: str = "",
        damaged: bool = False,
        machine: bool = False,
        blame: bool = True,
        fatal: bool = False,
    ) -> Failed:
        log = self.attempt.log if self.attempt else self._messages
        log += [trace] if trace else []
        if self.attempt and not self.attempt.outcome:
            with suppress(StoreError):
                self.attempt.release()
        tail = "\n".join(log).splitlines()[-LOG_LINES:]
        return Failed(
            run_id=self.job.run_id,
            messages=self._new_messages(),
            reason=reason,
            log=tail,
            damaged=damaged,
            machine=machine,
            blame=blame,
            fatal=fatal,
        )

    def _new_messages(self) -> list[str]:
        """The messages since the last report."""
        messages = list(self._messages)
        self._messages.clear()
        return messages


def _gpu_is_lost(device: str) -> bool:
    """Whether this process cannot use its GPU any more. After a fault in a kernel every later call fails."""
    if device != "cuda":
        return False
    import torch

    try:
        # not the whole device: another run may be recording a step
        torch.cuda.current_stream().synchronize()
    except Exception:
        return True
    return False
