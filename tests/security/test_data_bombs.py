"""A small file that unpacks to gigabytes is refused before it fills the memory.

| attack on a function | in 15d2fea | now |
| --- | --- | --- |
| another file than the declared one | trainer.tables.load | trainer.tables.load |
| much packed into little | trainer.tables.find | trainer.tables.find |

Each is read in a process that may have two GiB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.security.victim import PATIENCE_SECONDS, environment

ROOM = 2**31
READ = """
import sys
from pathlib import Path
from trainer import tables
layout = tables.Layout(file=sys.argv[1], target="y")
if sys.argv[2:]:
    layout = tables.Table(file=sys.argv[1], target="y", rows=8, inputs=2, classes=2, checksum=sys.argv[2])
try:
    (tables.load if sys.argv[2:] else tables.find)(layout, Path())
except tables.DataError as error:
    print(error)
"""


def parquet(file: Path) -> None:
    pq.write_table(
        pa.table({f"x{i}": np.zeros(2**22) for i in range(40)} | {"y": np.zeros(2**22)}),
        file,
        compression="zstd",
    )


def mat(file: Path) -> None:
    packed = zlib.compress(bytes(2**30), 9)
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    file.write_bytes(head + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)


def csv(file: Path) -> None:
    file.write_bytes(b"y,x\n" + b"1" * 2**27)


def read(folder: Path, file: str, *checksum: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", READ, file, *checksum],
        cwd=folder,
        env=environment({"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("bomb.parquet", parquet, "cells"),
        ("bomb.mat", mat, "when it is unpacked"),
        ("bomb.csv", csv, "has more than"),
    ],
)
def test_a_small_file_that_unpacks_to_much_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None], why: str
) -> None:
    make(tmp_path / name)
    told = read(tmp_path, name)
    assert why in told.stdout, told.stdout + told.stderr


@pytest.mark.parametrize("name", ["bomb.parquet", "bomb.mat"])
def test_another_file_than_the_declared_one_is_not_parsed(tmp_path: Path, name: str) -> None:
    {"bomb.parquet": parquet, "bomb.mat": mat}[name](tmp_path / name)
    told = read(tmp_path, name, "0" * 16)
    assert "checksum is" in told.stdout, told.stdout + told.stderr
    assert "cells" not in told.stdout
