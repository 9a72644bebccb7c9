"""Counts what came of faults: the rows that were lost, doubled or changed beside an undisturbed sweep.

`make soak` gathers the counts of all tests in the file that SOAK names, a line of JSON each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.sweeps import folders
from trainer.rows import WALL

ROUNDS = int(os.environ.get("ROUNDS", "1"))
"""How many times a test of a fault is done; `make soak` asks for more."""


@dataclass(frozen=True)
class Tally:
    """The faults of one kind that a sweep went through, and its rows after them."""

    kind: str
    faults: int
    sweeps: int
    rows_expected: int
    rows_lost: int
    rows_doubled: int
    """Rows that are there twice, and rows of runs that an undisturbed sweep does not have."""
    rows_changed: int


def assert_whole(
    kind: str,
    faults: Mapping[str, int] | int,
    store: Path,
    undisturbed: Path,
) -> None:
    """Keep the tally of a finished sweep, and fail where it does not have exactly the undisturbed rows.

    `faults` are their number, or their numbers by the finer kinds.
    """
    found, expected = _by_epoch(store), _by_epoch(undisturbed)
    lost = sum(key not in found for key in expected)
    doubled = sum(len(same) - (key in expected) for key, same in found.items())
    changed = sum(key in found and found[key][0] != same[0] for key, same in expected.items())
    by_kind = {"": faults} if isinstance(faults, int) else faults
    for finer, number in by_kind.items():
        # the rows are those of the sweep: a sweep with several kinds of fault counts once, at the first
        first = finer == next(iter(by_kind))
        tally = Tally(
            f"{kind}: {finer}" if finer else kind,
            number,
            int(first),
            len(expected) if first else 0,
            lost if first else 0,
            doubled if first else 0,
            changed if first else 0,
        )
        _keep(tally)
    assert (lost, doubled, changed) == (0, 0, 0), f"of {len(expected)} rows (lost, doubled, changed)"


def _by_epoch(store: Path) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for folder in folders(store):
        # the file that the outcome stands for; the copy beside it is for people
        outcome = json.loads((folder / "outcome.json").read_text())
        table = pq.read_table(folder / outcome["files"]["epochs"]["name"])
        for row in table.drop_columns([name for name in table.column_names if name in WALL]).to_pylist():
            found.setdefault((folder.name, row["epoch"]), []).append(row)
    return found


def _keep(tally: Tally) -> None:
    if file := os.environ.get("SOAK"):
        with Path(file).open("a") as lines:
            lines.write(json.dumps(asdict(tally)) + "\n")
