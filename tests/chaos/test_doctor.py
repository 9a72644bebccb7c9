"""The doctor on a half-done sweep.

It names each damaged file, mends what follows from other files, and leaves the rest as it is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.errors import DamagedLedger, Held, NothingBegun
from sweep.ledger.doctor import Finding, examine
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.study import Study
from tests.chaos.damage import DAMAGES, FILES, damage, rot, whole_rows
from tests.loops import begin, drive, short_values, study_of
from tests.sweeps import generations, sweep
from trainer.store import seal, unseal

MOMENT = 0.02
"""The wait in these tests for a lease whose holder nobody can ask."""


def examined(store: Path, study: Study | None = None) -> list[Finding]:
    return examine(study or study_of(), Ledger(str(store), "small", print), MOMENT)


def named(findings: list[Finding], path: Path) -> bool:
    return str(path) in [finding.file for finding in findings]


def files(store: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.parent.name != "lease"
    }


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_named_and_mended_and_the_sweep_ends_as_if_nothing_had_been(
    kind: str, how: str, half_done: Path, finished_sweep: Path, rows_undisturbed: dict[str, Any]
) -> None:
    path = FILES[kind](half_done)
    damage(path, how)
    findings = examined(half_done)
    assert named(findings, path)
    assert all(finding.repaired for finding in findings), findings
    assert examined(half_done) == []
    assert drive(study_of(), half_done).complete
    assert whole_rows(half_done) == rows_undisturbed
    assert generations(half_done) == generations(finished_sweep)
    assert examined(half_done) == []


@pytest.mark.parametrize(
    "kind",
    ["an outcome", "a finished run's epochs", "the copy of its endpoints", "the weights that were kept"],
)
def test_bits_that_rot_without_a_new_time_are_found_although_the_index_fits(
    kind: str, half_done: Path, rows_undisturbed: dict[str, Any]
) -> None:
    path = FILES[kind](half_done)
    rot(path)
    findings = examined(half_done)
    assert named(findings, path)
    assert all(finding.repaired for finding in findings)
    assert drive(study_of(), half_done).complete
    assert whole_rows(half_done) == rows_undisturbed


def test_a_sweep_without_damage_is_left_as_it_is(half_done: Path) -> None:
    before = files(half_done)
    assert examined(half_done) == []
    assert files(half_done) == before


def test_of_a_table_with_both_copies_damaged_the_run_is_made_anew(
    half_done: Path, rows_undisturbed: dict[str, Any]
) -> None:
    for kind in ("a finished run's epochs", "the copy of its epochs"):
        damage(FILES[kind](half_done), "cut")
    path = FILES["a finished run's epochs"](half_done)
    findings = examined(half_done)
    assert named(findings, path)
    assert all(finding.repaired for finding in findings)
    assert drive(study_of(), half_done).complete
    assert whole_rows(half_done) == rows_undisturbed


def test_what_is_put_aside_keeps_its_content_under_another_name(half_done: Path) -> None:
    path = FILES["an outcome"](half_done)
    damage(path, "cut")
    damaged = path.read_bytes()
    examined(half_done)
    assert not path.exists()
    assert path.with_name("outcome.json.damaged").read_bytes() == damaged


@pytest.mark.parametrize(
    "kinds",
    [
        ("the first generation", "the last generation"),
        ("the study", "the index", "an unfinished run's spec"),
    ],
)
def test_several_damages_at_once_are_all_mended(
    kinds: tuple[str, ...], half_done: Path, finished_sweep: Path
) -> None:
    paths = [FILES[kind](half_done) for kind in kinds]
    for path in paths:
        damage(path, "flipped")
    findings = examined(half_done)
    assert all(named(findings, path) for path in paths)
    assert all(finding.repaired for finding in findings)
    assert examined(half_done) == []
    assert generations(half_done) == generations(finished_sweep)


# what cannot be rebuilt


def assert_left(store: Path, path: Path, study: Study | None = None) -> None:
    """The doctor names the file and changes none, at the second look too."""
    before = files(store)
    for _ in range(2):
        findings = examined(store, study)
        assert named([finding for finding in findings if not finding.repaired], path)
    assert files(store) == before
    with pytest.raises(DamagedLedger, match=re.escape(str(path))):
        begin(study or study_of(), Ledger(str(store), "small", print))


def no_generations(store: Path) -> Study:
    shutil.rmtree(store / "small" / "generations")
    return study_of()


def other_study(_: Path) -> Study:
    return study_of(seed=2)


@pytest.mark.parametrize("prepare", [no_generations, other_study])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_study_file_that_nothing_proves_is_named_and_left(
    how: str, prepare: Callable[[Path], Study], half_done: Path
) -> None:
    study, path = prepare(half_done), FILES["the study"](half_done)
    damage(path, how)
    assert_left(half_done, path, study)


def test_a_study_file_that_is_missing_is_written_anew_where_the_proposals_prove_it(half_done: Path) -> None:
    path = FILES["the study"](half_done)
    before = unseal(path.read_bytes())
    path.unlink()
    assert [(finding.file, finding.repaired) for finding in examined(half_done)] == [(str(path), True)]
    # when the study was declared follows from nothing
    del before["declared_at"]
    assert unseal(path.read_bytes()) == before


def begun_with(store: Path, study: Study, *candidates: list[dict[str, Any]], most: int) -> Path:
    """Play a sweep with these recorded candidates; return the file of its last generation."""
    ledger = Ledger(str(store), study.name, print)
    ledger.declare(study, False)
    for number, values in enumerate(candidates):
        body = {
            "study": "x",
            "arm": "additive",
            "generation": number,
            "candidates": values,
            "proposed_from": [],
        }
        ledger.store.write(f"generations/additive-{number}.json", seal(body))
    drive(study, store, most=most)
    path = store / "small" / "generations" / f"additive-{max(0, len(candidates) - 1)}.json"
    damage(path, "cut")
    return path


@pytest.mark.parametrize("most", [0, 2])
def test_a_generation_with_other_candidates_than_are_proposed_now_is_named_and_left(
    most: int, tmp_path: Path
) -> None:
    study = study_of()
    path = begun_with(
        tmp_path, study, [{"task.learning_rate": 0.12345}, {"task.learning_rate": 0.2345}], most=most
    )
    assert_left(tmp_path, path)


def test_a_generation_after_one_that_cannot_be_rebuilt_is_named_too(half_done: Path) -> None:
    first, last = FILES["the first generation"](half_done), FILES["the last generation"](half_done)
    first.write_bytes(
        seal(
            {
                "study": "x",
                "arm": "additive",
                "generation": 0,
                "candidates": [{"task.learning_rate": 0.2}] * 2,
            }
        )
    )
    damage(first, "cut")
    damage(last, "cut")
    for path in (half_done / "small" / "runs").iterdir():
        shutil.rmtree(path)
    findings = examined(half_done)
    assert [(finding.file, finding.repaired) for finding in findings] == [
        (str(first), False),
        (str(last), False),
    ]


def test_a_generation_from_before_the_study_grew_is_not_replaced_by_a_larger_one(tmp_path: Path) -> None:
    small, grown = study_of(search={"budget": 3}), study_of(search={"budget": 4})
    drive(small, tmp_path, most=6)
    # The generations have two candidates and one; the grown study would propose two and two.
    assert len(generations(tmp_path)) == 2
    ledger = Ledger(str(tmp_path), "small", print)
    begin(grown, ledger, extend=True)
    path = FILES["the last generation"](tmp_path)
    damage(path, "cut")
    assert_left(tmp_path, path, grown)


def test_the_files_are_those_of_the_declared_study_whatever_the_given_one_has_become(
    half_done: Path,
) -> None:
    path = FILES["a finished run's spec"](half_done)
    before = path.read_bytes()
    damage(path, "cut")
    findings = examined(half_done, study_of(seed=2))
    assert [(finding.file, finding.repaired) for finding in findings] == [(str(path), True)]
    assert path.read_bytes() == before


# who may


def test_a_sweep_that_a_living_driver_holds_is_refused_and_not_touched(half_done: Path) -> None:
    damage(FILES["an outcome"](half_done), "cut")
    lease = Lease(Ledger(str(half_done), "small", print).store, print)
    lease.acquire()
    try:
        before = files(half_done)
        with pytest.raises(Held, match="is driven by process"):
            examined(half_done)
        assert files(half_done) == before
    finally:
        lease.release()
    assert examined(half_done)


def test_where_there_is_no_study_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(NothingBegun, match="holds no study yet"):
        examined(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_what_it_found_and_exits_3_only_where_something_is_left(half_done: Path) -> None:
    study = half_done / "small.yaml"
    study.write_text(yaml.safe_dump(short_values(), sort_keys=False))
    path = FILES["an outcome"](half_done)
    damage(path, "cut")
    done = sweep("doctor", study, "--store", half_done)
    assert done.returncode == 0, done.stderr
    assert f"repaired: {path}" in done.stdout
    done = sweep("doctor", study, "--store", half_done)
    assert (done.returncode, done.stdout) == (0, "every file is whole.\n")
    no_generations(half_done)
    path = FILES["the study"](half_done)
    damage(path, "cut")
    done = sweep("doctor", study, "--store", half_done)
    assert done.returncode == 3
    assert f"damaged: {path}" in done.stdout
