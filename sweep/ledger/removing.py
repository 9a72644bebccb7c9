"""Removing a study from its store: all of its files, and nothing else there.

Its study.json says first that it is being removed, and goes when all else is gone. So no command takes a
half removed study for a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sweep.errors import DamagedLedger, HalfRemoved, NothingBegun
from sweep.format import now
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import READERS, Ledger
from sweep.ledger.shapes import DECLARATION, REMOVED
from trainer.store import StoreError, seal

PARTS = ("runs/", "generations/", "lease/")
"""What every study has, and no other folder of a store."""


@dataclass(frozen=True)
class Contents:
    """What a study has in its store."""

    where: str
    runs: int
    files: int
    bytes: int
    declared_at: str | None
    """When the study was begun; None where its study.json does not say it."""


def contents(ledger: Ledger) -> Contents:
    """What would be removed. Raises NothingBegun where there is no study, whole or in part."""
    stamps, declared_at = ledger.store.stamps(), None
    try:
        declared = ledger.declared()
        is_study = declared is not None or any(name.startswith(PARTS) for name in stamps)
        declared_at = (declared or {}).get("declared_at")
    except HalfRemoved:
        is_study = True
    except DamagedLedger:
        # an export has a study.json too
        is_study = any(name.startswith(PARTS) for name in stamps)
    if not is_study:
        raise NothingBegun(ledger.store.where())
    runs = {name.split("/")[1] for name in stamps if name.startswith("runs/")}
    # a stamp begins with the size, in every store
    size = sum(int(stamp.split("-")[0]) for stamp in stamps.values())
    return Contents(ledger.store.where(), len(runs), len(stamps), size, declared_at)


def remove(ledger: Ledger, lease: Lease) -> list[str]:
    """Remove a study, whose lease the caller holds. Returns why files are left; empty where none is.

    The lease goes last. Where files are left, the caller still has it.
    """
    store = ledger.store
    store.write(DECLARATION, seal({REMOVED: now()}))
    store.delete_partial()
    last = [DECLARATION, *store.names("lease")]
    problems = _delete(ledger, [name for name in store.names() if name not in last])
    if not problems:
        problems = _delete(ledger, [DECLARATION])
        lease.release()
        # a driver that came after that has a lease of its own, and begins a new study
        problems += _delete(ledger, last[1:])
    ledger.home.delete_empty(ledger.study)
    return problems


def _delete(ledger: Ledger, names: Sequence[str]) -> list[str]:
    """Delete files; return why some could not be deleted."""

    def delete(name: str) -> str:
        try:
            ledger.store.delete(name)
        except StoreError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(READERS) as workers:
        return [problem for problem in workers.map(delete, names) if problem]
