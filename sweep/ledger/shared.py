"""Runs that other studies of the store have finished: they are taken over, and not trained again.

The same work has the same run id in every study. A run is taken over by copying its files, so that the
ledger stays whole by itself, and every view reads it as its own. `taken/<study>/<run_id>.json` says where
it came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sweep.format import counted, now
from sweep.ledger.growth import declared_since, identity_hash
from sweep.ledger.ledger import READERS, Ledger, taken_file
from sweep.ledger.proposing import propose_all
from sweep.ledger.results import result_of
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Result, Run
from sweep.study import Study
from trainer.run_folder import DamagedRun, Outcome, RunFolder
from trainer.sealed import AttemptRecord, checked
from trainer.store import LARGEST_SEALED, Refused, Store, open_store, seal, unseal

COPIERS = 8
"""The number of runs that are copied at once. Each is in memory meanwhile: 50 MB where weights are kept."""


@dataclass(frozen=True)
class Found:
    """A run that waits here, and that another study has finished."""

    run: Run
    study: str
    """The other study."""
    folder: RunFolder
    """The run's folder there."""
    content: bytes
    """What its outcome.json holds."""
    outcome: Outcome
    result: Result

    @property
    def ended_at(self) -> datetime:
        """When its outcome was written."""
        return datetime.fromisoformat(unseal(self.content)["written_at"])


@dataclass(frozen=True)
class Seen:
    """Results of a confirmation that could be seen in another study before this one was declared."""

    study: str
    runs: int
    arms: list[str]

    def __str__(self) -> str:
        runs = f"{counted(self.runs, 'confirmation run')} of {', '.join(self.arms)}"
        return f"{runs} had finished in {self.study} before this study was declared"


