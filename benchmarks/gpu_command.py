"""What `benchmarks.gpu` and `benchmarks.gpu_lab` share: options, parts and the results file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks.gpu_children import be_child, hand_over
from benchmarks.gpu_ladder import plain_rung
from benchmarks.gpu_setting import Bench, Requirement, Setting, reason, table, write_whole
from trainer import data, process
from trainer.engine import Images, place

Part = Callable[[Bench], None]


@dataclass(frozen=True)
class Command:
    """A command that measures a GPU in parts."""

    name: str
    """The module, as in `python -m`."""
    description: str
    out: Path
    """The folder of its results files."""
    prefix: str
    """A results file is named by this and the device."""
    parts: Mapping[str, Part]
    """The parts in their order. Each writes what it found under its name."""
    setting: Setting
    rehearsal: Setting
    required: Callable[[Bench], list[Requirement]]
    """What is asked for, beside what the parts so far have measured."""

    def default(self, device: str) -> Path:
        """Where a whole measurement goes without `--out`."""
        return self.out / f"{self.prefix}{device}.json"


@dataclass(frozen=True)
class ResultsFile:
    """Where the figures are kept."""

    path: Path | None
    """None where nothing is kept."""
    only_whole: bool = False
    """The path may hold the only measurement there is: one with a part missing does not take its place."""

    @property
    def meanwhile(self) -> Path | None:
        """Where the figures are until every part is measured."""
        if not self.path or not self.only_whole:
            return self.path
        return self.path.with_name(f"{self.path.name}.partial")

    def keep(self, found: Mapping[str, Any]) -> None:
        """Write what was found so far."""
        if self.meanwhile:
            write_whole(self.meanwhile, found)

    def finish(self, found: Mapping[str, Any]) -> str:
        """Let a whole measurement take its place; say what is kept where."""
        if not (self.path and self.meanwhile and found["complete"] and not found["errors"]):
            return self.so_far()
        self.meanwhile.replace(self.path)
        return f"kept in {self.path}"

    def so_far(self) -> str:
        """Say what is kept where while a part is missing."""
        if not self.path:
            return "nothing was kept: --out FILE would"
        beside = f"; {self.path} is only written when no part is missing" if self.only_whole else ""
        return f"kept in {self.meanwhile}{beside}"


def facts(device: torch.device, command: str) -> dict[str, Any]:
    """Describe the device, the code and the versions that the figures belong to."""
    known: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.executable).name, "-m", command, *sys.argv[1:]]),
        **{key: value for key, value in process.describe(device).items() if key in ("commit", "code")},
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "triton": import_module("triton").__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cpus": os.cpu_count(),
    }
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        known |= {
            "memory_gib": found.total_memory / 2**30,
            "multiprocessors": found.multi_processor_count,
            "nvidia_smi": _nvidia_smi(),
        }
    return known


def _nvidia_smi() -> str | None:
    """Driver, power limit and greatest clocks, of every GPU it sees."""
    asked = "driver_version,power.limit,clocks.max.sm,clocks.max.mem,compute_mode,mig.mode.current"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def begun(command: Command, setting: Setting, device: torch.device) -> dict[str, Any]:
    """The results before anything is measured."""
    keys = ("data", "model", "batch_size", "precision", "train", "test")
    return {
        "measured": device.type == "cuda",
        "complete": False,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "facts": facts(device, command.name),
        "task": {key: getattr(setting, key) for key in keys},
        "ratio": setting.ratio,
        "seconds": {},
        "errors": {},
        **dict.fromkeys(command.parts),
        "packed": [],
    }


def measure(bench: Bench, command: Command) -> None:
    """Measure every part. If a part fails, the error is kept and the others go on."""
    for name, part in command.parts.items():
        print(f"## {name}\n", flush=True)
        began = time.monotonic()
        try:
            part(bench)
        except Exception as error:  # there may be one chance on such a machine
            bench.found["errors"][name] = reason(error)
            bench.say(f"{name} failed: {reason(error)}")
        bench.found["seconds"][name] = time.monotonic() - began
        bench.found["required"] = [
            {
                "what": asked.what,
                "required": asked.required,
                "measured": asked.measured,
                "met": asked.met() if bench.found["measured"] else None,
            }
            for asked in command.required(bench)
        ]
        _keep(bench)
    bench.found["seconds"]["all"] = time.monotonic() - bench.began
    bench.found["complete"] = True
    _keep(bench)
    print("## required\n", flush=True)
    head = ("what", "required", "measured", "met")
    lines: list[dict[str, Any]] = bench.found["required"]
    table(head, *((line["what"], line["required"], line["measured"], line["met"]) for line in lines))


def _keep(bench: Bench) -> None:
    """Write the results file. A full disk is reported only: it may have room after the next part."""
    bench.found["errors"].pop("keeping the figures", None)
    try:
        bench.keep()
    except OSError as error:
        bench.found["errors"]["keeping the figures"] = reason(error)
        bench.say(f"the figures so far could not be kept: {error}")


def load(setting: Setting, device: torch.device) -> Images:
    """The data on the device; a rehearsal is tested on fewer images."""
    whole = place(data.load(setting.data), device)
    end = whole.train + setting.test
    return Images(whole.images[:end], whole.labels[:end], whole.train)


def run(command: Command, device: torch.device, results: ResultsFile) -> int:
    """Measure, or rehearse on a CPU, and write the results. Returns 1 if a part failed."""
    process.prepare()  # before anything else: cuBLAS asks for its settings once
    setting = command.setting if device.type == "cuda" else command.rehearsal
    found, began = begun(command, setting, device), time.monotonic()
    title = found["device"] if found["measured"] else "REHEARSAL, not a measurement"
    print(f"# {title}\n", flush=True)
    table(("fact", "is"), *((key, value) for key, value in found["facts"].items() if key != "nvidia_smi"))
    try:
        results.keep(found)
    except (OSError, ValueError) as error:
        print(f"{results.meanwhile}: cannot be written: {error}", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-gpu-") as folder:
            images, keep = load(setting, device), partial(results.keep, found)
            bench = Bench(setting, device, Path(folder), images, found, keep, began)
            bench.say(f"{setting.data} is loaded")
            try:
                hand_over(bench.images, bench.folder)
            except OSError as error:  # children will have nothing to train on; all else can be measured
                found["errors"]["data for children"] = reason(error)
            measure(bench, command)
    except SystemExit:  # by `_stopped`
        print(results.so_far(), file=sys.stderr)
        raise
    print(results.finish(found), flush=True)
    for name, error in found["errors"].items():
        print(f"{name} failed: {error}", file=sys.stderr)
    return 1 if found["errors"] else 0


def unfit(out: Path) -> str | None:
    """Say why the figures cannot go to a file that was named: whatever else is there must stay."""
    out = out.resolve()
    if not out.parent.is_dir():
        return f"there is no folder {out.parent}"
    if not out.exists():
        return None
    if not out.is_file():
        return "is there, and is no file"
    try:
        there: Any = json.loads(out.read_text())
    except (OSError, ValueError):
        there = None
    results = isinstance(there, dict) and "measured" in there
    return None if results else "is there, and is no file of results: it is not overwritten"


def _stopped(number: int, _: object) -> NoReturn:
    print("stopped", file=sys.stderr)
    raise SystemExit(128 + number)  # an exception, so that children are ended on the way


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {command.name}",
        description=command.description,
        epilog=f"Without --out a whole measurement goes to\n  {command.default('DEVICE')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # breaks no path
    )
    where = "where the figures go, after every part (default: see below)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=where)
    parser.add_argument(
        "--part",
        action="append",
        choices=list(command.parts),
        metavar="NAME",
        help="measure this part alone, into the file that --out names; may be repeated. "
        f"Parts: {', '.join(command.parts)}",
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="try every part on the CPU, in tiny sizes; measures nothing"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser


def main(command: Command, arguments: list[str] | None = None) -> int:
    """Run the command; the exit code says what came of it.

    0: done. 1: a part failed. 2: the results file cannot be written, or an option is wrong. 3: there is no
    CUDA device to measure.
    """
    parser = _parser(command)
    given = parser.parse_args(arguments)
    os.environ.pop("TRITON_INTERPRET", None)
    if given.part and not given.out and not given.rehearse:
        parser.error("--part wants --out: the default file holds a whole measurement")
    if given.out and (why := unfit(given.out)):
        print(f"--out {given.out}: {why}", file=sys.stderr)
        return 2
    if given.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
        torch.set_num_threads(1)
    # before CUDA starts: runs in one process would share eight queues otherwise
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    if given.child:
        return be_child(given.child, plain_rung, rehearsal=given.rehearse)
    if given.part:
        command = replace(
            command, parts={name: part for name, part in command.parts.items() if name in given.part}
        )
    signal.signal(signal.SIGTERM, _stopped)
    signal.signal(signal.SIGINT, _stopped)
    if given.rehearse:
        return run(command, torch.device("cpu"), ResultsFile(given.out))
    lacking = (
        "torch finds no CUDA device here"
        if not torch.cuda.is_available()
        else ""
        if find_spec("triton")
        else "triton is not installed"
    )
    if lacking:
        print(
            f"{command.name}: {lacking}; nothing was measured. `--rehearse` tries the command on a CPU.",
            file=sys.stderr,
        )
        return 3
    device = torch.device("cuda")
    slug = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")
    results = ResultsFile(given.out) if given.out else ResultsFile(command.default(slug), only_whole=True)
    return run(command, device, results)
