"""The shape of sealed files: which fields each kind has, and of which types.

A seal shows that a file is as it was written. It does not show who wrote it, because anybody can seal. So
every sealed file is read here, and one without its shape counts as damaged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from trainer.settings import WITHOUT_POINT, Excerpt, SettingError, SpecError, Within, read
from trainer.store import LARGEST_SEALED, Store, unseal

MOST_WORDS = 200
"""The most characters that a message repeats of a file."""


def _wrong_time(text: str) -> str | None:
    """Why a text is no time that can be compared with others; None where it is one."""
    try:
        moment = datetime.fromisoformat(text)
        moment.timestamp()
    except (ValueError, OverflowError):
        return "must be a time."
    return None if moment.tzinfo else "must be a time with its distance from UTC."


Time = Annotated[str, _wrong_time]
Whole = Annotated[int, Within(at_least=0, below=2**63), WITHOUT_POINT]
Number = Annotated[int, Within(at_least=1, below=2**63), WITHOUT_POINT]
"""A whole number that is counted from 1."""


@dataclass(frozen=True)
class Process(Excerpt):
    """What tells a process from every other one."""

    host: str
    boot: str
    space: str
    pid: Number
    started: str


@dataclass(frozen=True)
class Holder(Process):
    """The process that holds a claim, and the number of its driver's lease; 0 without a driver."""

    lease: Whole


@dataclass(frozen=True)
class AttemptRecord(Excerpt):
    """An attempt.json. Those of older releases name no holder."""

    started_at: Time
    holder: Holder | None = None


@dataclass(frozen=True)
class Sign(Excerpt):
    """A claim.json."""

    state: Literal["held", "released"]
    beat: Whole


@dataclass(frozen=True)
class OutcomeFile(Excerpt):
    """A file that an outcome.json names."""

    name: str
    bytes: Whole
    sha256: str


@dataclass(frozen=True)
class OutcomeRecord(Excerpt):
    """An outcome.json. Its files lie in the folder of an attempt, and each has its hash in its name."""

    outcome: Literal["completed", "diverged"]
    run_id: str
    written_at: Time
    epochs: Number
    attempt: Number
    files: dict[str, OutcomeFile]
    collapsed: bool | None = None

    def __post_init__(self) -> None:
        if (self.outcome == "completed") != (self.collapsed is not None):
            raise SettingError("collapsed", "must be said of a run that completed, and of no other.")
        needed = {"epochs", "endpoints"} if self.outcome == "completed" else {"epochs"}
        if missing := sorted(needed - self.files.keys()):
            raise SettingError("files", f"must have {' and '.join(missing)}.")
        for kind, file in self.files.items():
            suffix = {"checkpoint": "pt", "epochs": "parquet", "endpoints": "parquet"}.get(kind, "")
            pattern = rf"attempt-[1-9][0-9]*/{kind}-{self.epochs}-{file.sha256[:16]}\.{suffix}"
            if not re.fullmatch("[0-9a-f]{64}", file.sha256) or not re.fullmatch(pattern, file.name):
                raise SettingError("files", f"has a name that no {kind[:20]!a} has: {file.name[:80]!a}.")


def checked(body: dict[str, Any], shape: type) -> dict[str, Any]:
    """The content of a sealed file, if it has its shape. ValueError says what it lacks."""
    try:
        read(shape, body)
    except SpecError as error:
        text = str(error.problems[0]).rstrip(".")
        short = text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]} ..."
        raise ValueError(" ".join(short.split())) from None
    return body


def read_sealed(store: Store, name: str, shape: type) -> dict[str, Any]:
    """The content of a sealed file. ValueError: it is damaged. FileNotFoundError: it is missing."""
    return checked(unseal(store.read(name, LARGEST_SEALED)), shape)
