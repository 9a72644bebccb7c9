"""Attempts that meet, freeze or break off at any file.

The first outcome stands, and nothing is torn or trained twice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_spec, without_wall
from tests.integration.attempts import SPEC, attempt, contents, kept_rows, take
from trainer.attempt import Attempt
from trainer.run_folder import Completed, Superseded
from trainer.store import LocalStore, StoreError
from trainer.training import Training


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, Any]]:
    return without_wall(list(Training(SPEC)))


class Rival(LocalStore):
    """A store in which a process freezes before it writes the next file of a kind.

    Something else happens meanwhile.
    """

    def __init__(self, root: Path, at: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self.at, self.meanwhile = at, meanwhile

    def _hold(self, name: str) -> None:
        if self.at in name and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()

    def write(self, name: str, data: bytes) -> None:
        self._hold(name)
        super().write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        self._hold(name)
        return super().create(name, data)


def test_a_run_that_another_finishes_while_the_data_load_gets_no_second_attempt(tmp_path: Path) -> None:
    def slow_to_load() -> Training:
        list(attempt(tmp_path))
        return Training(SPEC)

    late = Attempt(LocalStore(tmp_path), SPEC, slow_to_load, show=lambda _: None)
    assert isinstance(late.outcome, Completed)
    assert not list(late)
    assert [path.name for path in (tmp_path / SPEC.run_id).glob("attempt-*")] == ["attempt-1"]


@pytest.mark.parametrize(
    "at", ["log.txt", "checkpoint-2", "epochs-2", "checkpoint-4", "endpoints-4", "outcome.json"]
)
def test_an_attempt_frozen_at_any_file_neither_tears_nor_rolls_back_what_another_finished(
    tmp_path: Path, at: str, undisturbed: list[dict[str, Any]]
) -> None:
    finished: dict[str, bytes] = {}

    def other_finishes() -> None:
        list(attempt(tmp_path))
        finished.update(contents(tmp_path))

    frozen = attempt(tmp_path, store=Rival(tmp_path, at, other_finishes))
    if at in ("checkpoint-4", "endpoints-4", "outcome.json"):  # past its own last look for rivals
        list(frozen)
        assert isinstance(frozen.outcome, Completed)
        assert frozen.outcome.attempt == 2  # the first outcome stands, and the frozen attempt reports it
    else:
        with pytest.raises(Superseded):
            list(frozen)
    after = contents(tmp_path)
    folder = f"{SPEC.run_id}/"
    for name in ("outcome.json", "epochs.parquet", "endpoints.parquet", "spec.json"):
        assert after[folder + name] == finished[folder + name]
    assert {name: data for name, data in after.items() if "attempt-2" in name} == {
        name: data for name, data in finished.items() if "attempt-2" in name
    }
    assert kept_rows(tmp_path) == undisturbed
    again = attempt(tmp_path)
    assert isinstance(again.outcome, Completed)
    assert not [name for name in contents(tmp_path) if name.endswith(".pt")]


def test_an_attempt_stops_before_committing_when_a_later_one_has_begun(tmp_path: Path) -> None:
    first = attempt(tmp_path)
    take(first, 1)
    second = attempt(tmp_path)
    with pytest.raises(Superseded, match="attempt 2 has taken run"):
        take(first, 1)
    assert "attempt 2 has taken run" in (tmp_path / SPEC.run_id / "attempt-1" / "log.txt").read_text()
    list(second)
    assert isinstance(second.outcome, Completed)


class Broken(LocalStore):
    """A store whose disk is full for one kind of file."""

    def __init__(self, root: Path, at: str) -> None:
        super().__init__(root)
        self.at = at

    def write(self, name: str, data: bytes) -> None:
        if self.at in name:
            raise StoreError(f"cannot write {name}: No space left on device.")
        super().write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        self.write(name, data) if self.at in name else None
        return super().create(name, data)


@pytest.mark.parametrize("at", ["epochs-4", "endpoints-4", "outcome.json", "epochs.parquet"])
def test_broken_off_after_its_last_epoch_a_run_is_finished_without_training(
    tmp_path: Path, at: str, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError):
        list(attempt(tmp_path, store=Broken(tmp_path, at)))
    monkeypatch.setattr(Training, "_train", None)
    monkeypatch.setattr(Training, "_pass", None)
    again = attempt(tmp_path)
    list(again)
    assert isinstance(again.outcome, Completed)
    assert kept_rows(tmp_path) == undisturbed
    assert (tmp_path / SPEC.run_id / "endpoints.parquet").exists()


class Slow(LocalStore):
    """A store in which a checkpoint takes a second, on a clock of its own."""

    now = 0.0

    def write(self, name: str, data: bytes) -> None:
        self.now += "checkpoint" in name
        super().write(name, data)


@pytest.mark.parametrize(
    ("share", "kept"), [(0.25, [1, 1, 1, 4, 4, 4, 7, 7, 7]), (1, [1, 2, 3, 4, 5, 6, 7, 8, 8])]
)
def test_the_first_epoch_is_committed_and_then_commits_take_at_most_their_share_of_the_time(
    tmp_path: Path, share: float, kept: list[int]
) -> None:
    store = Slow(tmp_path)
    spec = run_spec(epochs=9)
    it = attempt(tmp_path, spec, store=store, commit_share=share, clock=lambda: store.now)
    found: list[int] = []
    for _ in it:
        found.append(it.kept_epochs)
        store.now += 1  # for the next epoch
    assert found == kept
