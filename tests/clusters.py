"""Ray clusters of several nodes on this machine, as somebody starts them who has read the documents."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SOON_MISSED = {
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}
"""Ray declares a silent node dead after some ten seconds; by default it takes a minute."""


def write_token(folder: Path) -> dict[str, str]:
    """Write a token that nobody else can read; return the variables that name it."""
    file = folder / "ray-token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


@contextmanager
def head_of(monkeypatch: pytest.MonkeyPatch, auth: dict[str, str], **head: Any) -> Generator[Any]:
    """Start the first node of a cluster on loopback, with these variables about its token."""
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **auth}.items():
        monkeypatch.setenv(name, value)
    _read_variables()
    # Ray tries the dashboard's port even without one, and where it is taken leaves the socket open
    free = {"include_dashboard": False, "dashboard_port": 0}
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**free, "_system_config": SOON_MISSED, **head}
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()
        for name in auth:
            monkeypatch.delenv(name)
        _read_variables()


@contextmanager
def head_with_dashboard(
    monkeypatch: pytest.MonkeyPatch, auth: dict[str, str], **head: Any
) -> Generator[Any]:
    """Start a cluster of one node to which studies can be handed in, at its `dashboard`.

    No `python` is on its path, as where nobody has activated an environment.
    """
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    free = {"dashboard_agent_listen_port": 0, "dashboard_host": "127.0.0.1"}
    with head_of(monkeypatch, auth, include_dashboard=True, **free, **head) as cluster:
        cluster.dashboard = f"http://{cluster.head_node.webui_url}"
        yield cluster


def _read_variables() -> None:
    """Let Ray read its variables again; it did so when it was imported."""
    from sweep.cluster import tokens

    tokens.read_variables()
