"""The command that trains one run, `python -m trainer RUN.json --store DIR`, or many, `--from-stdin`.

Rows and results go to stdout as JSON; everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
import traceback
from types import FrameType
from typing import TYPE_CHECKING

from trainer import stopping
from trainer.claims import SILENT_SECONDS, Claimed, Watch
from trainer.data import DataError
from trainer.decoded import folder_of
from trainer.devices import NoDevice, choose
from trainer.display import Display
from trainer.exits import DONE, FAILED, INFRASTRUCTURE, USAGE
from trainer.many import train_many
from trainer.models import own
from trainer.options import options_parser
from trainer.orders import Order
from trainer.plain import say
from trainer.rows import EpochRow, from_parquet, json_ready
from trainer.run_folder import Completed, DamagedRun, Diverged, Superseded
from trainer.settings import SpecError
from trainer.store import Store, StoreError, open_store, read_file

if TYPE_CHECKING:
    from trainer.attempt import Attempt


LARGEST_RUN = 256 * 1024
"""The most bytes of a RUN.json."""


class Stopped(BaseException):
    """A signal asked the process to stop. It is not an Exception, so no handler of errors catches it."""


class Signals:
    """Handlers of SIGINT, SIGTERM and SIGHUP.

    The first signal stops training and keeps the last complete epoch. The second ends the process at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.attempt: Attempt | None = None
        self.terminals = stopping.terminals()
        stopping.catch(self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for order in stopping.ORDERS:
            signal.signal(order, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stopping.forget_closed(self.terminals)
        if self.attempt is None or self.attempt.breakable:
            raise Stopped

    def check(self) -> None:
        """Raise Stopped if a signal came while files were being written."""
        if self.received:
            raise Stopped


def main(arguments: list[str] | None = None) -> int:
    """Train one run, continue it, or print a finished run's rows; or train many. Returns the exit code."""
    parser = options_parser()
    options = parser.parse_args(arguments)
    if (options.run is None) != options.from_stdin:
        parser.error("give either RUN.json or --from-stdin")
    if options.from_stdin:
        return train_many(options)
    signals = Signals()
    try:
        order = Order.from_json(read_file(options.run, LARGEST_RUN).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        say(f"{options.run}: cannot be read: {reason}.")
        return USAGE
    except SpecError as error:
        say("\n".join(f"{options.run}: {problem}" for problem in error.problems))
        return USAGE
    try:
        own.allow(options.allow_code)
    except own.ModelError as error:
        say(error)
        return USAGE
    if why := own.refusal(order.spec.task.model):
        say(f"{options.run}: task.model  {why}")
        return USAGE
    display = Display(order.spec.task.epochs)
    try:
        try:
            return _train(options, order, signals, display)
        except Stopped:
            return _stopped(signals, display)
    except (DataError, StoreError, DamagedRun, Superseded, Claimed) as error:
        display.say(str(error))
        if isinstance(error, StoreError):
            display.say(_continue())
        return INFRASTRUCTURE
    except own.ModelError as error:
        display.say("\n".join(filter(None, [error.trace, f"{options.run}: task.model  {error}"])))
        return USAGE
    finally:
        display.close()


def _train(options: argparse.Namespace, order: Order, signals: Signals, display: Display) -> int:
    # importing torch takes seconds; a bad spec is reported before that
    import torch

    spec = order.spec
    try:
        device, store = choose(options.device), open_store(options.store)
    except (NoDevice, StoreError) as error:
        display.say(f"--store: {error}" if isinstance(error, StoreError) else str(error))
        return USAGE
    if options.threads:
        torch.set_num_threads(options.threads)
    display.say(f"run {spec.run_id} on {device}, in {store.where(spec.run_id)}")
    attempt = _begin(options, order, store, device, display)
    signals.attempt = display.attempt = attempt
    try:
        signals.check()
        if attempt.outcome:
            rows = from_parquet(EpochRow, attempt.folder.table(attempt.outcome, "epochs"))
            display.say("finished before; nothing to train")
            if options.keep_weights and "checkpoint" not in attempt.outcome.files:
                display.say(
                    "its weights were not kept. To get them, move the run's folder away and train it again."
                )
        else:
            rows = list(attempt.training.rows)
        for row in rows:
            _print(row)
        for row in attempt:
            _print(row)
            display.row(row)
            signals.check()
        display.say(
            f"{_ending(attempt)} The table of all epochs: {store.where(f'{spec.run_id}/epochs.parquet')}"
        )
    except (DataError, StoreError, DamagedRun, Superseded):
        raise
    except BrokenPipeError:
        # the interpreter flushes stdout when it exits, and that flush must not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not attempt.outcome:
            attempt.commit()
            attempt.release()
            display.say(f"nobody reads the rows any more; what was trained is kept.\n{_continue()}")
        return 128 + signal.SIGPIPE
    except Exception:
        attempt.say(traceback.format_exc().rstrip())
        attempt.release()
        return FAILED
    return DONE


def _begin(
    options: argparse.Namespace, order: Order, store: Store, device: str, display: Display
) -> Attempt:
    """Begin an attempt. Raises Claimed where somebody trains the run now.

    It waits only for a process on another machine, which may be dead and cannot be asked.
    """
    import torch

    from trainer.attempt import Attempt
    from trainer.placed import images
    from trainer.training import Training

    def train() -> Training:
        cache, placed_on = folder_of(options.store), torch.device(device)
        placed = images(order.spec.task.data, options.data_dir, placed_on, cache, display.say)
        return Training(order.spec, device=device, images=placed)

    watch, silent = Watch(), ""
    while True:
        try:
            return Attempt(
                store,
                order.spec,
                train,
                show=display.say,
                commit_share=options.commit_share,
                keep_weights=options.keep_weights or order.keep_weights,
                silent=silent,
            )
        except Claimed as error:
            if error.claim.is_here:
                raise
            display.say(f"{error} Waiting up to {SILENT_SECONDS:.0f} s for a sign of life.")
            while (is_free := watch.look(store, error.claim)) is None:
                time.sleep(1)
            if not is_free:
                raise
            silent = error.claim.stamp


def _stopped(signals: Signals, display: Display) -> int:
    assert signals.received
    if (attempt := signals.attempt) and not attempt.outcome:
        attempt.commit()
        kept = f"{attempt.kept_epochs} of {attempt.training.task.epochs} epochs are kept"
        attempt.say(f"stopped by {signals.received.name}; {kept}")
        attempt.release()
    display.say(_continue())
    return 128 + signals.received


def _continue() -> str:
    return f"To continue: {shlex.join(sys.orig_argv)}"


def _ending(attempt: Attempt) -> str:
    match attempt.outcome:
        case Completed(epochs, collapsed):
            collapse = ", and collapsed: the final training loss is that of a guess" if collapsed else ""
            return f"completed, {epochs} epochs{collapse}."
        case Diverged(epochs):
            loss = f"the training loss of epoch {epochs} is not a number"
            return f"diverged: {loss}. That is a result; it is kept."
        case None:
            return "not finished."


def _print(row: EpochRow) -> None:
    print(json.dumps(json_ready(row), allow_nan=False), flush=True)


if __name__ == "__main__":
    sys.exit(main())
