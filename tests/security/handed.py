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


def finished_store(folder: Path) -> Path:
    """Return a store with the finished study `kept`."""
    with tarfile.open(DATA / "ledger-15d2fea.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "store" / "kept" / "index.json").unlink()  # it knows the runs by their times
    return folder / "store"


def store_with_a_failure(folder: Path) -> Path:
    """Return a store with the study `kept`, in which a run of a tested arm was given up."""
    store = finished_store(folder)
    study = store / "kept"
    tested = [run for run in sorted((study / "runs").iterdir()) if _is_tested(run)]
    shutil.rmtree(tested[0])
    (failure,) = (folder / "given-up" / "kept" / "failures").iterdir()
    (study / "failures").mkdir(exist_ok=True)
    shutil.copy(failure, study / "failures" / f"{tested[0].name}.json")
    return store


def _is_tested(run: Path) -> bool:
    spec = json.loads((run / "spec.json").read_text())
    return spec["policy"]["name"] == "additive-reset" and spec["task"]["validation"] == 0


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
