"""The commands as somebody starts them who was handed something harmful, here or in an older checkout.

`SECURITY_TREE=../old make test-security` runs the commands of another checkout. There these tests are to
fail: that shows that they can.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

TREE = Path(os.environ.get("SECURITY_TREE", ROOT)).resolve()
PATIENCE_SECONDS = 55
"""No command may take longer here, whatever it is given; a test that waits longer fails."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a command of the checkout under test."""
    return {**os.environ, "PYTHONPATH": str(TREE), **(more or {})}


def arguments(module: str, *more: str | Path) -> list[str]:
    """A command line. As with the installed command, the folder it is started in is not on Python's path."""
    return [sys.executable, "-P", "-m", module, *map(str, more)]


def sweep(
    *more: str | Path, cwd: Path, env: Mapping[str, str] | None = None, seconds: float = PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run `sweep` to its end in a folder."""
    return _run(arguments("sweep", *more), cwd, env, seconds)


def trainer(
    *more: str | Path, cwd: Path, env: Mapping[str, str] | None = None, seconds: float = PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run `python -m trainer` to its end in a folder."""
    return _run(arguments("trainer", *more), cwd, env, seconds)


def _run(
    command: list[str], cwd: Path, env: Mapping[str, str] | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


def assert_one_message(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Assert that a command ended with a code and a message that has these words, and no traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    for word in words:
        assert word in done.stdout + done.stderr
