"""Every kind of file in a half-done sweep, and what can happen to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.sweeps import folders
from trainer.rows import WALL

STUDY = "small"


def _finished(pattern: str, place: int = 3) -> Callable[[Path], Path]:
    """Find a file of one of the finished runs."""
    return lambda store: sorted(
        next(done.parent.glob(pattern)) for done in (store / STUDY / "runs").glob("*/outcome.json")
    )[place]


def _under_way(pattern: str) -> Callable[[Path], Path]:
    """Find the last such file of the run that has no outcome yet."""

    def find(store: Path) -> Path:
        (run,) = (
            path for path in (store / STUDY / "runs").iterdir() if not (path / "outcome.json").exists()
        )
        return sorted(run.glob(pattern))[-1]

    return find


def _kept_weights(store: Path) -> Path:
    return next(
        path
        for path in sorted((store / STUDY / "runs").glob("*/attempt-1/*.pt"))
        if (path.parent.parent / "outcome.json").exists()
    )


def _of_study(pattern: str) -> Callable[[Path], Path]:
    return lambda store: sorted((store / STUDY).glob(pattern))[0]


FILES: dict[str, Callable[[Path], Path]] = {
    "the study": _of_study("study.json"),
    "the first generation": _of_study("generations/additive-0.json"),
    "the last generation": _of_study("generations/additive-1.json"),
    "the lease": _of_study("lease/lease-*.json"),
    "the index": _of_study("index.json"),
    "a failure": _of_study("failures/*.json"),
    "an outcome": _finished("outcome.json"),
    "a finished run's spec": _finished("spec.json"),
    "a finished run's epochs": _finished("attempt-1/epochs-*.parquet"),
    "the copy of its epochs": _finished("epochs.parquet"),
    "a finished run's endpoints": _finished("attempt-1/endpoints-*.parquet"),
    "the copy of its endpoints": _finished("endpoints.parquet"),
    "a finished run's attempt": _finished("attempt-1/attempt.json"),
    "the weights that were kept": _kept_weights,
    "the last checkpoint": _under_way("attempt-1/checkpoint-2-*.pt"),
    "epochs so far": _under_way("attempt-1/epochs-2-*.parquet"),
    "an unfinished run's spec": _under_way("spec.json"),
    "an unfinished run's attempt": _under_way("attempt-1/attempt.json"),
}


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda _: b"",
    "flipped": _flipped,
}


def damage(path: Path, how: str) -> None:
    """Write over a file, as people and programs do; the file has a new time."""
    path.write_bytes(DAMAGES[how](path.read_bytes()))


def rot(path: Path) -> None:
    """Flip one bit, as disks do; the file keeps its time."""
    times = path.stat()
    path.write_bytes(_flipped(path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def whole_rows(store: Path) -> dict[str, list[dict[str, Any]]]:
    """Return every finished run's table without wall columns.

    A table has two copies; the one that the outcome stands for is read.
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    for folder in folders(store):
        file = json.loads((folder / "outcome.json").read_text())["files"]["epochs"]
        copies = [path.read_bytes() for path in (folder / file["name"], folder / "epochs.parquet")]
        table = pq.read_table(
            pa.BufferReader(next(data for data in copies if sha256(data).hexdigest() == file["sha256"]))
        )
        tables[folder.name] = table.drop_columns(
            [name for name in table.column_names if name in WALL]
        ).to_pylist()
    return tables
