"""Several runs at once on one GPU: threads of one process, or processes under NVIDIA's MPS."""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu_children import Child
from benchmarks.gpu_setting import Bench, Requirement, reason, table
from benchmarks.gpu_threads import runs_in_threads
from trainer.techniques import ALL, Techniques

MPS = "nvidia-cuda-mps-control"
LIMIT_SECONDS = 100.0
"""The most that one answer of a child may take."""
MODE_SECONDS = 70.0
"""The most for all packings of one mode, threads or processes; with less time, each has fewer epochs."""
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
    """Measure several runs at once: as threads of one process, then as processes under MPS."""
    alone: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = bench.found["packed"]
    try:
        for runs in bench.setting.packings:
            bench.say(f"{runs} at once in one process")
            answers = runs_in_threads(bench, runs, _epochs(bench, MODE_SECONDS * 2))
            keep_line(bench, lines, alone, answers, threads=True)
    except Exception as error:  # what was measured before stands, and MPS may do what threads could not
        bench.found["errors"]["packed"] = reason(error)
    bench.found["mps"] = under_mps(bench, lines, bench.setting.packings, alone)
    if lines:
        bench.found["packed_best"] = max(lines, key=lambda line: line["epochs_per_second"])
    show(lines)
    if not bench.found["mps"]["complete"]:
        print(f"MPS: {bench.found['mps']['why']}\n", flush=True)


def show(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of packings."""
    head = ("runs", "threads", "MPS", "epochs/s together", "x one run", "peak each, GiB", "rows as alone")
    table(head, *(tuple(line.get(key) for key in _SHOWN) for line in lines))


_SHOWN = ("runs", "threads", "mps", "epochs_per_second", "times_one_run", "peak_gib", "rows_equal")


def under_mps(
    bench: Bench,
    lines: list[dict[str, Any]],
    packings: Sequence[int],
    alone: list[dict[str, Any]],
    techniques: Techniques = ALL,
) -> dict[str, Any]:
    """Measure runs as processes under MPS; say why where that was not possible."""
    with ExitStack() as stack:
        try:
            # a rehearsal goes without, so that everything else is rehearsed
            environment = {} if bench.rehearsal else stack.enter_context(mps())
            bench.forget()
            for answers in _processes(bench, environment, packings, techniques):
                keep_line(bench, lines, alone, answers, mps=not bench.rehearsal)
        except Exception as error:  # a machine may have the command and not let anybody use it
            return {"complete": False, "why": reason(error)}
    return {"complete": not bench.rehearsal, "why": "a rehearsal goes without" if bench.rehearsal else ""}


def _processes(
    bench: Bench, environment: Mapping[str, str], packings: Sequence[int], techniques: Techniques
) -> Iterator[list[dict[str, Any]]]:
    """Train runs that are a process each; yield what those of each packing answer.

    All children start first and import what they need, then join one packing after the other. The device
    sees a child only in its first packing.
    """
    with ExitStack() as stack:
        bench.say(f"{max(packings)} processes start")
        children: list[Child] = []
        for _ in range(max(packings)):
            children.append(
                stack.enter_context(Child(bench.folder, rehearsal=bench.rehearsal, environment=environment))
            )
        together(children, {"do": "load"})
        order = {"do": "train", "techniques": asdict(techniques)}
        epochs, ready = _epochs(bench, MODE_SECONDS), 0
        for runs in packings:
            bench.say("1 process" if runs == 1 else f"{runs} processes at once")
            together(children[ready:runs], {**order, "epochs": 1})
            ready = runs
            yield together(children[:runs], {**order, "epochs": epochs})


def _epochs(bench: Bench, seconds: float) -> int:
    """Epochs of each run that are measured: fewer where less than so much time is left."""
    return bench.setting.packed_epochs if bench.room("packed") > seconds else 2


def keep_line(
    bench: Bench,
    lines: list[dict[str, Any]],
    alone: list[dict[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    *,
    threads: bool = False,
    mps: bool = False,
) -> None:
    """Add what runs did together to `lines`. `alone` has the rows of a run alone, or gets the first ones."""
    if not alone:
        alone += answers[0]["rows"]
    found = rate([answer["moments"] for answer in answers])
    solo = next((line["epochs_per_second"] for line in lines if line["runs"] == 1), None)
    lines.append(
        {
            "runs": len(answers),
            "threads": threads,
            "mps": mps,
            "epochs_per_second": found,
            "times_one_run": found / solo if solo else 1.0 if len(answers) == 1 else None,
            "peak_gib": max(answer["peak_gib"] for answer in answers),
            "rows_equal": all(
                a == b for answer in answers for a, b in zip(alone, answer["rows"], strict=False)
            ),
            "epochs_each": len(answers[0]["rows"]),
        }
    )
    bench.keep()


def in_threads(packed: Sequence[Mapping[str, Any]]) -> Requirement:
    """What several runs in one process must reach together."""
    rates = [line["epochs_per_second"] for line in packed if line["threads"] and line["runs"] > 1]
    what = "several runs in one process, epochs a second together"
    return Requirement(what, "at least 0.95", max(rates, default=None), lambda it: it >= 0.95)


def as_alone(packed: Sequence[Mapping[str, Any]]) -> Requirement:
    """Whether runs that shared a GPU have the rows of a run alone."""
    equal = all(line["rows_equal"] for line in packed) if packed else None
    return Requirement("rows packed are the rows alone", "yes", equal, bool)


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
