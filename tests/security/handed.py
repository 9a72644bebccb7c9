"""A store as somebody is handed it: a real one of commit 15d2fea, in which files are forged."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from trainer.store import seal, unseal

DATA = ROOT / "tests" / "data"
STUDY = DATA / "kept.yaml"


def store_with_a_failure(folder: Path) -> Path:
    """Return a store with the study `kept`, whose last run was given up."""
    with tarfile.open(DATA / "ledger-15d2fea.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    study, state = folder / "store" / "kept", folder / "given-up" / "kept"
    (run,) = (state / "runs").iterdir()
    shutil.rmtree(study / "runs" / run.name)
    shutil.copytree(state, study, dirs_exist_ok=True)
    (study / "index.json").unlink()  # it knows the runs by their times
    return folder / "store"


def finished_store(folder: Path) -> Path:
    """Return a store with the finished study `kept`."""
    with tarfile.open(DATA / "ledger-15d2fea.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "store" / "kept" / "index.json").unlink()
    return folder / "store"


def forge(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the content of a sealed file, and seal it again."""
    body = unseal(file.read_bytes())
    change(body)
    file.write_bytes(seal(json.loads(json.dumps(body))))


def forge_failure(store: Path, reason: str, log: list[str]) -> str:
    """Let the failed run have failed for this reason; return its id."""
    (failure,) = (store / "kept" / "failures").glob("*.json")
    forge(failure, lambda body: body.update(reason=reason, log=log, node=f"node {reason}"))
    return failure.stem
