"""What do faults of a cluster's hosts and cables cost a sweep? `make drill`; some forty minutes.

The hosts are namespaces of this machine (tests/cluster/lan.py). Each drill compares its sweep with one that
nothing disturbed, on the same three hosts. `--only NAME` runs the drills with this in their name.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe
from tests.cluster import drills
from tests.cluster.drills import DRILLS, Lab, Rows, Swept, numbers, undisturbed
from tests.cluster.lan import Lan

UNDISTURBED = "undisturbed"
LOSS, DELAY = 0.05, 0.2
"""The share of the packets between two hosts that is lost, and the seconds by which the others are late."""


def on_three_hosts(drill: Callable[[Lab], list[Swept]], lab: Lab) -> list[Swept]:
    """Run a drill on a cluster of three hosts."""
    lab.begin(3).ready()
    return drill(lab)


def on_bad_cables(lab: Lab) -> list[Swept]:
    """Run a sweep while the cable of every host loses and delays packets. Each packet passes two cables."""
    lab.begin(3, loss=LOSS / 2, delay=DELAY / 2).ready()
    return drills.quiet(lab)


def from_zero(lab: Lab) -> list[Swept]:
    """Run a sweep on a cluster that has no node for it at first."""
    return drills.from_zero(lab.begin_from_zero())


def others() -> dict[str, Callable[[Lab], list[Swept]]]:
    """The drills that need a cluster of another kind, by name."""
    return {
        f"{LOSS:.0%} of packets lost, {1000 * DELAY:.0f} ms delay": on_bad_cables,
        "from zero nodes": from_zero,
        "GCS gone for good": lambda lab: drills.head_lost(lab.begin(3, kept=False)),
    }


def measured(
    name: str, drill: Callable[[Lab], list[Swept]], quiet: tuple[Rows, list[bytes]]
) -> dict[str, Any]:
    """Run a drill in a new lab, and return what came of it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Lan() as lan:
        lab = Lab(lan, Path(folder))
        try:
            swept = drill(lab)
        except Exception as error:
            traceback.print_exc()
            return {"drill": name, "passed": False, "why": str(error).splitlines()[0][:200]}
        epochs = len(swept) * sum(len(rows) for rows in quiet[0].values())
        equal = all(numbers(sweep.store, sweep.name) == quiet for sweep in swept)
        spent = sum(sweep.tries_spent for sweep in swept)
        return {
            "drill": name,
            "passed": equal and not spent,
            "seconds": round(max(sweep.seconds for sweep in swept), 1),
            "rows_equal": equal,
            "tries_spent": spent,
            "epochs": epochs,
            "epochs_trained_twice": lab.trained() - epochs,
            "lab_seconds": round(time.monotonic() - began, 1),
        }


def main() -> int:
    """Run the drills, print a line for each, and keep the results; 1 where one did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="a part of a drill's name")
    only = parser.parse_args().only or [""]
    every = {name: lambda lab, drill=drill: on_three_hosts(drill, lab) for name, drill in DRILLS.items()}
    wanted = {
        name: drill
        for name, drill in {**every, **others()}.items()
        if name == UNDISTURBED or any(part in name for part in only)
    }
    file = RESULTS / "drill.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if only != [""] and file.exists() else {}
    results = {result["drill"]: result for result in kept.get("drills", [])}
    with tempfile.TemporaryDirectory() as folder:
        quiet = undisturbed(Path(folder))
    for name, drill in wanted.items():
        result = measured(name, drill, quiet)
        results[name] = result
        result["undisturbed_seconds"] = results.get(UNDISTURBED, {}).get("seconds")
        print(json.dumps(results[name]), flush=True)
        values = {"machine": describe("ray"), "drills": list(results.values())}
        file.write_text(json.dumps(values, indent=1) + "\n")
    return int(not all(results[name]["passed"] for name in wanted))


if __name__ == "__main__":
    sys.exit(main())
