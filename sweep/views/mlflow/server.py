"""MLflow's server behind a guard (`guarded`), started on this machine and stopped again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.errors import TrackerDown
from sweep.views.mlflow.address import without_secrets

START_SECONDS = 120.0
"""How long the server may take to answer for the first time."""
PASSWORD = "SWEEP_UI_PASSWORD"  # noqa: S105, the name of a variable
"""The environment variable with the server's password; without it none is asked for."""


@contextmanager
def serving(
    uri: str, artifacts: str, port: int, log: Path, password: str | None = None
) -> Generator[subprocess.Popen[Any]]:
    """Run MLflow's server on 127.0.0.1 over a database. The caller gets it once it answers.

    What the server prints is appended to the file `log`.
    """
    command = [sys.executable, "-P", "-m", "sweep.views.mlflow.guarded", str(port)]
    # the address may hold a password, and everybody on the machine can read a command line
    more = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    more |= {"MLFLOW_ARTIFACTS_DESTINATION": artifacts}
    more |= {} if password is None else {PASSWORD: password}
    environment = {**os.environ, **more, "MLFLOW_DISABLE_TELEMETRY": "true"}
    # uvicorn imports from the folder it stands in, so that one is empty
    with log.open("a") as file, tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        # in a session of its own Ctrl-C does not reach the server; it is stopped below
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=file, stderr=file, start_new_session=True
        )
        try:
            _wait_for(server, port, log, uri)
            yield server
        finally:
            server.terminate()
            server.wait()


def _wait_for(server: subprocess.Popen[Any], port: int, log: Path, uri: str) -> None:
    """Return when the server takes connections; raise TrackerDown where it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            said = without_secrets(log.read_text(), uri)
            raise TrackerDown(f"{said}\nthe MLflow server ended with code {server.returncode}.")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TrackerDown(f"the MLflow server did not answer within {START_SECONDS:g} s.")


def free_port(wanted: int) -> int:
    """The port `wanted`, or any other port where that one is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise AssertionError("some port is always free")
