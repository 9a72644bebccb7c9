"""Passwords and keys come by the environment, and no message, file or command line of ours repeats them.

| here | at 15d2fea |
| --- | --- |
| sweep.views.mlflow.address.shown_uri | sweep.views.mlflow.address.shown_uri |
| sweep.views.mlflow.address.without_secrets | none: a library's message was shown as it came |
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sweep.views.mlflow import address
from sweep.views.mlflow.address import without_secrets
from tests.kept import unpack
from tests.security.victim import sweep
from tests.sweeps import write_study

SECRET = "hunter2-of-the-tracker"
URIS = [
    f"http://user:{SECRET}@127.0.0.1:9/base",
    f"http://user:a@b{SECRET}@127.0.0.1:9",
    f"http://user:a/b?{SECRET}@127.0.0.1:9",
    f"http://{SECRET}@127.0.0.1:9",
    f"http://127.0.0.1:9/?token={SECRET}",
    f"postgresql+psycopg://127.0.0.1:9/db?password={SECRET}",
    f"postgresql+psycopg://user:{SECRET}%40@127.0.0.1:9/db",
]


@pytest.mark.parametrize("uri", URIS)
def test_an_address_is_shown_without_its_secret(uri: str) -> None:
    shown = address.shown_uri(uri)
    assert SECRET not in shown
    assert "127.0.0.1:9" in shown
    assert SECRET not in address.public_uri(uri)


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000/a@b", "sqlite:////srv/mlflow.db", "databricks://team", "http://[::1]:5000", "none"],
)
def test_an_address_without_a_secret_is_shown_as_it_is(uri: str) -> None:
    assert address.shown_uri(uri) == uri


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("message", ["cannot reach {}", "'{}/api/2.0/x' failed"])
def test_a_librarys_message_is_shown_without_it(uri: str, message: str) -> None:
    assert SECRET not in without_secrets(message.format(uri), uri)


def test_a_password_by_itself_in_a_librarys_message_is_hidden_too() -> None:
    assert without_secrets(f"wrong password: {SECRET}", URIS[0]) == "wrong password: ***"


def dead_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("form", ["http://user:{}@127.0.0.1:{}", "http://user:a@b{}@127.0.0.1:{}"])
@pytest.mark.parametrize("by_option", [True, False])
def test_a_tracker_that_is_down_is_told_without_its_password(
    tmp_path: Path, form: str, by_option: bool
) -> None:
    store, uri = unpack(tmp_path), form.format(SECRET, dead_port())
    options, env = ["--mlflow-uri", uri] if by_option else [], {"MLFLOW_TRACKING_URI": uri}
    done = sweep("sync", "kept.yaml", "--store", store, *options, cwd=tmp_path, env=env)
    assert done.returncode == 3, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "MLflow at http://***@127.0.0.1:" in done.stderr
    assert "set MLFLOW_TRACKING_URI" in done.stderr


def test_how_to_continue_does_not_repeat_a_password(tmp_path: Path) -> None:
    uri = f"http://user:{SECRET}@127.0.0.1:{dead_port()}"
    # a port on which no Ray listens ends the sweep at once
    cluster = ("--ray-address", f"127.0.0.1:{dead_port()}", f"--mlflow-uri={uri}")
    done = sweep("run", write_study(tmp_path), "--store", tmp_path, *cluster, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "To continue: " in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("store", [f"s3://key:{SECRET}@bucket/runs", f"s3://bucket/runs?secret={SECRET}"])
def test_a_store_that_names_its_key_is_refused_and_not_repeated(tmp_path: Path, store: str) -> None:
    done = sweep("status", write_study(tmp_path), "--store", store, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "AWS_ACCESS_KEY_ID" in done.stderr
