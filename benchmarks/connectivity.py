"""Measure what rewiring costs: an epoch of each sparse policy beside a dense epoch of the same network.

`python -m benchmarks.connectivity` takes three minutes on two cores and keeps
`results/connectivity.json`.
The policies take turns, an epoch each, so that other load on the machine meets all of them. Figures are
medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import RESULTS, describe
from trainer.spec import RunSpec
from trainer.training import Training

MODEL, BATCH = "mlp-1000-1000-1000", 32
DATA = ("digits", "breast-cancer", "wine")
POLICIES: dict[str, dict[str, Any]] = {
    "dense": {"name": "dense"},
    "set": {"name": "set"},
    "static-sparse": {"name": "static-sparse"},
    # neurons go after every epoch and connections move in between: the most that a policy here does at once
    "npset": {"name": "npset", "start": 1, "period": 1, "percentile": 2.0},
}
WARM_UP = 2


class Timed:
    """A training whose epochs, and the rewiring within them, are timed."""

    def __init__(self, data: str, policy: dict[str, Any], epochs: int) -> None:
        task = {"data": data, "model": MODEL, "batch_size": BATCH, "learning_rate": 0.01, "epochs": epochs}
        self.training = Training(RunSpec.read({"task": task, "policy": policy, "seed": 1}))
        self.rows, self.rewiring, rewire = iter(self.training), 0.0, self.training.policy.rewire

        def timed(wiring: Any) -> None:
            start = time.perf_counter()
            rewire(wiring)
            self.rewiring = time.perf_counter() - start

        self.training.policy.rewire = timed  # type: ignore[method-assign]

    def epoch(self) -> tuple[float, float]:
        """Seconds of the next epoch with its evaluation and rewiring, and of the rewiring alone."""
        self.rewiring = 0.0
        return next(self.rows).seconds, self.rewiring


def measure(data: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return each policy's median epoch, its ratio to dense in the same round, and the rewiring's share."""
    runs = {name: Timed(data, policy, WARM_UP + rounds + 1) for name, policy in POLICIES.items()}
    epochs = [{name: run.epoch() for name, run in runs.items()} for _ in range(WARM_UP + rounds)][WARM_UP:]
    return {
        name: {
            "milliseconds": 1000 * median(it[name][0] for it in epochs),
            "over_dense": median(it[name][0] / it["dense"][0] for it in epochs),
            "rewiring_share": median(it[name][1] / it[name][0] for it in epochs),
            "connections": sum(len(layer.places) for layer in runs[name].training.connections.layers),
        }
        for name in runs
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=40, metavar="N", help="epochs of each policy that count (default: 40)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS / "connectivity.json",
        metavar="FILE",
        help="where the figures are kept",
    )
    options = parser.parse_args()
    torch.set_num_threads(2)
    found = {data: measure(data, options.rounds) for data in DATA}
    for data, policies in found.items():
        for name, it in policies.items():
            print(
                f"{data:14} {name:14} {it['milliseconds']:7.1f} ms  {it['over_dense']:.2f} x dense  "
                f"rewiring {100 * it['rewiring_share']:4.1f} %  {it['connections']:,} connections"
            )
    setting = {"model": MODEL, "batch_size": BATCH, "rounds": options.rounds, "threads": 2}
    options.out.write_text(
        json.dumps({"machine": describe(), "setting": setting, "measured": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
