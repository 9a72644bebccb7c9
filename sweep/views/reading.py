"""A study's ledger as the views read it: its plan, its cohorts, and each run's files. Reads only; the driver may be at work meanwhile."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from sweep.gains.comparisons import comparisons, seen
from sweep.gains.rows import Compared
from sweep.ledger.ledger import READERS, Ledger
from sweep.planning.plan import Plan
from sweep.planning.work import Cohort, Failure, Result
from sweep.study import files as studies
from sweep.study.study import Study
from trainer.rows import EndpointRow, EpochRow, read_table
from trainer.run_folder import DamagedRun, RunFolder
from trainer.spec import RunSpec
from trainer.store import digest, unseal

AHEAD = 32
"""Runs that are read before they are asked for."""
T = TypeVar("T")
U = TypeVar("U")


class Reading:
    """A study as it stands in its ledger at this moment."""

    def __init__(self, ledger: Ledger) -> None:
        """NothingBegun where there is no study."""
        self.ledger, self.name = ledger, ledger.study
        self.declared: dict[str, Any] = ledger.begun()
        self.study: Study = studies.from_declared(self.name, self.declared)
        ledger.load(keep=False)
        self.plan = Plan(self.study, ledger.results, ledger.proposals())
        self.failures = ledger.failures()
        for run_id, reason in ledger.damaged.items():
            self.plan.queue.damage(run_id, reason)
        for run_id, failure in self.failures.items():
            self.plan.queue.failed.setdefault(
                run_id,
                Failure(failure["reason"], failure["node"], failure["attempts"], what=failure["what"]),
            )
        self.cohorts: list[Cohort] = list(self.plan.cohorts())
        self.looks = ledger.looks()
        self._correct: dict[str, dict[float, tuple[bytes, int]]] = {}

    @cached_property
    def runs(self) -> dict[str, RunFiles]:
        """Every run of the study, each once, in the order of the cohorts; equal candidates share a run, and the first one names it."""
        found: dict[str, RunFiles] = {}
        for cohort in self.cohorts:
            pool = (
                self.study.search_seeds
                if cohort.phase == "search"
                else self.study.arms[cohort.candidate.arm].seeds
            )
            for place, run_id in enumerate(cohort.runs):
                if run_id not in found:
                    found[run_id] = RunFiles(self, run_id, cohort, place, pool[place])
        return found

    @cached_property
    def files(self) -> dict[str, list[str]]:
        """The names of every run's files, from one listing."""
        found: dict[str, list[str]] = {}
        for name in self.ledger.runs.names():
            found.setdefault(name.split("/")[0], []).append(name)
        return found

    def compare(self) -> list[Compared]:
        """The comparisons as they stand; that they were seen is recorded, because seeds that are added later are then tested alone."""
        rows = comparisons(self.plan, looks=self.looks, correct=self.correct)
        if arms := seen(rows):
            self.ledger.look(self.study.confirm.seeds, arms)
            self.looks = self.ledger.looks()
        return rows

    def correct(self, run_id: str, ratio: float) -> np.ndarray | None:
        """Correctness per test image at a keep ratio; None where it was not kept."""
        if run_id not in self._correct:
            table = self.runs[run_id].endpoints()
            rows = [row for row in table.to_pylist() if row["split"] == "test"] if table else []
            self._correct[run_id] = {row["keep_ratio"]: (row["correct"], row["images"]) for row in rows}
        bits, images = self._correct[run_id].get(ratio, (b"", 0))
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=images).astype(bool) if images else None


@dataclass(frozen=True)
class RunFiles:
    """One run: where it stands in the study, and its files, read when they are asked for."""

    reading: Reading
    run_id: str
    cohort: Cohort
    place: int
    seed: int

    @cached_property
    def spec(self) -> RunSpec:
        return self.reading.study.run(self.cohort.candidate, self.cohort.phase, self.seed)

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.reading.ledger.runs, self.spec, self.reading.ledger.say)

    @property
    def result(self) -> Result | None:
        """What it gave; None while it has not finished."""
        return self.reading.plan.results.get(self.run_id)

    @property
    def state(self) -> str:
        """completed, collapsed, diverged, failed, or unfinished."""
        if result := self.result:
            return result.outcome
        return "failed" if self.run_id in self.reading.plan.queue.failed else "unfinished"

    def endpoints(self) -> pa.Table | None:
        """The final weights' figures; None where the run has not come to them."""
        if not self.result or self.result.outcome == "diverged":
            return None
        outcome = self.folder.outcome()
        return read_table(EndpointRow, self.folder.table(outcome, "endpoints")) if outcome else None

    def epochs(self, columns: list[str] | None = None) -> pa.Table | None:
        """Every epoch that is kept so far; None where none is."""
        if self.result and (outcome := self.folder.outcome()):
            return read_table(EpochRow, self.folder.table(outcome, "epochs"), columns)
        for names in (
            self.names,
            self.reading.ledger.runs.names(self.run_id),
        ):  # later commits may have replaced what was listed
            for _, _, name in sorted(_kept(names), reverse=True):
                with suppress(FileNotFoundError):
                    data = self.reading.ledger.runs.read(name)
                    if digest(data)[:16] in name:
                        return read_table(EpochRow, data, columns)
        return None

    @property
    def committed(self) -> int:
        """Epochs that are kept."""
        return (
            self.result.epochs
            if self.result
            else max((epoch for epoch, _, _ in _kept(self.names)), default=0)
        )

    @property
    def begun(self) -> bool:
        """Whether there was an attempt at it."""
        return bool(self.names) or self.state != "unfinished"

    @property
    def names(self) -> list[str]:
        return self.reading.files.get(self.run_id, [])

    @property
    def tries(self) -> int:
        """Attempts at it."""
        return sum(name.endswith("/attempt.json") for name in self.names)

    @cached_property
    def attempts(self) -> list[dict[str, Any]]:
        """What each attempt ran on, the first one first; without those whose record is damaged."""
        numbers = sorted(
            int(m[1]) for name in self.names if (m := re.search(r"attempt-(\d+)/attempt\.json$", name))
        )
        found: list[dict[str, Any]] = []
        for number in numbers:
            try:
                found.append(
                    {
                        "number": number,
                        **unseal(
                            self.reading.ledger.runs.read(f"{self.run_id}/attempt-{number}/attempt.json")
                        ),
                    }
                )
            except (ValueError, FileNotFoundError):
                self.reading.ledger.say(f"run {self.run_id}: what attempt {number} ran on cannot be read.")
        return found

    @cached_property
    def ended_at(self) -> str | None:
        """When the outcome was written."""
        try:
            return unseal(self.reading.ledger.runs.read(f"{self.run_id}/outcome.json"))["written_at"]
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedRun(
                f"{self.reading.ledger.runs.where(f'{self.run_id}/outcome.json')} is damaged ({error})."
            ) from error


def _kept(names: Iterable[str]) -> list[tuple[int, int, str]]:
    """Epoch, attempt and name of every table of epochs."""
    found = [(name, re.search(r"/attempt-(\d+)/epochs-(\d+)-\w+\.parquet$", name)) for name in names]
    return [(int(match[2]), int(match[1]), name) for name, match in found if match]


def ahead(items: Iterable[T], work: Callable[[T], U]) -> Iterator[tuple[T, U]]:
    """Each item with what `work` gives for it, in order; a few are worked on side by side, and never more are held."""
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[tuple[T, Future[U]]] = deque()
        for item in items:
            waiting.append((item, readers.submit(work, item)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
