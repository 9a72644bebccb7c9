"""Measure every figure that the project quotes for a GPU: `python -m benchmarks.gpu [--out FILE]`.

It takes under eight minutes on an H100. It needs torch, Triton, NumPy and pyarrow, and downloads nothing.
Tables go to stdout and progress to stderr. The results file is written after every part.
`--rehearse` tries every part on a CPU in tiny sizes, and measures nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import gpu_command, gpu_ladder, gpu_packed, gpu_sites
from benchmarks.gpu_command import Command
from benchmarks.gpu_setting import GPU, REHEARSAL, Bench, Requirement

RESULTS = (
    Path(__file__).parents[1] / "sweep" / "estimate" / "gpus"
)  # where `sweep plan` reads them, installed or not


def required(bench: Bench) -> list[Requirement]:
    """List every requirement beside its measurement."""
    found = bench.found
    rungs = {line["rung"]: line for line in found.get("ladder") or []}
    best, agreement = rungs.get("fused + graph", {}), found.get("agreement") or {}
    ratios = found.get("ratios") or {}
    packed: list[dict[str, Any]] = found["packed"]
    return [
        Requirement(
            "an epoch of one run, s", "at most 1.4", best.get("epoch_seconds"), lambda it: it <= 1.4
        ),
        Requirement(
            "an epoch beside plain fp32's, times as fast",
            "at least 8",
            best.get("times_plain_fp32"),
            lambda it: it >= 8,
        ),
        Requirement(
            "a site's forward over a copy, worst shape and r",
            "at most 1.7",
            _beside_a_copy(found),
            lambda it: it <= 1.7,
        ),
        gpu_packed.in_threads(packed),
        Requirement(
            "slowest epoch over fastest as r changes",
            "at most 1.15",
            ratios.get("greatest_over_least"),
            lambda it: it <= 1.15,
        ),
        Requirement(
            "anything recorded anew as r changes", "no", ratios.get("recorded_anew"), lambda it: not it
        ),
        gpu_packed.as_alone(packed),
        Requirement(
            "loss within the spread of seeds of the reference's", "yes", agreement.get("agree"), bool
        ),
    ]


def _beside_a_copy(found: dict[str, Any]) -> float | None:
    """The worst of every shape at every ratio; None until all shapes are measured."""
    there: list[dict[str, Any]] = (found.get("sites") or {}).get("shapes", [])
    worst = [max(line.get("forward_over_copy_by_ratio", {}).values(), default=None) for line in there]
    known = [ratio for ratio in worst if ratio is not None]
    return max(known) if known and len(known) == len(worst) else None


COMMAND = Command(
    name="benchmarks.gpu",
    description=__doc__ or "",
    out=RESULTS,
    prefix="gpu-",
    parts={
        "ceilings": gpu_sites.ceilings,
        "sites": gpu_sites.sites,
        "ladder": gpu_ladder.ladder,
        "ratios": gpu_ladder.ratios,
        "agreement": gpu_ladder.agreement,
        "packed": gpu_packed.packed,
    },
    setting=GPU,
    rehearsal=REHEARSAL,
    required=required,
)

if __name__ == "__main__":
    sys.exit(gpu_command.main(COMMAND))
