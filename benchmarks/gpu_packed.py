"""Several runs at once on one GPU, each a process, without and with NVIDIA's Multi-Process Service."""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu_children import Child
from benchmarks.gpu_setting import Bench, reason, table

MPS = "nvidia-cuda-mps-control"
LIMIT_SECONDS = 100.0
"""The most that one answer of a child may take."""
MODE_SECONDS = 70.0
"""The most for all packings of one mode, with MPS or without; with less time, each has fewer epochs."""
# The shell quits the daemon once nobody holds its input: it was closed, or its holder was killed.
_MPS_SCRIPT = (
    f'{MPS} -d >"$1" 2>&1 </dev/null && echo started && cat >/dev/null; echo quit | {MPS} >/dev/null 2>&1'
)


class NoMps(RuntimeError):
    """MPS is not available on this machine; the message has the reason."""


@contextmanager
def mps(limit_seconds: float = 20) -> Generator[dict[str, str]]:
    """Run a private MPS daemon while the context lasts; yield the environment that leads to it."""
    if not shutil.which(MPS):
        raise NoMps(f"{MPS} is not on the PATH")
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as place:
        folders = {f"CUDA_MPS_{kind.upper()}_DIRECTORY": f"{place}/{kind}" for kind in ("pipe", "log")}
        for folder in folders.values():
            Path(folder).mkdir()
        said = Path(place) / "said"
        command = ["sh", "-c", _MPS_SCRIPT, "sh", str(said)]
        shell = subprocess.Popen(
            command,
            env={**os.environ, **folders},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert shell.stdin
        assert shell.stdout
        try:
            ready = select.select([shell.stdout], [], [], limit_seconds)[0]
            if not ready or shell.stdout.readline() != b"started\n":
                told = said.read_text(errors="replace").strip() if said.exists() else ""
                raise NoMps(f"{MPS} -d did not start: {told or 'it said nothing'}")
            yield folders
        finally:
            shell.stdin.close()
            try:
                shell.wait(limit_seconds)
            except subprocess.TimeoutExpired:
                _end(shell, Path(folders["CUDA_MPS_PIPE_DIRECTORY"]) / f"{MPS}.pid")
            shell.stdout.close()


def _end(shell: subprocess.Popen[bytes], number: Path) -> None:
    """Kill a daemon that does not quit when asked."""
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    if number.exists():
        os.kill(int(number.read_text()), signal.SIGKILL)


def packed(bench: Bench) -> None:
    """Measure every packing without MPS, then with MPS where it is available."""
    bench.forget()
    alone: list[dict[str, Any]] = []
    try:
        _packings(bench, {}, alone, mps=False)
    except (
        Exception
    ) as error:  # what was measured before stands, and MPS may do what could not be done without
        bench.found["errors"]["packed"] = reason(error)
    bench.found["mps"] = _under_mps(bench, alone)
    lines: list[dict[str, Any]] = bench.found["packed"]
    if not lines:
        return
    bench.found["packed_best"] = max(lines, key=lambda line: line["epochs_per_second"])
    head = ("runs", "MPS", "epochs/s together", "x one run", "peak each, GiB", "rows as alone")
    table(head, *(tuple(line.get(key) for key in _SHOWN) for line in lines))
    if not bench.found["mps"]["complete"]:
        print(f"MPS: {bench.found['mps']['why']}\n", flush=True)


_SHOWN = ("runs", "mps", "epochs_per_second", "times_one_run", "peak_gib", "rows_equal")


def _under_mps(bench: Bench, alone: list[dict[str, Any]]) -> dict[str, Any]:
    if bench.rehearsal:
        return {"complete": False, "why": "a rehearsal goes without"}
    try:
        with mps() as environment:
            _packings(bench, environment, alone, mps=True)
    except Exception as error:  # a machine may have the command and not let anybody use it
        return {"complete": False, "why": reason(error)}
    return {"complete": True, "why": ""}


def _packings(
    bench: Bench, environment: Mapping[str, str], alone: list[dict[str, Any]], *, mps: bool
) -> None:
    """Measure the packings of one mode.

    All children start first and import what they need, then join one packing after the other. The device
    sees a child only in its first packing.
    """
    with ExitStack() as stack:
        bench.say(f"packed{' under MPS' if mps else ''}: {max(bench.setting.packings)} processes start")
        children: list[Child] = []
        for _ in range(max(bench.setting.packings)):
            children.append(
                stack.enter_context(Child(bench.folder, rehearsal=bench.rehearsal, environment=environment))
            )
        together(children, {"do": "load"})
        enough = bench.room("packed") > MODE_SECONDS * (1 if mps else 2)
        epochs = bench.setting.packed_epochs if enough else 2
        ready = 0
        for runs in bench.setting.packings:
            bench.say(f"packed{' under MPS' if mps else ''}: {runs} at once")
            together(children[ready:runs], {"do": "train", "epochs": 1})
            ready = runs
            answers = together(children[:runs], {"do": "train", "epochs": epochs})
            if not alone:
                alone += answers[0]["rows"]
            lines: list[dict[str, Any]] = bench.found["packed"]
            together_rate = rate([answer["moments"] for answer in answers])
            solo = next(
                (it["epochs_per_second"] for it in lines if it["runs"] == 1),
                together_rate if runs == 1 else None,
            )
            line = {
                "runs": runs,
                "mps": mps,
                "epochs_per_second": together_rate,
                "times_one_run": solo and together_rate / solo,
                "peak_gib": max(answer["peak_gib"] for answer in answers),
                "rows_equal": all(
                    a == b for answer in answers for a, b in zip(alone, answer["rows"], strict=False)
                ),
                "epochs_each": epochs,
            }
            lines.append(line)
            bench.keep()


def together(children: list[Child], what: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give every child its order before waiting for any answer."""
    for child in children:
        child.tell(what)
    return [child.answer(LIMIT_SECONDS) for child in children]


def rate(moments: list[list[float]]) -> float:
    """Return the epochs a second of all runs together while all of them were busy.

    A run's moments are the start of its first epoch and the end of every epoch.
    """
    begin, end = max(own[0] for own in moments), min(own[-1] for own in moments)
    if end <= begin:  # they missed each other
        return sum(len(own) - 1 for own in moments) / (
            max(own[-1] for own in moments) - min(own[0] for own in moments)
        )
    done = 0.0
    for own in moments:
        for start, stop in itertools.pairwise(own):
            done += max(0.0, min(stop, end) - max(start, begin)) / (stop - start)
    return done / (end - begin)
