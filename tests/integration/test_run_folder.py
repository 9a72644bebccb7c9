"""A run's files under damage, interruption and rivals, on a local folder.

Every checkpoint here is a real training's.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import run_spec, train, without_wall
from tests.integration.attempts import (
    SPEC,
    as_left_by_an_ended_process,
    attempt,
    checkpoints,
    contents,
    kept_rows,
    take,
)
from trainer.rows import EpochRow, from_parquet
from trainer.run_folder import DamagedRun, Diverged, RunFolder
from trainer.spec import RunSpec
from trainer.store import LocalStore, digest, seal, unseal
from trainer.training import Training


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, Any]]:
    return without_wall(list(Training(SPEC)))


@pytest.fixture(scope="module")
def broken_off_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run left after three of four epochs; it keeps the commits of epochs 2 and 3."""
    root = tmp_path_factory.mktemp("broken-off")
    take(attempt(root), 3)
    as_left_by_an_ended_process(root)
    return root


@pytest.fixture
def broken_off(broken_off_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(broken_off_once, tmp_path / "runs"))


def test_the_last_two_commits_are_kept_under_the_hash_of_their_content(broken_off: Path) -> None:
    files = sorted(path.name for path in (broken_off / SPEC.run_id / "attempt-1").iterdir())
    assert [name.rsplit("-", 1)[0] for name in files] == [
        "attempt.json",
        "checkpoint-2",
        "checkpoint-3",
        "epochs-2",
        "epochs-3",
        "log.txt",
    ]
    for path in (broken_off / SPEC.run_id / "attempt-1").glob("*-*-*"):
        assert digest(path.read_bytes())[:16] == path.stem.split("-")[2]


