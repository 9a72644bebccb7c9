"""Fixtures and helpers for tests of several folders."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

if (
    not torch.cuda.is_available()
):  # the kernels are tested by Triton's interpreter, which has to be asked for before they are imported
    os.environ["TRITON_INTERPRET"] = "1"

import pytest

from trainer.rows import WALL, EpochRow, plain
from trainer.spec import RunSpec

BRISK: dict[str, dict[str, Any]] = {
    "fixed": {"ratio": 0.2},
    "additive-reset": {"step": 0.3},
    "multiplicative-reset": {"decay": 0.5},
    "sawtooth": {"period": 2, "decay": 0.2},
    "npset": {"start": 1, "period": 1},
    "npset-frozen": {"start": 1, "period": 1},
}
"""Settings that make a policy move within a few epochs; other policies do so by default."""
ROOT = Path(__file__).parent.parent
THREADS = int(os.environ.get("TEST_THREADS", "1"))
"""Torch's threads, in this process and in those that it compares itself with."""


MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30


def pytest_configure() -> None:
    """Set what Ray and MLflow read when they are imported, and put temporary folders in memory.

    A machine that only trains has neither. Ledgers are flushed at every step, which is slow on a disk.
    """
    if find_spec("ray") and find_spec("mlflow"):
        from sweep import cluster
        from sweep.views import mlflow

        cluster.prepare(None)
        mlflow.prepare()
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def run_values(policy: dict[str, Any] | None = None, *, seed: int = 7, **task: Any) -> dict[str, Any]:
    """A run small enough to train in a second: digits, one thread."""
    small = {"data": "digits", "model": "wrn-10-1", "epochs": 3, "batch_size": 32, "train_size": 96}
    return {
        "task": {**small, **task},
        "policy": policy or {"name": "additive-reset", "step": 0.3},
        "seed": seed,
    }


def run_spec(policy: dict[str, Any] | None = None, *, seed: int = 7, **task: Any) -> RunSpec:
    """`run_values` as a spec."""
    return RunSpec.read(run_values(policy, seed=seed, **task))


def without_wall(rows: list[EpochRow]) -> list[dict[str, Any]]:
    """Return the part of the rows that two executions of one run must agree on."""
    return [{name: value for name, value in plain(row).items() if name not in WALL} for row in rows]


def command(run: Path, store: Path | str, *more: str) -> list[str]:
    """Return the trainer's command line."""
    return [
        sys.executable,
        "-m",
        "trainer",
        str(run),
        "--store",
        str(store),
        "--device",
        "cpu",
        "--threads",
        str(THREADS),
        *more,
    ]


def train(run: Path, store: Path | str, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the trainer as a process, to its end."""
    return subprocess.run(
        command(run, store, *more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )


def unread(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a trainer that cannot finish before its rows are read, however slow the reader is."""
    pipe = subprocess.PIPE
    # The pipe holds four rows or so.
    return subprocess.Popen(arguments, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, pipesize=4096)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Give torch one thread, so that it does not compete with the processes that tests start.

    TEST_THREADS asks for more.
    """
    torch.set_num_threads(THREADS)


@pytest.fixture
def write_run(tmp_path: Path) -> Any:
    """Writes a RUN.json and gives its path."""

    def write(policy: dict[str, Any] | None = None, **settings: Any) -> Path:
        path = tmp_path / "run.json"
        path.write_text(json.dumps(run_values(policy, **settings)))
        return path

    return write


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """Start a server that speaks S3's protocol; yield the variables that point a client at it.

    The server listens on loopback and a free port.
    """
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def bucket(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty prefix in a bucket."""
    import boto3

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{os.urandom(6).hex()}"
    boto3.client(
        "s3", endpoint_url=s3_environment["AWS_ENDPOINT_URL"], region_name="us-east-1"
    ).create_bucket(Bucket=name)  # type: ignore[reportUnknownMemberType]
    return f"s3://{name}/runs"
