"""The command that continues a sweep, as the person who stopped it reads it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sweep.cli.output import this_command


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "RAY_ADDRESS", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/sweep/__main__.py", "run", "mine.yaml", "--store=here"])


def test_the_command_that_continues_is_the_one_that_was_given() -> None:
    assert this_command() == "python -m sweep run mine.yaml --store=here"


def test_what_came_from_the_environment_is_in_it_and_what_was_given_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORE", "elsewhere")
    monkeypatch.setenv("DATA_DIR", "my data")
    assert this_command() == "python -m sweep run mine.yaml --store=here --data-dir 'my data'"


def test_a_program_is_named_alone_where_the_path_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sweep").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{tmp_path}/here/sweep", "run", "mine.yaml"])
    for path, said in (("here", "sweep"), ("elsewhere", "here/sweep"), ("nowhere", "here/sweep")):
        monkeypatch.setenv("PATH", os.fspath(tmp_path / path))
        assert this_command() == f"{said} run mine.yaml"
