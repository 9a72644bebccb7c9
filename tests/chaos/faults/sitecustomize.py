"""Policies that go wrong, processes that die at a chosen point, and clocks that jump.

Python imports this file in every process of a sweep that has this folder on its PYTHONPATH.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

if clock := os.environ.get("WALL_CLOCK"):
    # The wall clock of our modules, and `time.time` of every module, are wrong by as many seconds as stand
    # in this file, which may change at any time. Others keep the class `datetime`: compiled modules crash
    # with another one. This comes before our modules are imported.
    right_time, execute = time.time, SourceFileLoader.exec_module

    def wrong_by() -> float:
        return float(Path(clock or "").read_text())

    class WrongDatetime(datetime):
        """Makes ordinary datetimes, so that everybody can use them."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=wrong_by())

    def execute_with_wrong_clock(self: SourceFileLoader, module: ModuleType) -> None:
        execute(self, module)
        ours = module.__name__.startswith(("sweep.", "trainer."))
        if ours and "datetime.now(" in Path(self.path).read_text():
            setattr(module, "datetime", WrongDatetime)  # noqa: B010

    SourceFileLoader.exec_module = execute_with_wrong_clock
    time.time = lambda: right_time() + wrong_by()

from trainer import claims

# these two come before any module that takes the names from `claims`
if host := os.environ.get("PRETENDED_HOST"):
    # a machine elsewhere: it cannot ask whether a process of this one lives
    here = claims.this_process
    claims.this_process = lambda: {**here(), "host": host}

if seconds := os.environ.get("SILENT_SECONDS"):
    claims.SILENT_SECONDS = float(seconds)

from trainer.data import DataError
from trainer.policies import POLICIES
from trainer.policies.keep_ratio import KeepRatioPolicy


@dataclass
class Faulty(KeepRatioPolicy):
    """A dense policy that goes wrong after its second epoch."""

    how: str = field(kw_only=True)

    def _move(self, train_accuracy: float) -> None:
        if self.how == "homeless":
            seen = Path(os.environ["HOMELESS"])
            if os.environ.get("NODE_ROLE") == "bad":
                seen.touch()
                raise DataError("the data is not on this node")
            while not seen.exists():  # or a good node would do all the work before the bad one is up
                time.sleep(0.1)
        if self.epoch < 2:
            return
        match self.how:
            case "raises":
                raise RuntimeError("no such luck")
            case "hangs":
                time.sleep(1e6)
            case "killed":  # what the kernel does to a process that takes too much memory
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                import torch

                torch.empty(2**60)
            case _:
                pass


POLICIES["faulty"] = Faulty

if seconds := os.environ.get("EPOCH_SECONDS"):
    # every epoch takes longer, so that something can happen to it
    longer, after_epoch = float(seconds), KeepRatioPolicy.after_epoch

    def after_longer_epoch(self: KeepRatioPolicy, train_accuracy: float) -> None:
        time.sleep(longer)
        after_epoch(self, train_accuracy)

    KeepRatioPolicy.after_epoch = after_longer_epoch

if seconds := os.environ.get("FATE_SECONDS"):
    # it is known sooner that a node lives
    from sweep.planning import queue

    queue.FATE_SECONDS = float(seconds)

if folder := os.environ.get("DIE_ONCE"):
    # the first process that comes to either place leaves a flag of the place's name in this folder, and dies
    flags = Path(folder)

    def die(place: str) -> None:
        try:
            (flags / place).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    from sweep.cluster.worker import Worker
    from trainer.reports import Report

    set_up, step = Worker.__init__, Worker.step
    made: list[int] = []

    def die_in_reset(self: Worker, *arguments: Any) -> None:
        made.append(1)
        if len(made) == 3:  # set up for a third run, so in reset_config
            die("reset")
        set_up(self, *arguments)

    def die_when_idle(self: Worker) -> Report:
        report = step(self)
        if report.state == "ended":
            threading.Timer(
                0.002, die, ["idle"]
            ).start()  # after the answer was given, before the next question
        return report

    # a plain assignment is an error to the type checker
    setattr(Worker, "__init__", die_in_reset)  # noqa: B010
    Worker.step = die_when_idle

if folder := os.environ.get("OUT_OF_MEMORY"):
    # A share of all attempts is killed in its first half second, as the kernel's OOM killer does. The
    # folder gets a file for each attempt and each kill; its name is the seed of the draws.
    from sweep.cluster import worker

    attempts, share = Path(folder), float(os.environ["OUT_OF_MEMORY_SHARE"])
    begin, work_on = worker.Worker.__init__, worker.Worker.step

    def begin_and_draw(self: Any, job: Any) -> None:
        begin(self, job)
        number = len(list(attempts.glob(f"{job.run_id}-*.begun"))) + 1
        (attempts / f"{job.run_id}-{number}.begun").touch(exist_ok=False)

        def kill() -> None:
            (attempts / f"{job.run_id}-{number}.killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)

        draw = random.Random(f"{attempts.name} {job.run_id} {number}")
        self.killer = threading.Timer(draw.uniform(0, 0.5), kill)
        if draw.random() < share:
            self.killer.start()

    def work_until_killed(self: Any) -> Any:
        report = work_on(self)
        if report.state in ("ended", "busy", "failed"):
            self.killer.cancel()
        return report

    setattr(worker.Worker, "__init__", begin_and_draw)  # noqa: B010
    setattr(worker.Worker, "step", work_until_killed)  # noqa: B010

if os.environ.get("PRETENDED_GPUS"):
    # Ray was told of GPUs that are not there: nobody looks for them, and runs are trained on the CPU
    from sweep.cluster import preflight
    from trainer.worker import Job

    make: Any = Job.__init__

    def on_the_cpu(self: Job, **values: Any) -> None:
        make(self, **{**values, "device": "cpu"})

    setattr(Job, "__init__", on_the_cpu)  # noqa: B010
    ask = preflight.probe

    def ask_for_no_gpu(*question: Any) -> dict[str, Any]:
        store, data, data_dir, _, note, packages = question
        return ask(store, data, data_dir, 0.0, note, packages)

    preflight.probe = ask_for_no_gpu

if elsewhere := os.environ.get("OTHER_CODE"):
    # a node on which something else comes before what a sweep brings along
    import sys

    sys.path.insert(0, elsewhere)
