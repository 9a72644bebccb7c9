"""A secret in a file that only its owner can read."""

from __future__ import annotations

from pathlib import Path

from sweep.errors import RejectStudy


def first_line(file: Path, named_by: str) -> str:
    """The first line of a file that other users cannot read. RejectStudy says why it will not do.

    `named_by` is the option or the variable that names the file.
    """
    try:
        shared = file.stat().st_mode & 0o077
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RejectStudy([f"{named_by} {file}: cannot be read: {error}."]) from None
    if shared:
        raise RejectStudy([f"{named_by} {file}: other users can read it. First: chmod 600 {file}"])
    if not lines or not lines[0]:
        raise RejectStudy([f"{named_by} {file}: its first line is empty."])
    return lines[0]
