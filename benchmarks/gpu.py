"""Measure every figure that the project quotes for a GPU: `python -m benchmarks.gpu [--out FILE]`.

It takes under eight minutes on an H100. It needs torch, Triton, NumPy and pyarrow, and downloads
nothing.
Tables go to stdout and progress to stderr. The results file is written after every part.
`--rehearse` tries every part on a CPU in tiny sizes, and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch

from benchmarks import gpu_ladder, gpu_packed, gpu_sites
from benchmarks.gpu_children import be_child, hand_over
from benchmarks.gpu_setting import GPU, REHEARSAL, Bench, Setting, reason, table, write_whole
from trainer import data, process
from trainer.engine import Images, place

RESULTS = (
    Path(__file__).parents[1] / "sweep" / "estimate" / "gpus"
)  # where `sweep plan` reads them, installed or not
PARTS: dict[str, Callable[[Bench], None]] = {
    "ceilings": gpu_sites.ceilings,
    "sites": gpu_sites.sites,
    "ladder": gpu_ladder.ladder,
    "ratios": gpu_ladder.ratios,
    "agreement": gpu_ladder.agreement,
    "packed": gpu_packed.packed,
}


def facts(device: torch.device) -> dict[str, Any]:
    """Describe the device, the code and the versions that the figures belong to."""
    known: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.executable).name, "-m", "benchmarks.gpu", *sys.argv[1:]]),
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


def begun(setting: Setting, device: torch.device) -> dict[str, Any]:
    """The results before anything is measured."""
    keys = ("data", "model", "batch_size", "precision", "train", "test")
    return {
        "measured": device.type == "cuda",
        "complete": False,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "facts": facts(device),
        "task": {key: getattr(setting, key) for key in keys},
        "ratio": setting.ratio,
        "seconds": {},
        "errors": {},
        **dict.fromkeys(PARTS),
        "packed": [],
        "packed_best": {},
    }


def required(setting: Setting, found: dict[str, Any]) -> list[dict[str, Any]]:
    """List every requirement beside its measurement.

    `met` is null where nothing was measured, and in a rehearsal.
    """
    rungs = {line["rung"]: line for line in found["ladder"] or []}
    best, ratios, agreement = rungs.get("fused + graph", {}), found["ratios"] or {}, found["agreement"] or {}
    limit = setting.required_epoch_seconds
    checks: list[tuple[str, str, Any, Callable[[Any], bool]]] = [
        (
            "an epoch of one run, s",
            f"at most {limit:g}",
            best.get("epoch_seconds"),
            lambda value: value <= limit,
        ),
        (
            "an epoch beside plain fp32's, times as fast",
            "at least 8",
            best.get("times_plain_fp32"),
            lambda value: value >= 8,
        ),
        (
            "a site's forward over a copy, worst shape and r",
            "at most 1.5",
            _beside_a_copy(found),
            lambda value: value <= 1.5,
        ),
        (
            "best packing beside one run, times the epochs/s",
            "at least 1.25",
            found["packed_best"].get("times_one_run"),
            lambda it: it >= 1.25,
        ),
        (
            "slowest epoch over fastest as r changes",
            "at most 1.15",
            ratios.get("greatest_over_least"),
            lambda value: value <= 1.15,
        ),
        ("anything recorded anew as r changes", "no", ratios.get("recorded_anew"), lambda value: not value),
        (
            "rows packed are the rows alone",
            "yes",
            all(line["rows_equal"] for line in found["packed"]) if found["packed"] else None,
            bool,
        ),
        ("loss within the spread of seeds of the reference's", "yes", agreement.get("agree"), bool),
    ]
    known = found["measured"]
    return [
        {
            "what": what,
            "required": wanted,
            "measured": value,
            "met": meets(value) if known and value is not None else None,
        }
        for what, wanted, value, meets in checks
    ]


def _beside_a_copy(found: dict[str, Any]) -> float | None:
    """The worst of every shape at every ratio; None until all shapes are measured."""
    there: list[dict[str, Any]] = (found["sites"] or {}).get("shapes", [])
    worst = [max(line.get("forward_over_copy_by_ratio", {}).values(), default=None) for line in there]
    known = [ratio for ratio in worst if ratio is not None]
    return max(known) if known and len(known) == len(worst) else None


def measure(bench: Bench) -> None:
    """Measure every part. If a part fails, the error is kept and the others go on."""
    for name, part in PARTS.items():
        began = time.monotonic()
        try:
            part(bench)
        except Exception as error:  # there may be one chance on such a machine
            bench.found["errors"][name] = reason(error)
            bench.say(f"{name} failed: {reason(error)}")
        bench.found["seconds"][name] = time.monotonic() - began
        bench.found["required"] = required(bench.setting, bench.found)
        _keep(bench)
    best = next((line for line in bench.found["ladder"] or [] if line["rung"] == "fused + graph"), {})
    bench.found["memory"] = {
        "alone_peak_gib": best.get("peak_gib"),
        "packed_peak_gib": [line["peak_gib"] for line in bench.found["packed"]],
    }
    bench.found["seconds"]["all"] = time.monotonic() - bench.began
    bench.found["complete"] = True
    _keep(bench)
    head = ("required", "", "measured", "met")
    table(
        head,
        *(
            (line["what"], line["required"], line["measured"], line["met"])
            for line in bench.found["required"]
        ),
    )


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


def run(setting: Setting, device: torch.device, out: Path | None) -> int:
    """Measure or rehearse, and write the results. Returns 1 if a part failed."""
    process.prepare()  # before anything else: cuBLAS asks for its settings once
    found, began = begun(setting, device), time.monotonic()
    title = found["device"] if found["measured"] else "REHEARSAL, not a measurement"
    print(f"# {title}\n", flush=True)
    table(("fact", "is"), *((key, value) for key, value in found["facts"].items() if key != "nvidia_smi"))

    def keep() -> None:
        if out:
            write_whole(out, found)

    try:
        keep()
    except (OSError, ValueError) as error:
        print(f"--out {out}: cannot be written: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="benchmarks-gpu-") as folder:
        bench = Bench(setting, device, Path(folder), load(setting, device), found, keep, began)
        bench.say(f"{setting.data} is loaded")
        try:
            hand_over(bench.images, bench.folder)
        except OSError as error:  # children will have nothing to train on; all else can be measured
            found["errors"]["data for children"] = reason(error)
        measure(bench)
    print(f"kept in {out}" if out else "nothing was kept: --out FILE would", flush=True)
    for name, error in found["errors"].items():
        print(f"{name} failed: {error}", file=sys.stderr)
    return 1 if found["errors"] else 0


def _stopped(number: int, _: object) -> NoReturn:
    print("stopped; the figures of the parts before are kept where --out says", file=sys.stderr)
    raise SystemExit(128 + number)  # an exception, so that children are ended on the way


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code says what came of it.

    0: done. 1: a part failed. 2: the results file cannot be written. 3: there is no CUDA device to
    measure.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    where = "where the figures go (default: sweep/estimate/gpus/gpu-DEVICE.json)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=where)
    parser.add_argument(
        "--rehearse", action="store_true", help="try every part on the CPU, in tiny sizes; measures nothing"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    os.environ.pop("TRITON_INTERPRET", None)
    if given.out and given.out.exists() and not given.out.is_file():
        parser.error(f"--out {given.out}: is there, and is no file")
    if given.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
        torch.set_num_threads(1)
    if given.child:
        return be_child(given.child, gpu_ladder.plain_rung, rehearsal=given.rehearse)
    signal.signal(signal.SIGTERM, _stopped)
    signal.signal(signal.SIGINT, _stopped)
    if given.rehearse:
        return run(REHEARSAL, torch.device("cpu"), given.out)
    lacking = (
        "torch finds no CUDA device here"
        if not torch.cuda.is_available()
        else ""
        if find_spec("triton")
        else "triton is not installed"
    )
    if lacking:
        print(
            f"benchmarks.gpu: {lacking}; nothing was measured. `--rehearse` tries the command on a CPU.",
            file=sys.stderr,
        )
        return 3
    device = torch.device("cuda")
    slug = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")
    return run(GPU, device, given.out or RESULTS / f"gpu-{slug}.json")


if __name__ == "__main__":
    sys.exit(main())
