"""The ledger that commit 15d2fea made, as another person may hand it on, and ways to falsify it."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from trainer.store import seal, unseal

DATA = ROOT / "tests" / "data"
STUDIES = ("kept", "kept-tasks")
"""The finished studies of the store that `unpack` makes."""
STUDY = DATA / "kept.yaml"
"""The file of the first one."""


def unpack(folder: Path) -> Path:
    """Unpack the ledger, and return its store. Every file has the time that the index knows it by."""
    with tarfile.open(DATA / "ledger-15d2fea.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for study in STUDIES:
        ledger = folder / "store" / study
        for run_id, (stamp, _) in json.loads((ledger / "index.json").read_text())["runs"].items():
            nanoseconds = int(stamp.partition("-")[2])
            os.utime(ledger / "runs" / run_id / "outcome.json", ns=(nanoseconds, nanoseconds))
    return folder / "store"


def first_run(store: Path) -> Path:
    """The folder of a finished run."""
    return min((store / "kept" / "runs").iterdir())


def falsify(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a sealed file, and seal it anew: anybody can."""
    body = unseal(path.read_bytes())
    change(body)
    path.write_bytes(seal(body))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file under a folder, with its mode and content. Links are not followed."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }
