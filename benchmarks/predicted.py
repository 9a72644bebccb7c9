"""Predict what an epoch on an H100 takes with everything in use, before it can be measured.

`python -m benchmarks.predicted` takes a measured epoch from `sweep/estimate/gpus`, subtracts what each
technique should save, and writes the result beside it, where `sweep plan` shows it as a prediction. The
savings are read from a profile of that epoch, `benchmarks/results/h100/profile.txt`: 3.75 ms of kernels in
each step. They are guesses. Once `benchmarks.gpu` has measured runs in threads, the file has to go.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_setting import table, write_whole

FOLDER = Path(__file__).parents[1] / "sweep" / "estimate" / "gpus"
GROUND = FOLDER / "gpu-nvidia-h100-80gb-hbm3.json"
OUT = FOLDER / "predicted-nvidia-h100-80gb-hbm3.json"
PROFILE = "benchmarks/results/h100/profile.txt"
SAVINGS_US = {
    "sums: one reduction for the gradients of all sites instead of 25, which take 203": 195,
    "copies: no casts of weights and of their gradients, which take 151, nor their gaps": 165,
    "fork: weight gradients fill what the other kernels leave of the GPU": 150,
    "padded: a stem of 8 channels, and the layer of 16 to 64": 120,
    "added: 24 residual adds take 202; a site that reads two tensors takes half of that": 90,
    "site kernels, backward: other tiles": 90,
    "site kernels, forward where something is dropped: fewer barriers and scalar chains": 90,
    "tail: the mean, the head and the loss in one operation": 65,
}
"""Microseconds that each technique should save of a training step at r = 0.3, by what it replaces."""
WAVES_SECONDS = 0.015
"""Seconds that full waves should save of an epoch's evaluation: 10 to 20 ms."""


def predicted(ground: dict[str, Any]) -> dict[str, Any]:
    """The prediction that follows from a results file of `benchmarks.gpu`."""
    ratio, task = ground["ratio"], ground["task"]
    measured = next(line for line in ground["ratios"]["epochs"] if line["ratio"] == ratio)
    steps = -(-task["train"] // task["batch_size"])
    saved = sum(SAVINGS_US.values())
    training = measured["training_seconds"] - steps * saved / 1e6
    evaluation = measured["epoch_seconds"] - measured["training_seconds"] - WAVES_SECONDS
    epoch = training + evaluation
    packed = {line["runs"]: line["times_one_run"] for line in ground["packed"] if line["mps"]}
    rates = {1: 1 / epoch, 4: packed[4] / epoch}
    return {
        "measured": False,
        "device": ground["device"],
        "task": task,
        "ground": {"file": GROUND.name, "date": ground["facts"]["date"], "profile": PROFILE},
        "step_us": {
            "measured": 1e6 * measured["training_seconds"] / steps,
            "saved": saved,
            "predicted": 1e6 * training / steps,
        },
        "savings_us": SAVINGS_US,
        "evaluation_seconds_saved": WAVES_SECONDS,
        "four_runs": {
            "times_one_run": packed[4],
            "as": "four processes under MPS before these savings; threads were not measured",
        },
        "ratios": {"epochs": [{"ratio": ratio, "epoch_seconds": epoch, "training_seconds": training}]},
        "packed": [
            {"runs": runs, "mps": False, "threads": True, "epochs_per_second": rate}
            for runs, rate in rates.items()
        ],
    }


def unfit(ground: dict[str, Any]) -> str | None:
    """Say why a results file is no ground for a prediction."""
    packed = ground["packed"]
    if any(line.get("threads") for line in packed):
        return "runs in threads have been measured: the prediction has to go"
    if not any(line["mps"] and line["runs"] == 4 for line in packed):
        return "four runs under MPS have not been measured"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Write the prediction, and print how it comes about. Returns 2 if there is no ground for one."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.predicted",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    ground = json.loads(GROUND.read_text())
    if why := unfit(ground):
        print(f"{GROUND}: {why}; nothing was written", file=sys.stderr)
        return 2
    found = predicted(ground)
    write_whole(OUT, found)
    table(
        ("a training step at r = 0.3", "us"),
        ("measured", found["step_us"]["measured"]),
        *((f"- {what}", -saved) for what, saved in SAVINGS_US.items()),
        ("predicted", found["step_us"]["predicted"]),
    )
    table(
        ("runs on the GPU", "epochs a second"),
        *((it["runs"], it["epochs_per_second"]) for it in found["packed"]),
    )
    print(f"written to {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
