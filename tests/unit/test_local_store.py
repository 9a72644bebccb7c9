"""The local store's steps to disk: their order, and a failure at any of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.store import LocalStore, StoreError
from trainer.stores.local import TEMPORARY

OLD, NEW = b"old" * 1000, b"new!" * 5000


def trace(monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[str]:
    """Record the calls that matter for durability.

    The call numbered `fail_at` fails as on a full disk, before it does anything. Calls that only read are
    described by nothing, and left out.
    """
    calls: list[str] = []

    def watch(owner: Any, name: str, describe: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if not (described := describe(*arguments)):
                return real(*arguments, **more)
            if len(calls) == fail_at:
                calls.append("failed")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            calls.append(described)
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    def kind(name: str) -> str:
        return "temporary" if name.endswith(TEMPORARY) else name

    def opened(name: str | Path, flags: int, *_: int) -> str:
        return f"open {kind(str(name))}" if flags & os.O_CREAT else ""

    watch(os, "open", opened)
    watch(os, "mkdir", lambda name: f"mkdir {name}")
    watch(os, "replace", lambda _, target: f"rename to {target}")
    watch(os, "link", lambda _, target: f"link to {target}")
    watch(os, "fsync", lambda handle: f"fsync {kind(Path(f'/proc/self/fd/{handle}').readlink().name)}")
    return calls


def test_a_write_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    calls = trace(monkeypatch)
    store.write("runs/a.bin", NEW)
    assert calls == [
        "mkdir runs",
        f"fsync {tmp_path.name}",
        "open temporary",
        "fsync temporary",
        "rename to a.bin",
        "fsync runs",
    ]


def test_a_file_created_once_is_linked_so_that_nothing_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trace(monkeypatch)
    assert LocalStore(tmp_path).create("a.bin", NEW)
    assert calls == ["open temporary", "fsync temporary", "link to a.bin", f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("method", ["write", "create"])
@pytest.mark.parametrize("step", range(4))
def test_a_step_that_fails_leaves_the_old_file_or_the_whole_new_one_and_says_so(
    tmp_path: Path, method: str, step: int
) -> None:
    store = LocalStore(tmp_path)
    if method == "write":
        store.write("a.bin", OLD)
    with pytest.MonkeyPatch.context() as patch:
        calls = trace(patch, fail_at=step)
        with pytest.raises(StoreError, match=r"cannot write .*a\.bin: No space left on device"):
            getattr(store, method)("a.bin", NEW)
        assert calls[-1] == "failed"
    if (
        step == 3
    ):  # only the folder's sync failed: the new file is whole, and may or may not outlive a power cut
        assert store.read("a.bin") == NEW
    elif method == "write":
        assert store.read("a.bin") == OLD
    else:
        assert store.names() == []
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(TEMPORARY)] == []


def test_partial_files_of_killed_writers_are_no_files_and_can_be_cleared(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("run/a.bin", NEW)
    (tmp_path / "run" / f".b.bin.0123{TEMPORARY}").write_bytes(b"half")
    assert store.names() == ["run/a.bin"]
    store.delete_partial("run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a.bin"]


def test_a_path_through_a_file_is_told_and_not_taken_for_a_file_that_exists(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a", OLD)
    with pytest.raises(StoreError, match="cannot write"):
        store.create("a/b.bin", NEW)
