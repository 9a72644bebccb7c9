"""A store as somebody is handed it, in which a run has failed for a reason that a stranger wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.kept import falsify, unpack


def store_with_a_failure(folder: Path) -> Path:
    """Return a store with the study `kept`, in which a run of a tested arm was given up."""
    store = unpack(folder)
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


def forge_failure(store: Path, reason: str, log: list[str]) -> str:
    """Let the failed run have failed for this reason; return its id."""
    (failure,) = (store / "kept" / "failures").glob("*.json")
    falsify(failure, lambda body: body.update(reason=reason, log=log, node=f"node {reason}"))
    return failure.stem
