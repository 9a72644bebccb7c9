"""A finished study's store for tests that falsify it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.kept import unpack


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def store(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of a finished study's store, with the same times."""
    return Path(shutil.copytree(unpacked, tmp_path / "store"))
