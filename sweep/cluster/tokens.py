"""The token that a Ray cluster asks for. Whoever has it can run code as the user of the cluster.

A cluster that asks for none takes code from everybody who reaches its ports.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from ray import _raylet, exceptions
from ray._private import services
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.job_config import JobConfig

from sweep.errors import AbortSweep

MODE, TOKEN, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""The environment variables that Ray reads."""
CONNECT_SECONDS = 10.0
BOTH_SIDES = f"Set {MODE}=token and {FILE}=FILE, with the same token in the file,"


_RAY: Any = _raylet
"""Ray's C++ code, which declares no types."""


class JobOfOurs(JobConfig):
    """The work of a sweep, as Ray knows it: its workers import nothing from the folder the driver stands in.

    Ray adds that folder to their path, except where a job brings a folder along.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


@contextmanager
def token_from(file: Path) -> Generator[None]:
    """Let this process, and those that it starts, use the token in a file, and no other."""
    with _variables({MODE: "token", FILE: str(file), TOKEN: None}):
        yield


def use_token(address: str) -> None:
    """Use the user's token for a cluster. Raises AbortSweep where there is none, or the cluster needs none.

    Nothing is sent to a cluster that anybody may command: it is asked without the token first.
    """
    where = services.canonicalize_bootstrap_address(address, None)
    if where is None:
        raise ConnectionError("it is not running.")
    host, _, port = where.rpartition(":")
    # Ray itself would try for a minute
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    with _variables({MODE: "disabled"}):
        is_open = _accepts_us(where)
    _use_token(f"The Ray cluster at {address}", is_open, lambda: _accepts_us(where))


def use_token_at(dashboard: str) -> None:
    """Use the user's token for the cluster whose dashboard has this URL. Raises as `use_token` does."""
    is_open = _answers_us(dashboard, {})
    headers = get_auth_headers_if_auth_enabled
    _use_token(f"The Ray cluster at {dashboard}", is_open, lambda: _answers_us(dashboard, headers({})))


def _use_token(cluster: str, is_open: bool, accepts_us: Callable[[], bool]) -> None:
    """Use the user's token for a cluster, which may be open to everybody; `accepts_us` asks it."""
    if is_open:
        raise AbortSweep(
            f"{cluster} has no token: it runs whatever anybody sends who reaches it. "
            f"{BOTH_SIDES} before `ray start` on every node, and here."
        )
    os.environ[MODE] = "token"
    read_variables()
    try:
        has_token = _RAY.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except exceptions.AuthenticationError:
        raise AbortSweep(f"{FILE}={os.environ.get(FILE)}: cannot be read, or is empty.") from None
    if not has_token:
        raise AbortSweep(f"{cluster} asks for a token. {BOTH_SIDES} here as on its nodes.")
    if not accepts_us():
        # without the variables Ray takes a token that it once made for this user
        own = (
            ""
            if os.environ.keys() & {TOKEN, FILE}
            else " (no variable is set, so that it is ~/.ray/auth_token)"
        )
        raise AbortSweep(
            f"{cluster} refuses the token that is set here{own}. {BOTH_SIDES} here as on its nodes."
        )


def _accepts_us(address: str) -> bool:
    """Whether a cluster answers this process; False where it asks for another token."""
    try:
        with _quiet():
            _RAY.GcsClient(address=address)
    except exceptions.AuthenticationError:
        return False
    return True


def _answers_us(dashboard: str, headers: dict[str, str]) -> bool:
    """Whether a dashboard answers a request; False where it asks for another token."""
    try:
        # a redirect would carry the token elsewhere
        answer = requests.get(
            f"{dashboard}/api/version", headers=headers, timeout=CONNECT_SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        raise AbortSweep(
            f"{dashboard} does not answer ({type(error).__name__}). A dashboard listens on loopback, unless "
            "its head was started with --dashboard-host."
        ) from None
    if answer.status_code not in (200, 401, 403):
        raise AbortSweep(f"{dashboard} is no dashboard of a Ray cluster: it answers {answer.status_code}.")
    return answer.status_code == 200


@contextmanager
def _variables(values: dict[str, str | None]) -> Generator[None]:
    """Set environment variables of Ray's, or remove them, for a time."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    read_variables()


def read_variables() -> None:
    """Let Ray read its variables again. It has read them when it was imported."""
    _RAY.Config.initialize("")
    _RAY.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _quiet() -> Generator[None]:
    """Hide what Ray's C++ code writes to stderr about a refusal; it is told in our words."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
