"""A study's ledger as the views read it: its plan, its cohorts, and each run's files.

Nothing is written here but looks. A driver may work on the study at the same time.
"""

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

from sweep.gains.comparisons import comparisons, said, seen, stage
from sweep.gains.rows import Compared
from sweep.ledger.ledger import READERS, Ledger
from sweep.ledger.looks import grew_after_look
from sweep.planning.pairing import sides
from sweep.planning.values import Cohort, Growth, Result
from sweep.study import ResolvedArm
from trainer.rows import EndpointRow, EpochRow, read_table
from trainer.run_folder import DamagedRun, RunFolder
from trainer.sealed import AttemptRecord, OutcomeRecord, read_sealed
from trainer.spec import RunSpec
from trainer.store import StoreError, digest

AHEAD = 32
"""How many items `ahead` works on before they are needed."""
STATES = ("completed", "collapsed", "diverged", "failed", "unfinished")
"""What a run can be."""
T = TypeVar("T")
U = TypeVar("U")


class Reading:
    """A study as its ledger has it at the moment of reading."""

    def __init__(self, ledger: Ledger) -> None:
        """Read the ledger. NothingBegun is raised where it holds no study."""
        self.ledger, self.name = ledger, ledger.study
        state = ledger.state()
        self.declared, self.study, self.plan = state.declared, state.study, state.plan
        self.failures, self.looks = state.failures, state.looks
        self.taken = ledger.taken()
        """The runs that other studies of the store have trained, with the study of each."""
        self.grew_after_look: Growth = grew_after_look(ledger, self.study)
        self.cohorts: list[Cohort] = list(self.plan.cohorts())
        self._correct: dict[str, dict[float, tuple[bytes, int]]] = {}

    @cached_property
    def runs(self) -> dict[str, RunFiles]:
        """Every run of the study by its id, in the order of the cohorts.

        Equal candidates share a run. It belongs to the first of them.
        """
        runs: dict[str, RunFiles] = {}
        for cohort in self.cohorts:
            arm = self.study.arms[cohort.candidate.arm]
            pool = arm.search_seeds if cohort.phase == "search" else arm.seeds
            for place, run_id in enumerate(cohort.runs):
                if run_id not in runs:
                    runs[run_id] = RunFiles(self, run_id, cohort, place, pool[place])
        return runs

    @cached_property
    def files(self) -> dict[str, list[str]]:
        """The names of each run's files, by the run's id. The store is listed once."""
        files: dict[str, list[str]] = {}
        for name in self.ledger.runs.names():
            files.setdefault(name.split("/")[0], []).append(name)
        return files

    @cached_property
    def finalists(self) -> list[Finalist]:
        """Every arm's finalists, one for each rank: with all searches, and for each endpoint its own."""
        by_name = {cohort.candidate.name: cohort for cohort in self.cohorts if cohort.phase == "confirm"}
        ratios = self.study.analysis.endpoints
        found: list[Finalist] = []
        for method, arms in self.study.methods.items():
            columns = [sides(self.plan, method, ratio) for ratio in ratios]
            for rank, row in enumerate(zip(*columns, strict=True)):
                names = [[finalist[0].name for finalist in side.finalists if finalist] for side in row]
                by_ratio = {
                    ratio: [by_name[name] for name in own] for ratio, own in zip(ratios, names, strict=True)
                }
                if any(by_ratio.values()):
                    found.append(Finalist(arms[0], rank, by_ratio))
        return found

    def compare(self) -> list[Compared]:
        """The comparisons so far. That they were seen is recorded in the ledger.

        A study that grows after that is tested by other rules.
        """
        at = stage(self.plan, self.grew_after_look)
        rows = comparisons(self.plan, right_images=self.right_images, at=at)
        if arms := seen(rows):
            try:
                self.ledger.look(at.blocks, arms, said(rows))
            except StoreError as error:
                # whoever may only read the store can see the gains in its files all the same
                self.ledger.say(f"{error} So it is not recorded that these gains were seen.")
            self.looks = self.ledger.looks()
        return rows

    def right_images(self, run_id: str, ratio: float) -> np.ndarray | None:
        """Whether a run got each test image right at a keep ratio; None where that was not kept."""
        if run_id not in self._correct:
            table = self.runs[run_id].endpoints()
            rows = [row for row in table.to_pylist() if row["split"] == "test"] if table else []
            self._correct[run_id] = {row["keep_ratio"]: (row["correct"], row["images"]) for row in rows}
        bits, images = self._correct[run_id].get(ratio, (b"", 0))
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=images).astype(bool) if images else None


