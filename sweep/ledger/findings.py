"""What the doctor says of a file."""

from __future__ import annotations

from dataclasses import dataclass

ASIDE = ".damaged"
"""The ending of a file that was put aside."""


@dataclass(frozen=True)
class Finding:
    """A file that was not what it should be, and whether the study can go on now."""

    file: str
    what: str
    repaired: bool
