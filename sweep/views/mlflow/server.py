"""MLflow's own server on this machine, for as long as somebody looks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.errors import TrackerDown

START_SECONDS = 120.0


@contextmanager
def serving(uri: str, artifacts: str, port: int, log: Path) -> Generator[subprocess.Popen[Any]]:
    """A server on loopback that shows a database, from its first answer on; what it prints is appended to `log`."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--artifacts-destination", artifacts, "--workers", "1"]
    # the address goes into the environment, where a password in it is not on show
    more = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**os.environ, **more, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("a") as file:
        # a session of its own, so that Ctrl-C reaches it through us, once
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        _wait_for(server, port, log)
        yield server
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: subprocess.Popen[Any], port: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise TrackerDown(f"{log.read_text()}\nthe MLflow server ended with code {server.returncode}.")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TrackerDown(f"the MLflow server did not answer within {START_SECONDS:g} s.")


def free_port(wanted: int) -> int:
    """This port, or any other where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise AssertionError("some port is always free")
