"""Does the quickstart say the same wherever it runs? `python -m benchmarks.five`; 15 to 30 minutes.

The quickstart runs five times: with three study seeds, and with two of them again on the plainest
instructions that PyTorch has, as on another processor. A run's arithmetic then differs in its last bits, and
with it all that follows. No two of the five may declare opposite verdicts, and a gain that one declares has
to have its sign in all of them. `--keep DIR` goes on with what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import RESULTS, describe
from sweep.format import points
from sweep.study import find

RUNS = [(1, ""), (2, ""), (3, ""), (1, "default"), (2, "default")]
"""The study's seed, and PyTorch's instructions; empty for those that it picks for this processor."""
FIGURES = ("gain", "family_low", "family_high", "p_holm", "better", "pairs")


def reported(folder: Path, seed: int, instructions: str) -> dict[str, Any]:
    """Run the quickstart in a folder; return what its report says of every tested comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / "quickstart.yaml"
    study.write_text(find("quickstart").read_text().replace("\nseed: 1 ", f"\nseed: {seed} ", 1))
    environment = {**os.environ, **({"ATEN_CPU_CAPABILITY": instructions} if instructions else {})}
    here = ["--store", str(folder / "store")]
    start = time.perf_counter()
    for command in (["run", "--mlflow-uri", "none"], ["report", "--json"]):
        arguments = [sys.executable, "-m", "sweep", command[0], str(study), *here, *command[1:]]
        done = subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    rows = [row for row in report["comparisons"] if row["role"] == "family"]
    return {
        "seed": seed,
        "instructions": instructions or "those of this processor",
        "seconds": time.perf_counter() - start,
        "runs": sum(report["runs"].values()),
        "collapsed": report["runs"]["collapsed"],
        "verdicts": {name(row): {"verdict": row["verdict"], **{k: row[k] for k in FIGURES}} for row in rows},
    }


def name(row: dict[str, Any]) -> str:
    """A comparison in words."""
    return f"{row['arm']} over {row['reference_arm']} at r = {row['keep_ratio']:g}"


def contradictions(reports: list[dict[str, Any]]) -> list[str]:
    """The comparisons of which a verdict in one report does not fit another report."""
    found: list[str] = []
    for comparison in reports[0]["verdicts"]:
        rows = [report["verdicts"][comparison] for report in reports]
        declared = {row["verdict"] for row in rows} & {"better", "worse"}
        signs = {row["gain"] > 0 for row in rows}
        if len(declared) > 1 or (declared and len(signs) > 1):
            found.append(comparison)
    return found


def main() -> int:
    """Run all five, print a table, keep a file; return 1 where two of them contradict each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--keep", type=Path, help="the folder for the stores; by default one that is deleted"
    )
    keep: Path | None = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        base = keep or Path(temporary)
        reports = [reported(base / f"{seed}-{kind or 'own'}", seed, kind) for seed, kind in RUNS]
    console, wrong = Console(width=130), contradictions(reports)
    table = Table("seed", "instructions", *reports[0]["verdicts"])
    for report in reports:
        cells = [
            f"{row['verdict']}\n{points(row['gain'])} "
            f"[{points(row['family_low'])}, {points(row['family_high'])}]"
            for row in report["verdicts"].values()
        ]
        table.add_row(str(report["seed"]), report["instructions"], *cells)
    console.print(table)
    body = {"reports": reports, "contradictions": wrong, "machine": describe("torch", "numpy")}
    (RESULTS / "five.json").write_text(json.dumps(body, indent=1) + "\n")
    console.print(f"kept in {RESULTS / 'five.json'}; contradictions: {wrong or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
