"""A study is removed whole, or is no study any more; and nothing else in the store is touched."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.cli.running import begin
from sweep.errors import HalfRemoved, NothingBegun
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.ledger.removing import contents, remove
from sweep.study import Study
from sweep.study.contents import Contents
from tests.integration.attempts import SPEC, as_left_by_an_ended_process
from tests.loops import drive, short_values, study_of
from tests.sweeps import environment, sweep, sweep_command
from trainer.run_folder import RunFolder
from trainer.store import LocalStore, StoreError, open_store

FIXED: dict[str, Any] = {"arms": {"additive": {"policy": {"name": "fixed", "ratio": 0.5}}}}


def study(name: str) -> Study:
    """A study of twelve runs. Studies of two names share them."""
    return Study(name, Contents.read(short_values(**FIXED)))


def files(store: str | Path) -> dict[str, bytes]:
    found = open_store(store)
    return {name: found.read(name) for name in found.names()}


def command(store: str | Path, name: str = "small", *more: str) -> subprocess.CompletedProcess[str]:
    return sweep("remove", name, "--store", store, *more)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store with a study, and another one that has taken over its runs."""
    folder = tmp_path_factory.mktemp("two")
    drive(study("small"), folder)
    drive(study("other"), folder)
    as_left_by_an_ended_process(folder)
    (folder / "small-report.html").write_text("<p>")
    return files(folder)


@pytest.fixture(params=["local", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path, two: dict[str, bytes]) -> str:
    url = str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("bucket")
    for name, data in two.items():
        open_store(url).write(name, data)
    return url


def test_a_study_goes_whole_and_nothing_else_does(url: str, two: dict[str, bytes]) -> None:
    done = command(url, "small", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"removed: {Ledger(url, 'small', print).store.where()}\n"
    assert "12 runs in" in done.stderr
    left = files(url)
    assert left == {name: data for name, data in two.items() if not name.startswith("small/")}
    assert any(name.startswith("other/taken/small/") for name in left)
    assert open_store(url).folders() == ["other"]
    again = command(url, "small", "--yes")
    assert again.returncode == 2
    assert "holds no study yet" in again.stderr


def test_it_is_asked_for_by_its_name(tmp_path: Path) -> None:
    drive(study_of(), tmp_path, most=1)
    before = files(tmp_path)
    unasked = command(tmp_path)
    assert unasked.returncode == 2
    assert "Nothing was removed. Where nobody can be asked, give --yes." in unasked.stderr
    assert answered(tmp_path, "yes") == 2
    assert {name for name in before if "lease" not in name} <= files(tmp_path).keys()
    assert answered(tmp_path, "small") == 0
    assert files(tmp_path) == {}


def answered(store: Path, answer: str) -> int:
    """Give the command a terminal and an answer; return its exit code."""
    ours, theirs = pty.openpty()
    arguments = sweep_command("remove", "small", "--store", store)
    with subprocess.Popen(arguments, stdin=theirs, stderr=subprocess.PIPE, env=environment()) as process:
        os.close(theirs)
        assert process.stderr
        asked = b""
        while b"The name of the study" not in asked:
            piece = os.read(process.stderr.fileno(), 4096)
            assert piece, asked
            asked += piece
        os.write(ours, f"{answer}\n".encode())
        process.stderr.read()
    os.close(ours)
    return process.returncode


def test_a_study_that_is_driven_or_trained_is_left_as_it_is(tmp_path: Path) -> None:
    drive(study_of(), tmp_path, most=1)
    before, lease = files(tmp_path), Lease(open_store(tmp_path / "small"), print)
    lease.acquire()
    driven = command(tmp_path, "small", "--yes")
    lease.release()
    RunFolder(open_store(tmp_path / "small" / "runs"), SPEC, print).claim({})
    trained = command(tmp_path, "small", "--yes")
    assert [driven.returncode, trained.returncode] == [3, 3]
    assert f"small is driven by process {os.getpid()}" in driven.stderr
    assert "Being trained outside of a sweep: 1 run of " in trained.stderr
    assert before.items() <= files(tmp_path).items()


def removed(ledger: Ledger) -> list[str]:
    lease = Lease(ledger.store, print)
    lease.acquire()
    try:
        return remove(ledger, lease)
    finally:
        lease.release()


@pytest.mark.parametrize("cut", ["study.json", "runs", "generations", "lease"])
def test_a_study_that_is_removed_by_half_is_no_study_until_the_rest_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    delete: Callable[[LocalStore, str], None] = LocalStore.delete

    def fail(store: LocalStore, name: str) -> None:
        if name.startswith(cut):
            raise StoreError(f"cannot delete {name}: the disk is busy.")
        delete(store, name)

    drive(study_of(), tmp_path, most=1)
    ledger = Ledger(str(tmp_path), "small", print)
    with monkeypatch.context() as busy:
        busy.setattr(LocalStore, "delete", fail)
        assert removed(ledger)[0].startswith(f"cannot delete {cut}")
    assert [name for name in files(tmp_path / "small") if name.startswith(cut)]
    if cut == "lease":  # the last to go: what is left of it hinders nobody
        begin(study_of(), Ledger(str(tmp_path), "small", print), extend=False)
    else:
        for extend in (False, True):
            with pytest.raises(HalfRemoved):
                begin(study_of(), Ledger(str(tmp_path), "small", print), extend)
        told = sweep("status", "small.yaml", "--store", tmp_path)
        assert told.returncode == 3
        assert "is being removed since" in told.stderr
        assert f"python -m sweep remove small.yaml --store {tmp_path}" in told.stderr
    assert command(tmp_path, "small", "--yes").returncode == 0
    assert list(tmp_path.iterdir()) == []
    drive(study_of(), tmp_path, most=1)


def test_other_studies_do_without_a_study_that_is_removed_by_half(
    tmp_path: Path, two: dict[str, bytes]
) -> None:
    for name, data in two.items():
        open_store(tmp_path).write(name, data)
    ledger = Ledger(str(tmp_path), "small", print)
    ledger.store.write("study.json", b"")
    removed(ledger)
    said: list[str] = []
    assert drive(study("third"), tmp_path, said).complete
    assert [line for line in said if "small" in line] == []


@pytest.mark.parametrize("name", ["out", "nothing", "mlflow-artifacts"])
def test_what_is_no_study_is_not_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.json").write_text("{}")  # as an export has
    (tmp_path / "out" / "runs.parquet").write_text("")
    (tmp_path / "mlflow-artifacts" / "1").mkdir(parents=True)
    with pytest.raises(NothingBegun):
        contents(Ledger(str(tmp_path), name, print))
