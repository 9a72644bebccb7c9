"""A process of a crew: it trains the jobs that it is sent, on one seat or on several at once."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection

from trainer.reports import Busy, Ended, Failed, Report
from trainer.stopping import SIGNALS
from trainer.worker import IMPORTS, Worker


def serve(pipes: list[Connection]) -> None:
    """Train the jobs that come through each pipe, one after another, until it is closed or gives None."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # before there are threads: torch cannot be imported by several at once
    for module in IMPORTS:
        import_module(module)
    from trainer.lending import keep_idle

    keep_idle(len(pipes))
    threads = [threading.Thread(target=_sit, args=[pipe]) for pipe in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _sit(pipe: Connection) -> None:
    with suppress(EOFError, OSError), pipe:
        while job := pipe.recv():
            if job.device == "cuda":
                from trainer import streams

                streams.leave_default(threading.current_thread())
            report = _train(Worker(job), pipe)
            if report is None:
                return
            pipe.send(report)
            if isinstance(report, Failed) and report.fatal:
                # the GPU takes no more work of this process
                os._exit(1)


def _train(worker: Worker, pipe: Connection) -> Report | None:
    """Work on a run to its last report. None where it was stopped: something came, or nobody listens."""
    report = worker.step()
    while not isinstance(report, Busy | Ended | Failed):
        try:
            pipe.send(report)
            is_over = pipe.poll()
        except OSError:
            is_over = True
        if is_over:
            worker.stop()
            return None
        report = worker.step()
    return report
