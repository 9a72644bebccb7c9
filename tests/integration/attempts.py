"""One small run and its attempts, for the tests of a run's folder and of attempts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import run_spec, without_wall
from trainer.attempt import Attempt
from trainer.rows import EpochRow, from_parquet
from trainer.spec import RunSpec
from trainer.store import LocalStore, seal, unseal
from trainer.training import Training

SPEC = run_spec(epochs=4)


def attempt(
    root: Path,
    spec: RunSpec = SPEC,
    said: list[str] | None = None,
    store: LocalStore | None = None,
    commit_share: float = 1,
    **options: Any,
) -> Attempt:
    say = said.append if said is not None else lambda _: None
    return Attempt(
        store or LocalStore(root),
        spec,
        lambda: Training(spec),
        show=say,
        commit_share=commit_share,
        **options,
    )


def take(attempt: Attempt, rows: int) -> None:
    """Train some epochs and leave, as a killed process does."""
    for _ in zip(range(rows), attempt, strict=False):
        pass


def as_left_by_an_ended_process(root: Path) -> None:
    """Let the claims in a store be those of a process that has ended. A test's own process goes on."""
    for path in root.rglob("attempt.json"):
        record = unseal(path.read_bytes())
        path.write_bytes(seal({**record, "holder": {**record["holder"], "started": "0"}}))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def checkpoints(root: Path) -> list[Path]:
    """Return the checkpoints, latest epoch first."""
    return sorted(root.rglob("checkpoint-*.pt"), key=lambda path: int(path.name.split("-")[1]), reverse=True)


def kept_rows(root: Path) -> list[dict[str, Any]]:
    return without_wall(from_parquet(EpochRow, (root / SPEC.run_id / "epochs.parquet").read_bytes()))
