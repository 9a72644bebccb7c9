"""What a plan is told and what it answers: results and failures in, runs and proposals out. Values without behaviour of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sweep.study.arms import Candidate, Phase
from sweep.study.contents import Values
from trainer.spec import RunSpec


@dataclass(frozen=True)
class Result:
    """What a finished run gave."""

    outcome: Literal["completed", "collapsed", "diverged"]
    epochs: int
    seconds: float
    """Sum over its epochs, with evaluation."""
    classes: int
    validation: dict[str, float]
    """Accuracy of the final weights, by keep ratio as it is written in the study."""
    test: dict[str, float]
    parameters_start: int = 0
    """Of its network in the first epoch; 0 where its tables do not say, being older."""
    parameters_end: int = 0
    """In the last epoch."""

    def parameters(self, at: Literal["start", "end"]) -> int:
        """The size of its network at the start or the end; 0 where that is unknown."""
        return self.parameters_start if at == "start" else self.parameters_end

    def score(self, split: Literal["validation", "test"], ratio: float) -> float:
        """Accuracy at an endpoint by the declared rule: a diverged run scores 0, and any other what it measured, a collapsed one too."""
        if self.outcome == "diverged":
            return 0.0
        return getattr(self, split)[f"{ratio:g}"]


@dataclass(frozen=True)
class Failure:
    """Why a run could not be finished: its attempts are used up, or its files are damaged."""

    reason: str
    node: str = ""
    attempts: int = 1
    damaged: bool = False
    what: str = ""
    """The run, for people."""


@dataclass(frozen=True)
class Run:
    """Work: a run, where it stands in the study, and how urgent it is (least first)."""

    spec: RunSpec
    run_id: str
    phase: Phase
    candidate: str
    arm: str
    place: int
    """Of its seed in the pool."""
    priority: tuple[int, ...]


@dataclass(frozen=True)
class Proposal:
    """A generation that is due, and the scores to propose it from: candidates' values, mean scores and seeds, in a fixed order."""

    arm: str
    generation: int
    size: int
    history: list[tuple[Values, float, int]]


@dataclass(frozen=True)
class Cohort:
    """What a seed average is taken over: a candidate's runs in a phase, in the order of the pool, so many as it has been given so far."""

    candidate: Candidate
    phase: Phase
    runs: tuple[str, ...]
    """By run_id. Equal candidates share their runs."""
    scores: tuple[float, ...]
    """At the primary endpoint; NaN where the run has not finished."""


@dataclass(frozen=True)
class Look:
    """A whole comparison that was computed and could be seen: of these arms, over so many pairs."""

    at: str
    pairs: int
    arms: list[str]


@dataclass(frozen=True)
class Looks:
    """The looks at a study: seeds that are added after one are tested alone."""

    seen: list[Look]
    if_more: list[Look]
    """The looks there would be if the study asked for more seeds."""
    begun: int | None
    """How many seeds the ledger has now; None where it is not begun."""
