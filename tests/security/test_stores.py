"""A store that somebody else wrote: names that lead out of it, links, pipes, and disks that lack something.

Attacks on functions, and what they were called in commit 15d2fea:

| here | there |
| --- | --- |
| `trainer.store.LocalStore.read`, `write`, `create`, `delete`, `names` | the same |
| `trainer.store.BucketStore.read`, `write` | the same |
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_spec
from tests.kept import STUDY, falsify, first_run, snapshot
from tests.security.victim import (
    PATIENCE_SECONDS,
    arguments,
    assert_one_message,
    environment,
    sweep,
    trainer,
)
from trainer.store import LocalStore, Refused, Store, StoreError, open_store

SECRET = b"the owner alone may read this"
NAMES = ["../a", "a/../../b", "/etc/a", "a//b", "a/./b", "", "a/", "a\nb", "\x1b[2J", "a/..", "\0"]
"""Names that lead out of a store, or upset a terminal."""
DAC_OVERRIDE, DROP = 1, 24
"""The capability by which root writes where nobody may, and the request to drop it: <linux/prctl.h>."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the store, with a file that its owner alone may read."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    (folder / "secret").chmod(0o600)
    return folder


# names


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["local", "bucket"])
def test_a_name_that_leads_out_of_the_store_is_refused(
    kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = open_store(tmp_path / "store" if kind == "local" else request.getfixturevalue("bucket"))
    tries: list[Callable[[], Any]] = [
        lambda: store.read(name),
        lambda: store.write(name, b"x"),
        lambda: store.create(name, b"x"),
        lambda: store.delete(name),
    ]
    for attack in tries:
        with pytest.raises(Refused, match="is no name of a file in a store"):
            attack()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["doctor", "trainer"])
@pytest.mark.parametrize("name", ["../../../../outside/planted", "attempt-1/../../../../../outside/planted"])
def test_an_outcome_whose_files_have_other_names_writes_nothing_elsewhere(
    command: str, name: str, store: Path, outside: Path
) -> None:
    run = first_run(store)
    falsify(run / "outcome.json", lambda body: body["files"]["epochs"].update(name=name))
    before = snapshot(outside)
    if command == "doctor":
        done = sweep("doctor", STUDY, "--store", store, cwd=outside)
        assert_one_message(done, 0, f"repaired: {run / 'outcome.json'}", "Put aside")
    else:
        done = trainer(run / "spec.json", "--store", store / "kept" / "runs", cwd=outside)
        assert_one_message(done, 3, f"{run / 'outcome.json'} is damaged")
    assert snapshot(outside) == before


# links


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_what_is_behind_a_link_is_not_read_written_deleted_or_listed(
    linked: str, tmp_path: Path, outside: Path
) -> None:
    store, before = LocalStore(tmp_path / "store"), snapshot(outside)
    (tmp_path / "store" / "run").mkdir(parents=True)
    link = tmp_path / "store" / "run" / "link"
    link.symlink_to(outside / "secret" if linked == "file" else outside)
    name = "run/link" if linked == "file" else "run/link/secret"
    with pytest.raises(Refused, match="link is a link, which is not followed in a store"):
        store.read(name)
    assert store.names() == ["run/link"]
    if linked == "folder":
        for attack in (lambda: store.write(name, b"x"), lambda: store.delete(name)):
            with pytest.raises(Refused, match="is a link"):
                attack()
        with pytest.raises(Refused, match="is a link"):
            store.create("run/link/new", b"x")
    else:
        assert not store.create(name, b"x")
        # the link itself is replaced
        store.write(name, b"x")
        assert store.read(name) == b"x"
        link.unlink()
        link.symlink_to(outside / "secret")
        store.delete(name)
        assert not link.is_symlink()
    assert snapshot(outside) == before


def test_the_root_of_a_store_may_be_a_link_to_a_larger_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "results")
    store.write("a/b", b"x")
    assert store.names() == ["a/b"]
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("of", ["table", "log", "folder of runs"])
def test_the_doctor_copies_nothing_that_a_link_leads_to(of: str, store: Path, outside: Path) -> None:
    run = first_run(store)
    if of == "folder of runs":
        shutil.rmtree(store / "kept" / "runs")
        (store / "kept" / "runs").symlink_to(outside)
        (outside / "0123456789abcdef").mkdir()
        named = "runs is a link"
    else:
        path = next((run / "attempt-1").glob("epochs-*" if of == "table" else "log.txt"))
        path.unlink()
        path.symlink_to(outside / "secret")
        named = f"{path.name} is a link"
    before = snapshot(outside)
    done = sweep("doctor", STUDY, "--store", store, cwd=outside)
    assert_one_message(done, 3, named)
    assert snapshot(outside) == before
    copies = [path for path in store.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in copies if SECRET in path.read_bytes()]