class Shared:
    """The finished runs of a store's other studies, as one command on a study sees them.

    Their folders of runs are listed once, when this is made. A run is looked for once, when it is ready.
    """

    def __init__(self, ledger: Ledger, study: Study) -> None:
        """The ledger has to be loaded."""
        self.ledger, self.study = ledger, study
        self._stores: dict[str, Store] = {}
        """The folder of all runs of each other study."""
        self._studies: dict[str, list[str]] = {}
        """The other studies that have a run's folder, by run id."""
        self._sought = set[str]()
        self._decided = 0
        """The number of the plan's runs that were decided at the last search."""
        for name in ledger.others:
            self._stores[name] = open_store(ledger.home.where(f"{name}/runs"), within=ledger.home.where())
            try:
                run_ids = self._stores[name].folders()
            except Refused as error:
                ledger.say(f"{error} Nothing is taken over from {name}.")
                continue
            for run_id in run_ids:
                self._studies.setdefault(run_id, []).append(name)

    def advance(self, plan: Plan) -> None:
        """Propose what is due, and take over what is there, until nothing more comes of it.

        What is taken over has its result in the plan and in the ledger. What is ready then has to be
        trained.
        """
        taken = Counter[str]()
        while True:
            propose_all(plan, self.ledger)
            if not (runs := self.take(plan)):
                break
            taken.update(runs.values())
        for name, count in taken.items():
            self.ledger.say(f"{counted(count, 'run')} taken over from {name}, which has trained them.")
        if taken:
            self.ledger.write_index()

    def look_ahead(self, plan: Plan) -> tuple[dict[str, int], list[Seen]]:
        """Go through a plan as `advance` would, changing nothing but the plan.

        Returns how many runs are there in each study, and which of them could be seen too early.
        """
        found = list[Found]()
        while self._studies:
            while due := plan.wanted():
                plan.propose(due.arm, due.generation, propose(self.study, due))
            if not (more := self._find(plan)):
                break
            found += more
            for one in more:
                plan.finish(one.run.run_id, one.result)
        return dict(Counter(one.study for one in found)), list(self._seen(found))

    def take(self, plan: Plan) -> dict[str, str]:
        """Take over every run that became ready since the last call and is there in another study.

        Returns the study of each run that was taken over, by run id. Results of a confirmation that could be
        seen before this study was declared are recorded as a look.
        """
        if not self._decided:
            self._forget_interrupted()
        if not (found := self._find(plan)):
            return {}
        for seen in self._seen(found):
            # before the first copy, so that a kill between the two cannot hide it
            self.ledger.look(self.study.contents.blocks, seen.arms, [f"{seen}."], seen.study)
            self.ledger.say(f"{seen}: this counts as a look, and growth after it has a stricter test.")
        with ThreadPoolExecutor(COPIERS) as copiers:
            copied = [one for one, done in zip(found, copiers.map(self._copy, found), strict=True) if done]
        for one in copied:
            self.ledger.add(one.run.run_id, one.result)
            plan.finish(one.run.run_id, one.result)
        return {one.run.run_id: one.study for one in copied}

    def _forget_interrupted(self) -> None:
        """Remove the records of runs whose copy was interrupted: they may be trained here after all."""
        for run_id, name in self.ledger.taken().items():
            if run_id not in self.ledger.results and run_id not in self.ledger.damaged:
                self.ledger.store.delete(taken_file(name, run_id))

    def _find(self, plan: Plan) -> list[Found]:
        """The runs that became ready since the last call and are finished in another study."""
        # summed, because the driver asks many times a second, and thousands of runs may be ready
        if (decided := plan.total.total()) == self._decided:
            return []
        self._decided = decided
        ready = {run.run_id: run for run in plan.queue.ready}
        sought = [run for key, run in ready.items() if key in self._studies and key not in self._sought]
        self._sought.update(run.run_id for run in sought)
        with ThreadPoolExecutor(READERS) as readers:
            return [found for found in readers.map(self._find_one, sought) if found]

    def _find_one(self, run: Run) -> Found | None:
        """A run in the first other study that has finished it and whose files are whole."""
        for name in self._studies[run.run_id]:
            folder = RunFolder(self._stores[name], run.spec, self.ledger.say)
            try:
                content = folder.store.read(f"{run.run_id}/outcome.json", LARGEST_SEALED)
                outcome = folder.outcome_in(content)
                return Found(run, name, folder, content, outcome, result_of(folder, outcome))
            except FileNotFoundError:
                continue  # it has not finished there
            except (DamagedRun, Refused) as error:
                self._refuse(run, name, error)
        return None

    def _refuse(self, run: Run, name: str, error: Exception) -> None:
        """Say that a run is trained here, because its files in another study are damaged."""
        why = str(error).split(" Nothing was deleted")[0].split(" Move ")[0]
        self.ledger.say(f"run {run.run_id} is not taken over from {name}, and trained here: {why}")

    def _seen(self, found: Sequence[Found]) -> Iterator[Seen]:
        """What could be seen before this study was declared, study by study."""
        confirmed = [
            one for one in found if one.run.phase == "confirm" and one.ended_at <= self._unseen_since
        ]
        for name in dict.fromkeys(one.study for one in confirmed):
            own = [one for one in confirmed if one.study == name]
            arms = sorted({self.study.arms[one.run.arm].method for one in own})
            yield Seen(name, len(own), arms)

    @cached_property
    def _unseen_since(self) -> datetime:
        """When this study was first declared in the store, under any name.

        Before that, whoever wrote it could see results of a confirmation.
        """
        same = identity_hash(self.study)
        declared = [self.ledger.declared(), *self.ledger.others.values()]
        times = [declared_since(body) for body in declared if body and body["hash"] == same]
        return min((at for at in times if at), default=datetime.now().astimezone())

    def _copy(self, found: Found) -> bool:
        """Copy a run's files, the outcome last. Returns whether this study has that outcome now.

        It has not where a file is damaged, or where the run was begun here: then it goes on here.
        """
        run_id, store, theirs = found.run.run_id, self.ledger.runs, found.folder.store
        try:
            names = [f"{run_id}/attempt-{number}/attempt.json" for number in found.folder.attempts()]
            attempts = {name: theirs.read(name) for name in names}
            for name, data in attempts.items():
                _check_sealed(theirs.where(name), data)
            tables = {kind: found.folder.table(found.outcome, kind) for kind in found.outcome.files}
        except (DamagedRun, Refused, FileNotFoundError) as error:
            self._refuse(found.run, found.study, error)
            return False
        for name, data in attempts.items():
            if not store.create(name, data) and store.read(name) != data:
                return False
        store.write(f"{run_id}/spec.json", found.run.spec.to_json().encode())
        for kind, data in tables.items():
            store.write(f"{run_id}/{found.outcome.files[kind].name}", data)
            if kind != "checkpoint":
                store.write(f"{run_id}/{kind}.parquet", data)
        record = taken_file(found.study, run_id)
        self.ledger.store.write(record, seal({"study": found.study, "run_id": run_id, "at": now()}))
        name = f"{run_id}/outcome.json"
        if store.create(name, found.content) or store.read(name) == found.content:
            return True
        self.ledger.store.delete(record)
        return False


def _check_sealed(where: str, data: bytes) -> None:
    """Raise DamagedRun where an attempt.json was altered."""
    try:
        checked(unseal(data), AttemptRecord)
    except ValueError as error:
        raise DamagedRun(f"{where} is damaged ({error}).") from error
