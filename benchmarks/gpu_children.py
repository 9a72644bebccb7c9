"""Child processes that `benchmarks.gpu` starts on its device.

Orders and answers are lines of JSON. No child outlives its parent: the parent ends its children, and
where the parent is killed, Linux ends them.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from benchmarks.gpu_setting import GPU, REHEARSAL, SEED, Bench, figures, reason
from trainer import process
from trainer.engine import Images
from trainer.techniques import Techniques

ROOT = Path(__file__).parents[1]
PR_SET_PDEATHSIG = 1
FAREWELL_SECONDS = 10.0


class ChildFailed(RuntimeError):
    """A child reported an error, ended, or took too long; the message has the end of its log."""


class Child:
    """A child process; leaving the context ends it."""

    def __init__(
        self, folder: Path, *, rehearsal: bool, environment: Mapping[str, str] | None = None
    ) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.gpu",
            "--child",
            str(folder),
            *(["--rehearse"] if rehearsal else []),
        ]
        self.busy = False
        self.log = folder / f"child-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            # a group of its own, so that a compiler's helpers end with it
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def tell(self, what: Mapping[str, Any]) -> None:
        """Send an order without waiting; `answer` returns its result."""
        assert self.process.stdin
        self.busy = True
        try:
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise self._failed("it ended") from error

    def answer(self, limit_seconds: float) -> dict[str, Any]:
        """Return the answer to the last order; raise ChildFailed where none comes in time."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], limit_seconds)[0]:
            raise self._failed(f"no answer within {limit_seconds:.0f} s")
        line = self.process.stdout.readline()  # an answer is written at once, and there is one at a time
        if not line.endswith(b"\n"):
            raise self._failed("it ended")
        self.busy = False
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise ChildFailed(found["error"])
        return found

    def ask(self, what: Mapping[str, Any], limit_seconds: float) -> dict[str, Any]:
        """Send an order and wait for its answer."""
        self.tell(what)
        return self.answer(limit_seconds)

    def dismiss(self) -> None:
        """Close the child's stdin; the child ends once it has nothing left to do."""
        assert self.process.stdin
        with suppress(OSError):  # what it was told and never read
            self.process.stdin.close()

    def end(self) -> None:
        """End the child: an idle one by itself, a busy one at once, with whatever it started."""
        assert self.process.stdout
        self.dismiss()
        if not self.busy:
            select.select([self.process.stdout], [], [], FAREWELL_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its group has its number, until it is waited for
        self.process.wait()
        self.process.stdout.close()

    def _failed(self, why: str) -> ChildFailed:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return ChildFailed("\n".join([why, *lines[-6:]]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def hand_over(images: Images, folder: Path) -> None:
    """Write the data for children to map into memory."""
    np.save(folder / "images.npy", images.images.cpu().numpy())
    np.save(folder / "labels.npy", images.labels.cpu().numpy())
    (folder / "train.json").write_text(json.dumps(images.train))


def taken_over(folder: Path, device: torch.device) -> Images:
    """Map the data that `hand_over` wrote."""
    images, labels = (
        torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")).to(device)
        for name in ("images", "labels")
    )
    return Images(images, labels, json.loads((folder / "train.json").read_text()))


Rung = Callable[[Bench, str], dict[str, Any]]


def be_child(folder: Path, rung: Rung, *, rehearsal: bool) -> int:
    """Serve orders (a rung of the ladder, or some epochs) until stdin closes.

    The device is not touched before the first order.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed goes to the log
    bench: Bench | None = None
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            if asked["do"] != "load" and bench is None:
                bench = _bench(folder, rehearsal=rehearsal)
            found = {} if bench is None else _do(bench, rung, asked)
        except Exception as error:  # the one who asked decides what it means
            found = {"error": reason(error)}
        print(json.dumps(found), file=answers, flush=True)
    return 0


def _bench(folder: Path, *, rehearsal: bool) -> Bench:
    process.prepare()
    setting, device = (REHEARSAL, torch.device("cpu")) if rehearsal else (GPU, torch.device("cuda"))
    return Bench(setting, device, folder, taken_over(folder, device), {}, lambda: None)


def _do(bench: Bench, rung: Rung, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["do"] == "rung":
        return {**rung(bench, asked["name"]), "peak_gib": bench.peak_gib()}
    moments: list[float] = []
    rows, _ = bench.train(
        bench.spec(bench.setting.ratio, SEED),
        asked["epochs"],
        "packed",
        least=asked["epochs"],
        techniques=Techniques(**asked["techniques"]),
        moments=moments,
    )
    return {"moments": moments, "rows": figures(rows), "peak_gib": bench.peak_gib()}
