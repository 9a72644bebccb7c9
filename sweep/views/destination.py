"""Where a report or an export may be written: nowhere in a ledger, and through no link."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sweep.errors import RejectStudy

LEDGER = "study.json"
"""The file that a ledger is known by. An export has one too, which is not sealed."""


def check_folder(given: Path) -> None:
    """RejectStudy if a folder is no place for an export."""
    if given.is_symlink():
        raise _refused(given, f"is a link. Name the folder that it leads to, {os.path.realpath(given)}.")
    if given.exists() and not given.is_dir():
        raise _refused(given, "is a file; an export is a folder.")
    folder = given.resolve()
    if folder == folder.parent:
        raise _refused(given, "is the root of the file system. Name a folder of its own for the export.")
    _check_outside(given, folder)
    if given.is_dir() and (inside := next((it for it in given.iterdir() if _is_ledger(it)), None)):
        raise _refused(given, f"is a store, with the study {inside.name}. Name another folder.")


def check_file(given: Path) -> None:
    """RejectStudy if a file is no place for a page."""
    if given.is_symlink() or (given.exists() and not given.is_file()):
        raise _refused(given, "is there, and is no file. Name another file.")
    _check_outside(given, given.absolute().parent.resolve())


def _check_outside(given: Path, folder: Path) -> None:
    if ledger := next((it for it in (folder, *folder.parents) if _is_ledger(it)), None):
        raise _refused(given, f"is in {ledger}, which keeps a study. Name a place outside of it.")


def _is_ledger(folder: Path) -> bool:
    try:
        return "check" in json.loads((folder / LEDGER).read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _refused(given: Path, why: str) -> RejectStudy:
    return RejectStudy([f"--to {given}: {why}"])
