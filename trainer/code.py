"""A hash of sources: it names the code that runs, also where there is no git."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from trainer.store import digest


@cache
def code_hash(package: Path = Path(__file__).parent) -> str:
    """Hash of all source files of a package, or of a module's file; the default is this package."""
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package]
    return digest(b"".join(path.read_bytes() for path in files))[:16]