def test_every_epochs_file_holds_all_rows_so_far(
    broken_off: Path, undisturbed: list[dict[str, Any]]
) -> None:
    for path in broken_off.rglob("epochs-*.parquet"):
        epochs = int(path.name.split("-")[1])
        assert without_wall(from_parquet(EpochRow, path.read_bytes())) == undisturbed[:epochs]


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_last_checkpoint_cut_at_any_sixteenth_is_named_and_the_one_before_used(
    broken_off: Path, sixteenth: int, undisturbed: list[dict[str, Any]]
) -> None:
    last = checkpoints(broken_off)[0]
    data = last.read_bytes()
    last.write_bytes(data[: len(data) * sixteenth // 16])
    said: list[str] = []
    continued = attempt(broken_off, said=said)
    assert f"damaged: {last}" in said[0]
    assert "continues from epoch 2 of 4" in said[1]
    assert last.exists()
    list(continued)
    assert kept_rows(broken_off) == undisturbed


@pytest.mark.parametrize("place", [0, 0.3, 0.6, 0.999])
def test_a_last_checkpoint_with_a_byte_flipped_is_named_and_the_one_before_used(
    broken_off: Path, place: float
) -> None:
    last = checkpoints(broken_off)[0]
    data = bytearray(last.read_bytes())
    data[int(place * len(data))] ^= 0x10
    last.write_bytes(data)
    said: list[str] = []
    attempt(broken_off, said=said)
    assert f"damaged: {last}" in said[0]
    assert "continues from epoch 2 of 4" in said[1]


def test_with_every_checkpoint_damaged_it_exits_3_names_them_and_deletes_nothing(
    broken_off: Path, tmp_path: Path
) -> None:
    for path in checkpoints(broken_off):
        path.write_bytes(path.read_bytes()[:-1])
    before = contents(broken_off)
    run = tmp_path / "run.json"
    run.write_text(SPEC.to_json())
    done = train(run, broken_off)
    assert done.returncode == 3
    assert all(str(path) in done.stderr for path in checkpoints(broken_off))
    assert "Nothing was deleted" in done.stderr
    assert "Traceback" not in done.stderr
    after = contents(broken_off)
    assert {name: after[name] for name in before} == before


def test_a_damaged_checkpoint_is_no_longer_counted_among_the_two_that_are_kept(broken_off: Path) -> None:
    last = checkpoints(broken_off)[0]
    last.write_bytes(b"")
    continued = attempt(broken_off)
    take(continued, 1)  # commits epoch 3 anew
    whole = [path for path in checkpoints(broken_off) if path.stat().st_size]
    assert [path.name.split("-")[1] for path in whole] == ["3", "2"]


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_a_machine_without_memory_damages_no_checkpoint(broken_off: Path, error: type[Exception]) -> None:
    def use(_: object) -> None:
        raise error

    said: list[str] = []
    with pytest.raises(error):
        RunFolder(LocalStore(broken_off), SPEC, said.append).latest(use)
    assert said == []


def test_a_checkpoint_that_would_run_code_is_refused_unrun(broken_off: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Malicious:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (marker,)

    buffer = io.BytesIO()
    torch.save({"run_id": SPEC.run_id, "rows": [Malicious()] * 9}, buffer)
    data = buffer.getvalue()
    path = broken_off / SPEC.run_id / "attempt-1" / f"checkpoint-4-{digest(data)[:16]}.pt"
    path.write_bytes(data)
    said: list[str] = []
    attempt(broken_off, said=said)
    assert f"damaged: {path}" in said[0]
    assert "continues from epoch 3 of 4" in said[1]
    assert not marker.exists()


def test_a_checkpoint_of_another_run_under_a_right_name_is_refused(broken_off: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Training(run_spec(seed=99)).state(), buffer)
    path = broken_off / SPEC.run_id / "attempt-1" / f"checkpoint-4-{digest(buffer.getvalue())[:16]}.pt"
    path.write_bytes(buffer.getvalue())
    said: list[str] = []
    attempt(broken_off, said=said)
    assert "it is not a checkpoint of this run" in said[0]


def test_a_damaged_spec_is_written_anew_from_the_spec_that_names_its_folder(broken_off: Path) -> None:
    path = broken_off / SPEC.run_id / "spec.json"
    path.write_bytes(b"{}")
    said: list[str] = []
    attempt(broken_off, said=said)
    assert f"damaged: {path}" in said[0]
    assert RunSpec.from_json(path.read_text()) == SPEC


def test_a_run_on_other_threads_is_told_that_its_last_bits_may_differ(broken_off: Path) -> None:
    path = broken_off / SPEC.run_id / "attempt-1" / "attempt.json"
    path.write_bytes(seal({**unseal(path.read_bytes()), "threads": 64}))
    said: list[str] = []
    attempt(broken_off, said=said)
    assert "attempt 1 ran on something else (threads 64 -> 1)" in said[0]


def test_of_a_finished_runs_two_copies_either_is_rebuilt_from_the_other(tmp_path: Path) -> None:
    list(attempt(tmp_path))
    before = contents(tmp_path)
    tables = [name for name in before if name.endswith(".parquet")]
    assert len(tables) == 4
    for name in tables:
        for damaged in (b"", before[name][:-1], None):
            if damaged is None:
                (tmp_path / name).unlink()
            else:
                (tmp_path / name).write_bytes(damaged)
            said: list[str] = []
            attempt(tmp_path, said=said)
            assert contents(tmp_path) == before
            assert said == [f"missing or altered: {tmp_path / name}. It was written anew from its copy."]


def test_a_finished_run_with_both_copies_damaged_is_an_error_that_names_them(tmp_path: Path) -> None:
    list(attempt(tmp_path))
    for path in tmp_path.rglob("epochs*.parquet"):
        path.write_bytes(b"")
    with pytest.raises(DamagedRun, match=r"epochs-4-\w+\.parquet is damaged or missing, and so is its copy"):
        attempt(tmp_path)


@pytest.mark.parametrize("change", ["cut", "flip", "value", "empty"])
def test_an_altered_outcome_is_an_error_that_names_it_and_deletes_nothing(
    tmp_path: Path, change: str
) -> None:
    list(attempt(tmp_path))
    path = tmp_path / SPEC.run_id / "outcome.json"
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-20],
            "flip": data.replace(b"epochs", b"epoehs", 1),
            "value": data.replace(b'"epochs": 4', b'"epochs": 5'),
            "empty": b"",
        }[change]
    )
    assert path.read_bytes() != data
    before = contents(tmp_path)
    with pytest.raises(DamagedRun, match=r"outcome\.json is damaged"):
        attempt(tmp_path)
    assert contents(tmp_path) == before


def test_an_outcome_reads_back_as_what_it_was(tmp_path: Path) -> None:
    spec = run_spec({"name": "dense"}, epochs=5, learning_rate=1e20)
    diverged = attempt(tmp_path, spec)
    list(diverged)
    read = RunFolder(LocalStore(tmp_path), spec, print).outcome()
    assert isinstance(read, Diverged)
    assert read == diverged.outcome
    assert read.epochs == len(diverged.training.rows)


def test_what_killed_writers_left_goes_when_the_run_is_finished(tmp_path: Path) -> None:
    first = attempt(tmp_path)
    take(first, 1)
    (tmp_path / SPEC.run_id / "attempt-1" / ".checkpoint.0000.partial").write_bytes(b"half")
    list(attempt(tmp_path))
    assert not list(tmp_path.rglob("*.partial"))


def test_the_log_says_what_happened_and_lies_there_while_the_run_is_under_way(tmp_path: Path) -> None:
    list(attempt(tmp_path))
    lines = (tmp_path / SPEC.run_id / "attempt-1" / "log.txt").read_text().splitlines()
    assert "attempt 1 starts at epoch 1 of 4" in lines[0]
    assert "kept epoch 1" in lines[1]
    assert "completed at epoch 4" in lines[-1]
