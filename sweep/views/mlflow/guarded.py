"""MLflow's server behind a guard: it answers its own pages and clients, and only what a view needs.

MLflow's own server takes every page of any port of this machine for its own, writes artifacts wherever an
experiment says, and fetches addresses that it is given. `server` starts this file as a process.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import sys
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sweep.views.mlflow.server import PASSWORD

MOST_BYTES = 2**20
"""Bytes of a request whose content is looked at."""
API = re.compile(r"/(?:ajax-)?api/[23]\.0/(mlflow(?:-artifacts)?/.+)")
READ = re.compile(
    r"/|/health|/version|/server-info|/get-artifact|/static-files/[^?#]*"
    r"|/(?:ajax-)?api/[23]\.0/mlflow/(?!gateway|webhooks|jobs|scorers)[^?#]*"
    r"|/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts(?:/[^?#]*)?"
)
"""What can be read."""
ASKED = {
    *("mlflow/experiments/search", "mlflow/experiments/search-datasets", "mlflow/runs/search"),
    *("mlflow/metrics/get-history-bulk-interval", "mlflow/logged-models/search", "mlflow/traces/search"),
}
"""What is read by a POST."""
CREATE = "mlflow/experiments/create"
WRITTEN = {
    CREATE,
    *(f"mlflow/experiments/{what}" for what in ("update", "delete", "restore", "set-experiment-tag")),
    *(f"mlflow/runs/{what}" for what in ("create", "update", "delete", "restore", "set-tag", "delete-tag")),
    *(f"mlflow/runs/log-{what}" for what in ("batch", "metric", "parameter")),
}
"""What a view and a reader's notes write. Nothing here names a file, or an address to fetch."""


class Guard:
    """Refuses every request that no view needs, and hands the others to an application."""

    def __init__(self, app: ASGIApp, port: int, password: str | None) -> None:
        self.app, self.password = app, password
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._stranger(headers) or _no_route(scope["method"], scope["path"])
        if not refused and _is_create(scope):
            content = await _content(receive)
            refused, receive = _elsewhere(content), _replayed(content)
        if refused:
            code, why = refused
            asking = {"www-authenticate": 'Basic realm="MLflow", charset="UTF-8"'} if code == 401 else None
            await PlainTextResponse(why, code, asking)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _stranger(self, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why a request is not from this server's own page, or from a client with the password."""
        if headers.get("host") not in self.hosts:
            return 403, "This server answers on 127.0.0.1 only."
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self.hosts:
            return 403, "This server answers its own pages only."
        if self.password is not None and not secrets.compare_digest(
            _password(headers.get("authorization", "")), self.password.encode()
        ):
            return 401, "The password is missing or wrong. Any name will do."
        return None


def _password(authorization: str) -> bytes:
    kind, _, words = authorization.partition(" ")
    try:
        decoded = base64.b64decode(words if kind.lower() == "basic" else "", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return decoded.partition(b":")[2]


def _no_route(method: str, path: str) -> tuple[int, str] | None:
    """Why a request is none that a view needs."""
    found = API.fullmatch(path)
    name = found[1] if found else ""
    allowed = (
        (method in ("GET", "HEAD") and READ.fullmatch(path))
        or (method == "POST" and (name in ASKED or name in WRITTEN or path == "/graphql"))
        or (method == "PUT" and name.startswith("mlflow-artifacts/artifacts/"))
    )
    return None if allowed else (403, "This server shows studies, and does not do that.")


def _is_create(scope: Scope) -> bool:
    found = API.fullmatch(scope["path"])
    return found is not None and found[1] == CREATE


async def _content(receive: Receive) -> bytes:
    content = b""
    while len(content) <= MOST_BYTES:
        message = await receive()
        content += message.get("body", b"")
        if not message.get("more_body"):
            break
    return content


def _replayed(content: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


def _elsewhere(content: bytes) -> tuple[int, str] | None:
    """Why an experiment cannot be made: its artifacts would lie in another place than this server's."""
    try:
        body: Any = json.loads(content) if len(content) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return 400, "An experiment is a JSON object."
    if any(re.sub("[^a-z]", "", str(key).lower()) == "artifactlocation" and body[key] for key in body):
        return 403, "Artifacts are kept where this server keeps them: leave artifact_location out."
    return None


def main() -> None:
    """Serve the database and the artifacts that the environment names on a port of 127.0.0.1."""
    import uvicorn
    from mlflow.server import constants

    uri, artifacts = os.environ["MLFLOW_BACKEND_STORE_URI"], os.environ["MLFLOW_ARTIFACTS_DESTINATION"]
    # what `mlflow server` tells its workers
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    from mlflow.server.fastapi_app import app

    port = int(sys.argv[1])
    guard = Guard(app, port, os.environ.pop(PASSWORD, None))
    uvicorn.run(guard, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
