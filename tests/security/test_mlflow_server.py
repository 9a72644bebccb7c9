"""The MLflow that `sweep ui` starts answers its own page and clients, and writes in its own folder alone.

A server over an empty database is started as `sweep ui` starts it; a study would take longer to show.

| attack on a function | in 15d2fea | now |
| --- | --- | --- |
| requests to the server | sweep.view_commands._server | sweep.views.mlflow.server.serving |
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweep.views.mlflow.server import free_port
from tests.security.victim import TREE, environment, sweep
from tests.views import MLFLOWS_OWN, database

pytestmark = [MLFLOWS_OWN]

STARTER = """
import sys, tempfile
from pathlib import Path
uri, artifacts, port, log, *password = sys.argv[1:]
try:
    from sweep.views.mlflow.server import serving
except ImportError:
    from sweep.view_commands import _server, _wait_for
    with open(log, "w+") as told:
        server = _server(uri, artifacts, int(port), told)
        _wait_for(server, int(port), told)
        print("ready", flush=True)
        sys.stdin.read()
        server.terminate()
        server.wait()
else:
    with serving(uri, artifacts, int(port), Path(log), *password):
        print("ready", flush=True)
        sys.stdin.read()
"""
"""Serves until its stdin is closed."""


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path

    def ask(
        self, method: str, path: str, body: Any = None, *, host: str = "", **headers: str
    ) -> tuple[int, str]:
        """Return status and content of an answer. `host` and the headers are sent as they are."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Host": host or f"127.0.0.1:{self.port}", "Content-Type": "application/json", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()


@contextmanager
def started(folder: Path, *password: str) -> Generator[Server]:
    port, artifacts = free_port(0), folder / "artifacts"
    artifacts.mkdir(parents=True)
    command = [sys.executable, "-P", "-c", STARTER, database(folder / "mlflow.db"), artifacts.as_uri()]
    process = subprocess.Popen(
        [*command, str(port), str(folder / "log"), *password],
        env=environment(),
        cwd=TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n", (folder / "log").read_text()
            yield Server(port, folder)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(50)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    with started(tmp_path_factory.mktemp("served")) as server:
        yield server


CREATE = "/api/2.0/mlflow/experiments/create"


@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
@pytest.mark.parametrize("key", ["artifact_location", "artifactLocation"])
@pytest.mark.parametrize(
    "place", ["file:///etc", "/etc", "../elsewhere", "s3://bucket", "mlflow-artifacts:/"]
)
def test_no_experiment_keeps_its_artifacts_elsewhere(
    server: Server, prefix: str, key: str, place: str
) -> None:
    path = f"{prefix}/2.0/mlflow/experiments/create"
    status, _ = server.ask("POST", path, {"name": f"x {prefix} {key} {place}", key: place})
    assert status == 403


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"name": "' + b"x" * 2**21 + b'"}'])
def test_an_experiment_that_is_no_object_is_refused(server: Server, body: bytes) -> None:
    assert server.ask("POST", CREATE, body)[0] == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=1&path=a"),
        ("POST", "/api/2.0/mlflow/registered-models/create"),
        ("POST", "/api/2.0/mlflow/model-versions/create"),
        ("POST", "/api/2.0/mlflow/webhooks/create"),
        ("POST", "/api/2.0/mlflow/webhooks/1/test"),
        ("POST", "/api/2.0/mlflow/traces"),
        ("POST", "/api/3.0/mlflow/traces"),
        ("POST", "/v1/traces"),
        ("POST", "/ajax-api/3.0/mlflow/jobs/submit"),
        ("POST", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("GET", "/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=a"),
        ("POST", "/gateway/mlflow/v1/chat/completions"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/chat"),
        ("GET", "/model-versions/get-artifact?path=a"),
        ("POST", "/api/2.0/mlflow/runs/log-model"),
        ("POST", "/api/2.0/mlflow/runs/log-inputs"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/a"),
        ("POST", "/api/2.0/mlflow-artifacts/mpu/create/1/a"),
        ("POST", "//api/2.0/mlflow/registered-models/create"),
        ("POST", "/api/2.0/mlflow/runs/../registered-models/create"),
        ("POST", "/api/2.0/mlflow%2Fregistered-models%2Fcreate"),
        ("PUT", "/api/2.0/mlflow/runs/search"),
        ("TRACE", "/"),
    ],
)
def test_what_no_view_needs_is_refused(server: Server, method: str, path: str) -> None:
    assert server.ask(method, path, {})[0] == 403


@pytest.mark.parametrize(
    "origin", ["http://localhost:{other}", "http://127.0.0.1:{other}", "http://[::1]:{port}", "null"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_another_port_is_refused(server: Server, method: str, origin: str) -> None:
    given = origin.format(other=server.port + 1, port=server.port)
    status, _ = server.ask(method, "/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]}, Origin=given)
    assert status == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://evil.example:5000", "http://localhost.evil"]
)
def test_a_page_from_elsewhere_is_refused(server: Server, origin: str) -> None:
    assert server.ask("POST", CREATE, {"name": origin}, Origin=origin)[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost"]
)
def test_another_host_is_refused(server: Server, host: str) -> None:
    assert server.ask("GET", "/api/2.0/mlflow/experiments/search?max_results=1", host=host)[0] == 403


def test_an_upload_stays_in_the_folder_of_artifacts(server: Server) -> None:
    before = {path for path in server.folder.rglob("*") if "artifacts" not in path.parts}
    for path in ("../../stolen", "%2e%2e/%2e%2e/stolen", "/etc/stolen", "..%5c..%5cstolen", "a/%00"):
        server.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/1/{path}", b"stolen")
    assert {path for path in server.folder.rglob("*") if "artifacts" not in path.parts} == before
    assert not Path("/etc/stolen").exists()


def test_its_own_page_and_a_client_are_answered(server: Server) -> None:
    assert server.ask("GET", "/")[0] == 200
    own = f"http://localhost:{server.port}"
    status, told = server.ask("POST", CREATE, {"name": "ours"}, host=own.removeprefix("http://"), Origin=own)
    assert status == 200, told
    made = {"experiment_id": json.loads(told)["experiment_id"], "start_time": 1}
    status, told = server.ask("POST", "/api/2.0/mlflow/runs/create", made)
    assert status == 200, told
    place = json.loads(told)["run"]["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
    status, told = server.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}/a.txt", b"kept")
    assert status == 200, told
    assert (server.folder / "artifacts" / place / "a.txt").read_bytes() == b"kept"
    assert server.ask("GET", f"/api/2.0/mlflow-artifacts/artifacts/{place}/a.txt") == (200, "kept")


def test_a_password_is_asked_for_where_one_is_given(tmp_path: Path) -> None:
    def basic(words: str) -> str:
        return "Basic " + base64.b64encode(words.encode()).decode()

    with started(tmp_path, "a pass:word") as server:
        for wrong in (
            "",
            "Basic",
            "Basic !",
            basic("me:"),
            basic("me"),
            "Bearer a pass:word",
            basic("me:no"),
        ):
            assert server.ask("GET", "/", Authorization=wrong)[0] == 401, wrong
        assert server.ask("GET", "/health")[0] == 401
        assert server.ask("GET", "/", Authorization=basic("me:a pass:word"))[0] == 200


@pytest.mark.parametrize(("content", "mode"), [("secret", 0o644), ("\n", 0o600), (None, 0)])
def test_a_file_of_a_password_is_for_its_owner_alone(tmp_path: Path, content: str | None, mode: int) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    told = sweep("ui", "quickstart", "--password-file", file, cwd=tmp_path)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert str(file) in told.stderr
    assert "secret" not in told.stderr
