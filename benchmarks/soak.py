"""What is left of a sweep's rows after many faults? `make soak`; some half an hour.

Every test of a fault that is done to a whole sweep is run, in larger numbers than `make test-all` does it.
KILLS, ROUNDS and CASES ask for other numbers. Each finished sweep is compared with an undisturbed one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.machine import RESULTS, describe

ROOT = Path(__file__).parents[1]
NUMBERS = {"KILLS": "110", "ROUNDS": "2", "CASES": "2000"}
"""Kills of the whole tree, sweeps with each other fault, and hostile files. A few kills come too late."""
FAULTS = [
    *("tests/chaos/test_sweep_kills.py", "tests/chaos/test_clocks.py", "tests/chaos/test_bad_stores.py"),
    *("tests/chaos/test_oom.py", "tests/chaos/test_locked_database.py"),
    *("tests/chaos/test_frozen_driver.py", "tests/security/test_hostile_json.py"),
]


def summed(lines: list[str]) -> dict[str, Counter[str]]:
    """The counts of each kind of fault, in the order in which the kinds came."""
    sums: dict[str, Counter[str]] = {}
    for line in lines:
        values = json.loads(line)
        sums.setdefault(values.pop("kind"), Counter()).update(values)
    return sums


def table(kinds: dict[str, Counter[str]]) -> str:
    """The counts as text. Where several faults are done to the same sweep, its rows stand at the first."""
    heads = ("faults", "sweeps", "rows_expected", "rows_lost", "rows_doubled", "rows_changed")
    lines = [f"{'':50}" + "".join(f"{head.replace('rows_', ''):>10}" for head in heads)]
    for kind, counts in [*kinds.items(), ("together", sum(kinds.values(), Counter[str]()))]:
        lines.append(f"{kind:50}" + "".join(f"{counts[head]:>10,}" for head in heads))
    return "\n".join(lines)


def main() -> int:
    """Run the tests, print the table and keep it; return the code of pytest."""
    numbers = {name: os.environ.get(name, number) for name, number in NUMBERS.items()}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tallies, results = Path(folder, "tallies"), Path(folder, "results.xml")
        files = [file for file in FAULTS if (ROOT / file).exists()]
        command = [sys.executable, "-m", "pytest", "-n", "0", "-v", f"--junitxml={results}", *files]
        code = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **numbers, "SOAK": str(tallies)}, check=False
        ).returncode
        kinds = summed(tallies.read_text().splitlines() if tallies.exists() else [])
        suite = ElementTree.parse(results).getroot()[0].attrib
    print(table(kinds))
    kept = {
        "asked_for": numbers,
        "tests": {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")},
        "faults": kinds,
        "together": sum(kinds.values(), Counter[str]()),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "machine": describe("ray", "mlflow", "obstore"),
    }
    (RESULTS / "soak.json").write_text(json.dumps(kept, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
