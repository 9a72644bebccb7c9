"""The chances of a false claim and of a true one: `python -m benchmarks.chances --json`; some minutes.

Many studies are simulated at once with NumPy, and the tests are written anew here, so that the library is
measured against something that is not itself. Each part ends with its gates. The figures are the same
every time. `--json` keeps them; with `--only`, the other parts of the file stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chances_pairs import coverage, looks, power, verdicts
from benchmarks.chances_searches import against_itself, resampled
from benchmarks.chances_statistics import ALPHA, Row
from benchmarks.machine import RESULTS, describe

STUDIES = 20_000
KEPT = RESULTS / "chances.json"


@dataclass(frozen=True)
class Part:
    """One table: what it shows, how it is simulated, and the columns that are not merged into ranges."""

    title: str
    simulate: Callable[[int], list[Row]]
    columns: Sequence[str]


PARTS = {
    "self": Part(
        "an arm against itself, each searched: any false claim, % (settings of 0, 1, 3 sd at two endpoints)",
        against_itself,
        ("surface", "noise", "objective", "proposals"),
    ),
    "looks": Part("more than one look: % of studies", looks, ("design", "comparisons")),
    "verdicts": Part(
        "verdicts with margins of .5, 1, 1.5 sd: % of studies with a false one, % of comparisons",
        verdicts,
        ("noise", "comparisons", "looks", "gain"),
    ),
    "coverage": Part("intervals that hold, %", coverage, ("pairs", "comparisons", "true gain")),
    "power": Part("chances to find a gain, simulated and forecast, %", power, ("test", "pairs")),
    "resampled": Part(
        "test sets of 200 drawn anew from the same 600 rows: false gains, %",
        resampled,
        ("pairs", "training rows", "their effect", "seed's noise"),
    ),
}


def span(values: Sequence[float]) -> str:
    """The least and the largest value as text, or the only one."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    low, high = f"{min(known):.2f}", f"{max(known):.2f}"
    return low if low == high else f"{low} to {high}"


def table(part: Part, rows: Sequence[Row]) -> Table:
    """A table of a part; rows that agree in its columns are merged into the ranges of their figures."""
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    result = Table(*part.columns, *figures, "gate", title=part.title)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.case[name]) for name in part.columns), []).append(row)
    for labels, group in groups.items():
        spans = [span([row.figures.get(name, math.nan) for row in group]) for name in figures]
        missed = sum(bool(row.missed) for row in group)
        gated = any(row.gates for row in group)
        result.add_row(*labels, *spans, f"[red]{missed} missed" if missed else "met" if gated else "")
    return result


def record(row: Row) -> dict[str, Any]:
    """A row as it is kept; a figure that nothing was found for is left out."""
    figures = {name: round(value, 4) for name, value in row.figures.items() if not math.isnan(value)}
    gates = {name: list(bounds) for name, bounds in row.gates.items()}
    return {**row.case, **figures, "gates": gates, "missed": row.missed}


def text(kept: dict[str, Any]) -> str:
    """The kept figures as JSON with a row on each line."""
    return re.sub(r"\n {4,}|\n {3}(?=\})", " ", json.dumps(kept, indent=1)) + "\n"


def main() -> int:
    """Simulate the parts and print them; return 1 if a gate is missed."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.chances", description=__doc__)
    options.add_argument("--json", action="store_true", help=f"keep the figures in {KEPT.name}")
    options.add_argument("--studies", type=int, default=STUDIES, help="the number of studies of each case")
    options.add_argument("--only", choices=PARTS, help="one part instead of all")
    given = options.parse_args()
    console, missed = Console(width=160), 0
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if given.only and KEPT.exists() else {}
    for name in [given.only] if given.only else PARTS:
        start, part = time.perf_counter(), PARTS[name]
        rows = part.simulate(given.studies)
        console.print(table(part, rows))
        gated = [row for row in rows if row.gates]
        out = [row for row in gated if row.missed]
        missed += len(out)
        seconds = round(time.perf_counter() - start, 1)
        console.print(f"{name}: {len(gated) - len(out)} of {len(gated)} gates met; {seconds:.0f} s")
        kept[name] = {
            "alpha": ALPHA,
            "studies": given.studies,
            "seconds": seconds,
            "machine": describe("numpy", "scipy"),
            "gates": len(gated),
            "missed": len(out),
            "rows": [record(row) for row in rows],
        }
    if given.json:
        RESULTS.mkdir(exist_ok=True)
        KEPT.write_text(text(kept))
    console.print(f"{missed} gates missed" if missed else "All gates are met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
