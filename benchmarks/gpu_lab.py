"""Measure what each technique for a GPU saves: `python -m benchmarks.gpu_lab [--out FILE] [--part NAME]`.

It is meant to take at most nine minutes on an H100. It needs torch, Triton, NumPy and pyarrow, and downloads
nothing. The parts that matter most come first. Tables go to stdout and progress to stderr; the results file
is written after every part, and `sweep plan` can read it once copied into sweep/estimate/gpus. `--rehearse`
tries every part on a CPU in tiny sizes, and measures nothing.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import gpu_command, gpu_lab_convolutions, gpu_lab_runs, gpu_lab_sites, gpu_packed
from benchmarks.gpu_command import Command
from benchmarks.gpu_setting import GPU, REHEARSAL, Bench, Requirement

LAB = replace(
    GPU,
    seconds=520,
    plan={
        "baseline": 20, "threads": 60, "race": 60, "techniques": 60, "fork": 15, "convolutions": 40,
        "own convolution": 25, "sites": 90, "evaluation": 20, "winners": 110,
    },
)  # fmt: skip


def required(bench: Bench) -> list[Requirement]:
    """List what is asked for beside what was measured."""
    found = bench.found
    packed: list[dict[str, Any]] = found["packed"]
    every, race = (found.get("baseline") or {}).get("all", {}), found.get("race") or {}
    return [
        Requirement(
            "an epoch of one run, s", "at most 1.4", every.get("epoch_seconds"), lambda it: it <= 1.4
        ),
        gpu_packed.in_threads(packed),
        gpu_packed.as_alone(packed),
        Requirement("rows of runs that recorded at once", "as alone", race.get("rows_equal"), bool),
    ]


COMMAND = Command(
    name="benchmarks.gpu_lab",
    description=__doc__ or "",
    out=Path(__file__).parent / "results",
    prefix="gpu-lab-",
    parts={
        "baseline": gpu_lab_runs.baseline,
        "threads": gpu_lab_runs.threads,
        "race": gpu_lab_runs.race,
        "techniques": gpu_lab_runs.techniques,
        "fork": gpu_lab_convolutions.fork,
        "convolutions": gpu_lab_convolutions.convolutions,
        "own convolution": gpu_lab_convolutions.own_convolution,
        "sites": gpu_lab_sites.sites,
        "evaluation": gpu_lab_runs.evaluation,
        "winners": gpu_lab_runs.winners,
    },
    setting=LAB,
    rehearsal=REHEARSAL,
    required=required,
)

if __name__ == "__main__":
    sys.exit(gpu_command.main(COMMAND))
