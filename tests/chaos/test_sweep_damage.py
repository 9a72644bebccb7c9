"""Each file of a half-done sweep, damaged.

The sweep goes on from what is whole, or it ends with exit 3 and the file's name. It never goes on with
less.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.errors import DamagedLedger
from sweep.ledger.lease import SILENT_SECONDS, Lease
from sweep.planning.plan import Plan
from tests.chaos.damage import DAMAGES, FILES, damage, rot, whole_rows
from tests.loops import drive, short_values, study_of
from tests.sweeps import generations, sweep
from trainer.store import open_store

NAMED = {
    "the study",
    "the first generation",
    "the last generation",
    "an outcome",
    "a finished run's spec",
}
"""The files that the command cannot go on without, and names. It recovers from damage to any other."""


def run(store: Path) -> tuple[Plan | None, str]:
    """Run the sweep as the command does, with a loop in place of the cluster.

    Returns the plan at its end, and everything that was said.
    """
    said: list[str] = []
    now = [0.0]
    lease = Lease(open_store(store / "small"), said.append)
    lease.acquire(SILENT_SECONDS, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))
    try:
        plan = drive(study_of(), store, said)
    except DamagedLedger as error:
        return None, "\n".join([*said, str(error)])
    finally:
        lease.release()
    return plan, "\n".join(
        [*said, *(failure.reason for failure in plan.queue.failed.values() if failure.damaged)]
    )


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", FILES)
def test_a_sweep_with_a_damaged_file_goes_on_to_the_same_end_or_names_it(
    kind: str, how: str, half_done: Path, finished_sweep: Path, rows_undisturbed: dict[str, Any]
) -> None:
    path = FILES[kind](half_done)
    damage(path, how)
    damaged = path.read_bytes()
    plan, said = run(half_done)
    if kind in NAMED:
        assert str(path) in said
        assert path.read_bytes() == damaged  # for a person to look at
        assert plan is None or (
            plan.queue.failed and not plan.complete and all(it.damaged for it in plan.queue.failed.values())
        )
    else:
        assert plan is not None
        assert plan.complete, said
        assert whole_rows(half_done) == rows_undisturbed
        assert generations(half_done) == generations(finished_sweep)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize(
    "kind", ["an outcome", "a finished run's spec", "a finished run's epochs", "a finished run's endpoints"]
)
def test_without_an_index_nothing_is_believed_that_its_own_files_do_not_show(
    kind: str, how: str, half_done: Path, rows_undisturbed: dict[str, Any]
) -> None:
    (half_done / "small" / "index.json").unlink()
    path = FILES[kind](half_done)
    damage(path, how)
    plan, said = run(half_done)
    assert plan is not None
    if kind in ("an outcome", "a finished run's spec"):
        assert str(path) in said
        assert [it.damaged for it in plan.queue.failed.values()] == [True]
        assert not plan.complete
    else:  # the copy beside it is whole
        assert plan.complete
        assert whole_rows(half_done) == rows_undisturbed


@pytest.mark.parametrize("how", DAMAGES)
def test_with_a_damaged_index_a_damaged_outcome_is_still_named(how: str, half_done: Path) -> None:
    path = FILES["an outcome"](half_done)
    rot(path)  # by its time the outcome looks as it did
    damage(half_done / "small" / "index.json", how)
    plan, said = run(half_done)
    assert str(path) in said
    assert plan is not None
    assert plan.queue.failed
    assert not plan.complete


@pytest.mark.parametrize("how", DAMAGES)
def test_with_both_copies_of_a_table_damaged_and_no_index_the_table_is_named(
    how: str, half_done: Path
) -> None:
    (half_done / "small" / "index.json").unlink()
    paths = [FILES[kind](half_done) for kind in ("a finished run's epochs", "the copy of its epochs")]
    for path in paths:
        damage(path, how)
    plan, said = run(half_done)
    assert str(paths[0]) in said
    assert plan is not None
    assert [it.damaged for it in plan.queue.failed.values()] == [True]


@pytest.mark.parametrize("how", DAMAGES)
def test_with_every_checkpoint_of_a_run_damaged_it_is_not_begun_anew_and_all_of_them_are_named(
    how: str, half_done: Path
) -> None:
    last = FILES["the last checkpoint"](half_done)
    checkpoints = sorted(last.parent.glob("*.pt"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        damage(path, how)
    plan, said = run(half_done)
    assert plan is not None
    assert set(plan.queue.failed) == {last.parent.parent.name}
    assert all(str(path) in said for path in checkpoints)


def command(half_done: Path) -> Any:
    """Run the real command with its cluster."""
    study = half_done / "small.yaml"
    study.write_text(yaml.safe_dump(short_values(), sort_keys=False))
    return sweep("run", study, "--store", half_done)


@pytest.mark.parametrize("kind", ["the study", "the last generation"])
def test_the_command_exits_3_and_names_what_it_cannot_go_on_without(kind: str, half_done: Path) -> None:
    path = FILES[kind](half_done)
    damage(path, "flipped")
    done = command(half_done)
    assert done.returncode == 3, done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.chaos
def test_the_command_finishes_all_other_runs_exits_3_and_names_an_outcome(
    half_done: Path, rows_undisturbed: dict[str, Any]
) -> None:
    path = FILES["an outcome"](half_done)
    damage(path, "cut")
    done = command(half_done)
    assert done.returncode == 3, done.stderr
    assert str(path) in done.stderr
    path.unlink()
    done = command(half_done)
    assert done.returncode == 0, done.stderr
    assert whole_rows(half_done) == rows_undisturbed


@pytest.mark.chaos
def test_the_command_goes_on_from_the_checkpoint_before_a_damaged_one(
    half_done: Path, rows_undisturbed: dict[str, Any]
) -> None:
    path = FILES["the last checkpoint"](half_done)
    damage(path, "cut")
    done = command(half_done)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stderr
    assert "continues from epoch 1 of 3" in done.stderr
    assert whole_rows(half_done) == rows_undisturbed
