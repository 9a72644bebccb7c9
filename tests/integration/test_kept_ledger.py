"""A ledger of commit 15d2fea is read, continued, reported and exported with that commit's numbers.

tests/data/README.md says what it holds. Epochs that are trained now are not compared: their last bits
depend on the processor.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.kept import DATA, STUDIES, unpack
from tests.sweeps import sweep

TABLES = ("epochs", "endpoints", "runs", "candidates", "comparisons", "across")
PROSE = ("description", "store")
"""Keys of the report whose words may change."""
MENDED = ("first_place", "detectable_gain", "overlap", "best_epoch", "last_epoch", "inflation", "published")
"""Keys whose meaning was mended since.

All seeds are tested, from the first one on. The detectable gain is that of the declared test, and no longer
that of a t test. Overlap is over all rows outside the test set. The best epoch is read at a fixed r.
Published figures are what the study says."""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A copy of the ledger's store, every file with the time that the index knows it by."""
    return unpack(tmp_path)


def given_up(store: Path) -> str:
    """Put the study `kept` back to where its last run had been given up; return that run's id."""
    state, study = store.parent / "given-up" / "kept", store / "kept"
    (run,) = (state / "runs").iterdir()
    shutil.rmtree(study / "runs" / run.name)
    shutil.copytree(state, study, dirs_exist_ok=True)
    return run.name


def file(study: str) -> Path:
    """Return a study's file."""
    return DATA / f"{study}.yaml"


def files(folder: Path, *without: str) -> dict[str, bytes]:
    """Return every file in a study's folder, without some of its parts."""
    named = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(without)}


def json_of(*arguments: str | Path) -> Any:
    """Run a command with --json and return what it says."""
    done = sweep(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield every path where `found` is not as expected.

    It may have more keys, but not fewer. Numbers may differ by what the order of a sum does.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key in MENDED:
                continue
            if key not in found:
                yield f"{path}.{key}: is gone"
            elif key not in PROSE:
                yield from differences(value, found[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (before, now) in enumerate(zip(expected, found, strict=True)):
            yield from differences(before, now, f"{path}.{i}")
    elif isinstance(expected, float) and isinstance(found, float | int):
        if not (
            math.isclose(expected, found, rel_tol=1e-9, abs_tol=1e-12)
            or (math.isnan(expected) and math.isnan(found))
        ):
            yield f"{path}: {found} and not {expected}"
    elif expected != found:
        yield f"{path}: {found} and not {expected}"


@pytest.mark.parametrize("study", STUDIES)
def test_it_is_complete_and_its_study_file_is_the_one_it_was_begun_with(kept: Path, study: str) -> None:
    before = files(kept / study)
    seen = json_of("status", file(study), "--store", kept)
    planned = json_of("plan", file(study), "--store", kept, "--workers", "1")
    assert (seen["complete"], seen["done"], seen["damaged"], seen["failures"]) == (
        True,
        seen["total"],
        {},
        {},
    )
    assert (planned["runs_left"], planned["runs_done"]) == (0, seen["total"])
    assert not any("grew" in warning for warning in planned["warnings"])
    assert files(kept / study) == before


@pytest.mark.parametrize("study", STUDIES)
def test_every_file_of_it_is_found_to_be_whole(kept: Path, study: str) -> None:
    before = files(kept / study, "lease/")
    assert json_of("doctor", file(study), "--store", kept) == []
    assert files(kept / study, "lease/") == before


@pytest.mark.parametrize("study", STUDIES)
def test_its_report_and_its_export_have_the_same_numbers(kept: Path, study: str, tmp_path: Path) -> None:
    before, expected = files(kept / study), DATA / "expected-15d2fea" / study
    json_of("export", file(study), "--store", kept, "--to", tmp_path / "out")
    for name in TABLES:
        were, are = (pq.read_table(folder / f"{name}.parquet") for folder in (expected, tmp_path / "out"))
        assert [*differences(were.to_pylist(), are.to_pylist(), name)] == []
    numbers = json.loads((expected / "report.json").read_text())
    assert [*differences(numbers, json.loads((tmp_path / "out" / "report.json").read_text()))] == []
    assert files(kept / study) == before


def test_without_its_index_it_says_the_same(kept: Path) -> None:
    (kept / "kept" / "index.json").unlink()
    numbers = json.loads((DATA / "expected-15d2fea" / "kept" / "report.json").read_text())
    assert [*differences(numbers, json_of("report", file("kept"), "--store", kept))] == []


@pytest.mark.slow
def test_a_run_that_was_given_up_goes_on_from_what_it_kept_and_nothing_else_is_touched(kept: Path) -> None:
    run_id, ledger = given_up(kept), kept / "kept"
    (failure,) = json_of("status", file("kept"), "--store", kept)["failures"].items()
    assert failure[0] == run_id
    *_, table = sorted((ledger / "runs" / run_id / "attempt-1").glob("epochs-*.parquet"))
    committed, run = pq.read_table(table).to_pylist(), f"runs/{run_id}/"
    mine = (run, "failures/", "lease/", "index.json", "preflight/")
    before = files(ledger, *mine)
    done = sweep("run", file("kept"), "--store", kept)
    assert done.returncode == 0, done.stderr
    assert files(ledger, *mine) == before
    rows = pq.read_table(ledger / run / "epochs.parquet").to_pylist()
    assert 0 < len(committed) < len(rows)
    assert rows[: len(committed)] == committed
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert not files(ledger / "failures")
    seen = json_of("status", file("kept"), "--store", kept)
    assert (seen["complete"], seen["done"]) == (True, 44)