def test_a_link_in_a_run_that_goes_on_is_named_and_nothing_is_written_through_it(
    tmp_path: Path, outside: Path
) -> None:
    spec = run_spec(model="mlp-16", epochs=1)
    run = tmp_path / "run.json"
    run.write_text(spec.to_json())
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / spec.run_id).symlink_to(outside)
    before = snapshot(outside)
    done = trainer(run, "--store", tmp_path / "store", "--device", "cpu", cwd=tmp_path)
    assert_one_message(done, 3, f"{spec.run_id} is a link, which is not followed in a store")
    assert snapshot(outside) == before


# pipes, devices and sizes


def test_a_pipe_a_device_and_a_folder_are_no_files_of_a_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(Refused, match="it is no file, but a folder, a pipe or a device"):
            store.read(name)
    with pytest.raises(Refused, match="it is no file"):
        LocalStore(Path("/dev")).read("zero")


def test_a_pipe_in_the_place_of_an_outcome_is_named(store: Path) -> None:
    path = first_run(store) / "outcome.json"
    path.unlink()
    os.mkfifo(path)
    done = sweep("doctor", STUDY, "--store", store, cwd=store)
    assert_one_message(done, 3, f"{path}: it is no file, but a folder, a pipe or a device")


@pytest.mark.parametrize("kind", ["local", "bucket"])
def test_a_file_that_is_too_large_is_not_read(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store: Store = open_store(tmp_path if kind == "local" else request.getfixturevalue("bucket"))
    store.write("a", b"1234")
    assert store.read("a", 4) == b"1234"
    with pytest.raises(Refused, match="it has 4 bytes, and at most 3 are read"):
        store.read("a", 3)


def test_a_file_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(200 * 2**30)
    with pytest.raises(Refused, match="at most 2,147,483,648 are read"):
        LocalStore(tmp_path).read("sparse")


def test_folders_in_one_another_without_end_are_told(tmp_path: Path) -> None:
    (tmp_path / "/".join("a" * 100)).mkdir(parents=True)
    with pytest.raises(StoreError, match="more than 16 folders in one another"):
        LocalStore(tmp_path).names()


@pytest.mark.parametrize("command", ["plan", "status", "doctor"])
def test_a_pipe_in_the_place_of_a_study_is_not_waited_for(command: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    done = sweep(command, "mine.yaml", "--store", "store", cwd=tmp_path, seconds=PATIENCE_SECONDS)
    # status has no need of the file: the ledger has the study
    assert_one_message(done, 2, "mine.yaml: cannot be read" if command != "status" else "holds no study yet")


def test_a_pipe_in_the_place_of_a_run_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    done = trainer("run.json", "--store", "store", cwd=tmp_path)
    assert_one_message(done, 2, "run.json: cannot be read: it is no file, but a folder, a pipe or a device.")


def test_a_study_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").symlink_to("/dev/zero")
    done = sweep("plan", "mine.yaml", "--store", "store", cwd=tmp_path)
    assert_one_message(done, 2, "mine.yaml: ")


# file systems


NO_LINKS = """
import errno, os
def link(*_, **__):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
os.link = link
"""
"""What a file system without hard links, such as exFAT, answers."""


def test_a_run_is_trained_on_a_file_system_without_hard_links(tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(NO_LINKS)
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path / 'faults'}{os.pathsep}{env['PYTHONPATH']}"
    run = tmp_path / "run.json"
    run.write_text(run_spec(model="mlp-16", epochs=1).to_json())
    done = trainer(run, "--store", "store", "--device", "cpu", "--threads", "1", cwd=tmp_path, env=env)
    assert_one_message(done, 0, "completed, 1 epochs")


def no_link(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_without_hard_links_a_file_is_still_created_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_link)
    store = LocalStore(tmp_path)
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.read("a") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_where_neither_is_there_it_is_said_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(
        StoreError, match=r"cannot write .*a: its file system has no hard links.*another disk"
    ):
        LocalStore(tmp_path).create("a", b"x")
    assert list(tmp_path.iterdir()) == []


def sweep_as_somebody_who_may_only_read(
    *more: str | Path, cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the command without the right of root to write where nobody may."""

    def drop() -> None:
        ctypes.CDLL(None).prctl(DROP, DAC_OVERRIDE, 0, 0, 0)

    return subprocess.run(
        arguments("sweep", *more),
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        preexec_fn=drop,
    )


@pytest.mark.parametrize("command", ["report", "sync", "ui"])
def test_of_a_store_that_may_only_be_read_it_is_said_where_else_to_write(
    command: str, store: Path, tmp_path: Path
) -> None:
    for path in (store, *store.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "home").mkdir()
    env = {"HOME": str(tmp_path / "home")}
    try:
        done = sweep_as_somebody_who_may_only_read(command, STUDY, "--store", store, cwd=tmp_path, env=env)
    finally:
        for path in (store, *store.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    option = "--to" if command == "report" else "--mlflow-uri"
    assert_one_message(done, 3, f"cannot write {store}", option)
    if command == "report":
        assert "points" in done.stdout
