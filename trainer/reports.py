"""The reports that an attempt sends every few seconds to whoever handed its run out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class _Report:
    """What every report has."""

    state: ClassVar[str]
    run_id: str
    messages: list[str]
    """The attempt's messages since the last report, for a person."""
    node: str = ""
    """The id of the node on which it runs; the actor fills it in."""


@dataclass(frozen=True, kw_only=True)
class Began(_Report):
    """The report that an attempt has begun and has not trained yet."""

    state = "began"
    pid: int
    gpu: str = ""
    """The GPU on which it waits for a host; empty where it needs none, or is in one already."""


@dataclass(frozen=True, kw_only=True)
class Progress(_Report):
    """The report that an attempt is under way."""

    state = "training"
    epochs: float
    """The epochs done, with the share of the one under way."""
    loss: float | None
    kept: int = 0
    """The epochs that are committed."""


@dataclass(frozen=True, kw_only=True)
class Busy(_Report):
    """The report that nothing was begun, because somebody else trains the run now."""

    state = "busy"
    claim: str
    """The claim in words, for a person."""
    stamp: str
    """The stamp of the claim. It changes with each sign of life."""


@dataclass(frozen=True, kw_only=True)
class Ended(_Report):
    """The report that the run has its outcome."""

    state = "ended"
    result: Any
    """What the worker makes of the outcome."""


@dataclass(frozen=True, kw_only=True)
class Failed(_Report):
    """The report that the attempt cannot go on."""

    state = "failed"
    reason: str
    log: list[str]
    """The last lines of its log."""
    damaged: bool = False
    """Whether the run's files cannot be trusted, so that another attempt would fail as well."""
    machine: bool = False
    """Whether the node may be at fault."""
    blame: bool = True
    """Whether the attempt counts as one of the run's tries."""
    fatal: bool = False
    """Whether its process cannot train any more. Another run of the same process may be at fault then."""


Report = Began | Progress | Busy | Ended | Failed
KINDS: dict[str, type[Report]] = {kind.state: kind for kind in (Began, Progress, Busy, Ended, Failed)}
