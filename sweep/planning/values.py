"""The values that a plan takes and gives: results and failures in, runs, proposals and cohorts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

from sweep.errors import DamagedLedger
from sweep.study import Candidate, Phase, Values
from trainer.spec import RunSpec


@dataclass(frozen=True)
class Result:
    """The result of a finished run."""

    outcome: Literal["completed", "collapsed", "diverged"]
    epochs: int
    seconds: float
    """The sum over its epochs, evaluation included."""
    classes: int
    validation: dict[str, float]
    """Validation accuracy of the final weights, by keep ratio (as text: "0.05")."""
    test: dict[str, float]
    """Test accuracy of the final weights, likewise."""
    parameters_start: int = 0
    """The parameters of its network in the first epoch; 0 where its tables are too old to say."""
    parameters_end: int = 0
    """The parameters of its network in the last epoch, likewise."""

    def parameters(self, at: Literal["start", "end"]) -> int:
        """The parameters of its network at the start or the end; 0 where they are unknown."""
        return self.parameters_start if at == "start" else self.parameters_end

    def score(self, split: Literal["validation", "test"], ratio: float) -> float:
        """The accuracy at an endpoint. A diverged run scores 0; a collapsed run scores what it measured."""
        if self.outcome == "diverged":
            return 0.0
        try:
            return getattr(self, split)[f"{ratio:g}"]
        except KeyError:
            # the tables of a run are checked when they are read
            lacking = f"index.json is damaged: a result has no {split} accuracy at r = {ratio:g}"
            raise DamagedLedger(f"{lacking}. Delete it: the next command makes it anew.") from None


@dataclass(frozen=True)
class Failure:
    """Why a run was given up: its attempts are used up, or its files are damaged."""

    reason: str
    node: str = ""
    attempts: int = 1
    damaged: bool = False
    what: str = ""
    """The run in words, for people."""


@dataclass(frozen=True)
class Run:
    """A run to train, where it belongs in the study, and how urgent it is (the least priority first)."""

    spec: RunSpec
    run_id: str
    phase: Phase
    candidate: str
    arm: str
    place: int
    """The place of its seed in the pool, counted from 0."""
    priority: tuple[int, ...]


class History(Sequence[tuple[Values, float, int]]):
    """The values, the mean score and the number of seeds of each earlier candidate, in a fixed order.

    It is made when it is first read. A forecast never reads it, and making one for each generation takes a
    time that grows with the square of the budget.
    """

    def __init__(self, make: Callable[[], list[tuple[Values, float, int]]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> list[tuple[Values, float, int]]:
        return self._make()

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, index: int) -> tuple[Values, float, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Values, float, int]]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._made[index]


@dataclass(frozen=True)
class Proposal:
    """A generation that is due, and the scores to propose it from."""

    arm: str
    generation: int
    size: int
    history: Sequence[tuple[Values, float, int]]


@dataclass(frozen=True)
class Cohort:
    """The runs that a candidate has been given so far in a phase, in the order of the pool."""

    candidate: Candidate
    phase: Phase
    runs: tuple[str, ...]
    """The runs by run_id. Equal candidates share their runs."""
    scores: tuple[float, ...]
    """The score of each run at the primary endpoint; NaN where the run has not finished."""


Growth = Literal["", "pairs", "picks"]
"""How a study grew after its gains could be seen: not at all, by pairs, or by picking finalists anew."""


@dataclass(frozen=True)
class Look:
    """A record that comparisons were shown to somebody, or could be seen before the study was declared."""

    at: str
    """The time."""
    pairs: int
    """How many blocks the study had then: seeds, or searches where there are several."""
    arms: list[str]
    """The arms whose comparisons were shown."""
    said: list[str] = field(default_factory=list[str])
    """What the tested comparisons said, a line each; empty where gains could be seen without a test."""
    taken_from: str = ""
    """The study whose results were there before this one was declared; empty where this one's were shown."""