@dataclass(frozen=True)
class Finalist:
    """An arm's finalist of one rank: a candidate of each search, for each endpoint."""

    arm: ResolvedArm
    rank: int
    """Its place among the arm's finalists, counted from 0."""
    by_ratio: dict[float, list[Cohort]]
    """The confirmation of the candidates by endpoint: one cohort for each search that is done."""

    @property
    def cohorts(self) -> list[Cohort]:
        """The cohorts of all endpoints, each once, those of the first endpoint before the others."""
        each = [cohort for cohorts in self.by_ratio.values() for cohort in cohorts]
        return list({cohort.candidate.name: cohort for cohort in each}.values())

    @property
    def primary(self) -> list[Cohort]:
        """The cohorts of the first endpoint."""
        return next(iter(self.by_ratio.values()))


@dataclass(frozen=True)
class RunFiles:
    """One run: its place in the study, and its files, which are read when needed."""

    reading: Reading
    run_id: str
    cohort: Cohort
    place: int
    """The place of its seed in the pool, from 0."""
    seed: int

    @cached_property
    def spec(self) -> RunSpec:
        return self.reading.study.run(self.cohort.candidate, self.cohort.phase, self.seed)

    @cached_property
    def folder(self) -> RunFolder:
        return RunFolder(self.reading.ledger.runs, self.spec, self.reading.ledger.say)

    @property
    def result(self) -> Result | None:
        """The run's result; None while it has not finished."""
        return self.reading.plan.results.get(self.run_id)

    @property
    def state(self) -> str:
        """The word for how the run stands: completed, collapsed, diverged, failed or unfinished."""
        if result := self.result:
            return result.outcome
        return "failed" if self.run_id in self.reading.plan.queue.failed else "unfinished"

    def endpoints(self) -> pa.Table | None:
        """The figures of the final weights; None where the run has not finished, or diverged."""
        if not self.result or self.result.outcome == "diverged":
            return None
        outcome = self.folder.outcome()
        return read_table(EndpointRow, self.folder.table(outcome, "endpoints")) if outcome else None

    def epochs(self, columns: list[str] | None = None) -> pa.Table | None:
        """The epochs that are kept so far; None where there are none.

        For a run under way this is the latest table of epochs that is not damaged.
        """
        if self.result and (outcome := self.folder.outcome()):
            return read_table(EpochRow, self.folder.table(outcome, "epochs"), columns)
        store = self.reading.ledger.runs
        # later commits may have replaced every listed file; the run is then listed again
        for names in (lambda: self.names, lambda: store.names(self.run_id)):
            for _, _, name in sorted(_epoch_tables(names()), reverse=True):
                with suppress(FileNotFoundError):
                    data = store.read(name)
                    if digest(data)[:16] in name:
                        return read_table(EpochRow, data, columns)
        return None

    @property
    def committed(self) -> int:
        """The number of epochs that are kept."""
        if self.result:
            return self.result.epochs
        return max((epoch for epoch, _, _ in _epoch_tables(self.names)), default=0)

    @property
    def begun(self) -> bool:
        """Whether there was an attempt at the run."""
        return bool(self.names) or self.state != "unfinished"

    @property
    def names(self) -> list[str]:
        """The names of its files."""
        return self.reading.files.get(self.run_id, [])

    @property
    def tries(self) -> int:
        """The number of attempts."""
        return sum(name.endswith("/attempt.json") for name in self.names)

    @cached_property
    def attempts(self) -> list[dict[str, Any]]:
        """What each attempt ran on, in order. Attempts whose record is damaged are left out."""
        numbers = sorted(
            int(m[1]) for name in self.names if (m := re.search(r"attempt-(\d+)/attempt\.json$", name))
        )
        ledger, attempts = self.reading.ledger, list[dict[str, Any]]()
        for number in numbers:
            try:
                record = read_sealed(
                    ledger.runs, f"{self.run_id}/attempt-{number}/attempt.json", AttemptRecord
                )
                attempts.append({"number": number, **record})
            except (ValueError, FileNotFoundError):
                ledger.say(f"run {self.run_id}: what attempt {number} ran on cannot be read.")
        return attempts

    @cached_property
    def ended_at(self) -> str | None:
        """When the outcome was written; None where there is no outcome."""
        store, name = self.reading.ledger.runs, f"{self.run_id}/outcome.json"
        try:
            return read_sealed(store, name, OutcomeRecord)["written_at"]
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedRun(f"{store.where(name)} is damaged ({error}).") from error


def _epoch_tables(names: Iterable[str]) -> list[tuple[int, int, str]]:
    """Epoch, attempt and name of every table of epochs among some files."""
    matches = [(name, re.search(r"/attempt-(\d+)/epochs-(\d+)-\w+\.parquet$", name)) for name in names]
    return [(int(match[2]), int(match[1]), name) for name, match in matches if match]


def ahead(items: Iterable[T], work: Callable[[T], U]) -> Iterator[tuple[T, U]]:
    """Each item with what `work` returns for it, in order.

    A few items are worked on at the same time, so that no more results than these are in memory.
    """
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
