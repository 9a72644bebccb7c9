"""`python -m trainer --from-stdin`: train the runs of a list. One line of JSON for each that is done."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.crew import Crew, Tally
from trainer.devices import NoDevice, choose
from trainer.exits import USAGE
from trainer.models import own
from trainer.orders import Order, read_orders
from trainer.plain import say
from trainer.settings import SpecError
from trainer.store import StoreError, open_store
from trainer.terminal import Terminal
from trainer.worker import Job

LINE_SECONDS = 10.0
"""The time between two lines of progress where stderr is not a terminal."""


class Display:
    """One bar for all runs on a terminal; elsewhere a line now and then."""

    def __init__(self, total: int) -> None:
        self.console = Terminal(stderr=True)
        self.last_line = time.monotonic()
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, redirect_stderr=False)
            self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Display:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, line: str) -> None:
        self.console.print(line)

    def show(self, tally: Tally, done: float) -> None:
        """Show how many runs are done, with the shares of those under way."""
        if self.bar:
            self.bar.update(self.task, description=str(tally), completed=done)
        elif time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.say(f"{tally}; with those under way {done:.1f}")


def train_many(options: argparse.Namespace) -> int:
    """Train the runs on the lines of stdin. Every line is checked before any training."""
    try:
        own.allow(options.allow_code)
        orders = read_orders(sys.stdin.buffer)
        device, store = choose(options.device), open_store(options.store)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SpecError as error:
        say("\n".join(f"stdin: {problem}" for problem in error.problems))
        return USAGE
    except (own.ModelError, NoDevice, StoreError) as error:
        say(f"--store: {error}" if isinstance(error, StoreError) else error)
        return USAGE
    if refused := {why for order in orders if (why := own.refusal(order.spec.task.model))}:
        say("\n".join(f"stdin: task.model  {why}" for why in sorted(refused)))
        return USAGE
    jobs = [_job(order, options, device) for order in orders]
    with Display(len(jobs)) as display:
        crew = Crew(jobs, store, options.workers, display.say, display.show)
        code = crew.work()
        display.say(f"{crew.tally}. {_next(code)}".rstrip())
    return code


def _job(order: Order, options: argparse.Namespace, device: str) -> Job:
    return Job(
        run_id=order.spec.run_id,
        spec=order.spec.to_json(),
        runs_url=options.store,
        data_dir=str(options.data_dir or "data"),
        device=device,
        threads=options.threads or max(1, len(os.sched_getaffinity(0)) // options.workers),
        commit_share=options.commit_share,
        keep_weights=options.keep_weights or order.keep_weights,
        allowed=own.allowed(),
    )


def _next(code: int) -> str:
    """What to do after a signal."""
    return "Stopped; the same lines again go on from what is kept." if code > 128 else ""
