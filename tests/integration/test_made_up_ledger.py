"""The made-up ledger that the benchmarks time, made small, must be one that the commands can read."""

from __future__ import annotations

from pathlib import Path

from benchmarks.large import make, study
from sweep.ledger.ledger import Ledger
from trainer.rows import EpochRow, from_parquet


def test_the_ledger_that_is_timed_is_read_as_a_finished_study(tmp_path: Path) -> None:
    made = study(3, 2, 4)
    make(tmp_path, made)
    ledger = Ledger(str(tmp_path), made.name, print)
    ledger.load(keep=False)
    assert len(ledger.results) == 6
    for folder in (tmp_path / made.name / "runs").iterdir():
        rows = from_parquet(EpochRow, (folder / "epochs.parquet").read_bytes())
        assert [row.epoch for row in rows] == [1, 2, 3, 4]
        assert {row.connections for row in rows} == {None}
