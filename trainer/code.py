"""A hash of a package's sources: it names the code that runs, also where there is no git."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from trainer.store import digest


@cache
def code_hash(package: Path = Path(__file__).parent) -> str:
    """Hash of all source files of a package; the default is this package."""
    return digest(b"".join(path.read_bytes() for path in sorted(package.rglob("*.py"))))[:16]
