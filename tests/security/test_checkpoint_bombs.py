"""A small checkpoint that takes gigabytes when it is read, or that holds other things than a run keeps.

Attacks on functions, and what they were called in commit 15d2fea:

| here | there |
| --- | --- |
| `trainer.checkpoints.values_of` | `torch.load` in `trainer.run_folder.RunFolder._state` |
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch

from tests.conftest import run_spec
from tests.security.victim import arguments, environment
from trainer.checkpoints import values_of
from trainer.spec import RunSpec
from trainer.store import digest, seal

BOMB_BYTES = 2 * 2**30
MOST_BYTES = 1.5 * 2**30
"""What the trainer may take. It takes less than 1 GB of this by itself, most of it torch."""


def saved(**values: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def rewritten(
    data: bytes, change: Callable[[str, bytes], tuple[str, bytes]], compression: int = ZIP_STORED
) -> bytes:
    """The archive with its entries changed."""
    buffer = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as given, ZipFile(buffer, "w", compression) as anew:
        for entry in given.infolist():
            anew.writestr(*change(entry.filename, given.read(entry)))
    return buffer.getvalue()


def compressed_bomb(run_id: str) -> bytes:
    """A checkpoint of two megabytes whose one tensor has two gigabytes."""
    tensor = torch.zeros(1).expand(BOMB_BYTES // 4)
    buffer, small = io.BytesIO(), saved(run_id=run_id, model=torch.zeros(4))
    with ZipFile(io.BytesIO(small)) as given, ZipFile(buffer, "w", ZIP_DEFLATED) as anew:
        for entry in given.infolist():
            if not entry.filename.endswith("/data/0"):
                # the only 4s are the sizes of the tensor and of its storage
                pickled = given.read(entry).replace(b"K\x04", b"J" + tensor.numel().to_bytes(4, "little"))
                anew.writestr(entry.filename, pickled)
                continue
            with anew.open(entry.filename, "w", force_zip64=True) as out:
                for _ in range(BOMB_BYTES // 2**24):
                    out.write(bytes(2**24))
    return buffer.getvalue()


def plant(folder: Path, spec: RunSpec, checkpoint: bytes) -> Path:
    """Put a checkpoint into the folder of a run that was begun; return it."""
    attempt = folder / spec.run_id / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt.parent / "spec.json").write_text(spec.to_json())
    (attempt / "attempt.json").write_bytes(seal({"started_at": "2026-01-01T00:00:00+00:00"}))
    path = attempt / f"checkpoint-1-{digest(checkpoint)[:16]}.pt"
    path.write_bytes(checkpoint)
    return path


MEASURED = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process in between: Linux counts the memory of whoever starts a process as that process's own."""


def go_on(folder: Path, spec: RunSpec) -> tuple[int, str, int]:
    """Go on with a run. Return the exit code, the messages and the most memory in bytes."""
    (folder / "run.json").write_text(spec.to_json())
    more = ("--store", "store", "--device", "cpu", "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments("trainer", "run.json", *more)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    memory = int(done.stdout.split()[-1])
    return done.returncode, done.stdout + done.stderr, memory * 1024


def test_a_bloated_caller_is_not_measured(tmp_path: Path) -> None:
    spec = run_spec(model="mlp-16", epochs=1)
    plant(tmp_path / "store", spec, b"no archive")
    # this process's peak stays above what is allowed, as after other tests
    assert len(b"1" * int(MOST_BYTES)) == MOST_BYTES
    assert go_on(tmp_path, spec)[2] < MOST_BYTES


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    spec = run_spec(model="mlp-16", epochs=1)
    bomb = compressed_bomb(spec.run_id)
    assert len(bomb) < 4 * 2**20
    path = plant(tmp_path / "store", spec, bomb)
    code, said, memory = go_on(tmp_path, spec)
    assert memory < MOST_BYTES
    assert code == 3
    assert "Traceback" not in said
    assert f"damaged: {tmp_path / 'store' / path.relative_to(tmp_path / 'store')}" in said


@pytest.mark.parametrize(
    "state",
    [
        {"model": 3},
        {"model": {}, "optimizer": {"buffers": None}, "policy": {}, "rows": [], "endpoints": []},
        {"rows": [{"epoch": "one"}]},
    ],
)
def test_a_state_that_is_none_of_this_run_is_named_as_damaged(state: dict[str, Any], tmp_path: Path) -> None:
    spec = run_spec(model="mlp-16", epochs=1)
    plant(tmp_path / "store", spec, saved(run_id=spec.run_id, **state))
    code, said, _ = go_on(tmp_path, spec)
    assert code == 3, said
    assert "Traceback" not in said
    assert "every checkpoint is damaged" in said


class Calls:
    """What a pickle calls when it is read."""

    def __init__(self, made_by: Callable[..., Any], *arguments: Any) -> None:
        self.call = made_by, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Calls(bytearray, 10**11),
        Calls(torch.Tensor, 10**9),
        Calls(os.mkdir, "planted"),
        Calls(eval, "1"),
        Calls(getattr, "a", "upper"),
    ],
)
def test_a_checkpoint_calls_nothing_that_no_state_calls(value: Calls) -> None:
    with pytest.raises(ValueError, match="no checkpoint calls"):
        values_of(saved(run_id="a", value=value))


def test_a_tensor_that_claims_more_than_there_is_is_refused() -> None:
    short = rewritten(
        saved(w=torch.zeros(1000)), lambda name, data: (name, data[:8] if "/data/" in name else data)
    )
    with pytest.raises(ValueError, match="does not match expected size"):
        values_of(short)


def test_many_entries_over_the_same_bytes_count_each() -> None:
    data = saved(w=torch.zeros(2**16))
    with ZipFile(io.BytesIO(data)) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data/0"))
    buffer = io.BytesIO(data)
    with ZipFile(buffer, "a") as archive:
        for number in range(1, 100):
            copy = ZipFile(io.BytesIO(data)).getinfo(entry.filename)
            copy.filename = entry.filename[:-1] + str(number)
            archive.filelist.append(copy)
        archive._didModify = True  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="larger in memory than it is here"):
        values_of(buffer.getvalue())


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\5\6" + bytes(18), b"\x80\x02.", bytes(1000)],
    ids=["empty", "no entry", "pickle", "zeros"],
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        values_of(data)


def test_the_archive_of_another_kind_is_refused() -> None:
    other = rewritten(saved(a=1), lambda name, data: (name.replace("data.pkl", "constants.pkl"), data))
    with pytest.raises(ValueError, match="no checkpoint has"):
        values_of(other)


def test_what_a_run_keeps_is_read() -> None:
    weights, rows = torch.arange(6.0).reshape(2, 3), [{"x": None, "y": 1.5, "bits": b"\1\xff"}]
    found = values_of(saved(run_id="a", rows=rows, a=OrderedDict(w=weights), b=weights > 2))
    assert found["rows"] == rows
    assert torch.equal(found["a"]["w"], weights)
    assert torch.equal(found["b"], weights > 2)
