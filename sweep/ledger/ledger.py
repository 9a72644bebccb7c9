"""The study's folder: the declared study, the proposed candidates, the index of results, failures and looks.

    study.json  generations/<arm>-<g>.json  lease/lease-<n>.json  index.json  looks/<pairs>-<hash>.json
    runs/<run_id>/...                       failures/<run_id>.json            taken/<study>/<run_id>.json
    gpu-hours.json

Everything but the index is the truth. The index repeats what the run folders hold. Only `sweep status`
believes it; every other command reads the run folders. The folder of one run is in `trainer.run_folder`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from sweep.errors import ChangedStudy, DamagedLedger, NothingBegun
from sweep.format import counted, now
from sweep.ledger.growth import changes, check_hash, declaration, growth, identity_hash, notes
from sweep.ledger.results import from_plain, result_of
from sweep.ledger.shapes import Declared, content
from sweep.planning.plan import Plan
from sweep.planning.proposer import versions
from sweep.planning.values import Failure, Look, Proposal, Result
from sweep.study import Study, Values, from_declared
from trainer.claims import Claim, claim_on
from trainer.run_folder import DamagedRun, RunFolder
from trainer.sealed import checked
from trainer.settings import SpecError
from trainer.spec import RunSpec
from trainer.store import LARGEST_SEALED, Refused, digest, open_store, seal, unseal

READERS = 16
"""How many run folders are read at the same time; on an object store each read is a round trip."""
GENERATION = re.compile(r"generations/(.+)-(0|[1-9][0-9]*)\.json")
TAKEN = re.compile(r"taken/(.+)/(\w+)\.json")


def taken_file(study: str, run_id: str) -> str:
    """The name of the record that a run was taken over from another study; TAKEN matches it."""
    return f"taken/{study}/{run_id}.json"


def generation_file(due: Proposal) -> str:
    """The name of the file that keeps a generation; GENERATION matches it."""
    return f"generations/{due.arm}-{due.generation}.json"


@dataclass(frozen=True)
class State:
    """A study as its ledger had it at the moment of reading."""

    declared: dict[str, Any]
    """The content of study.json."""
    study: Study
    plan: Plan
    """What is done, what is given up, and what is left."""
    failures: dict[str, dict[str, Any]]
    """The runs that were tried and are not finished, with the last lines of their logs."""
    looks: list[Look]


def orphans(ledger: Ledger, plan: Plan) -> list[str]:
    """The runs that have a folder here and that no candidate of the plan has."""
    planned = {run_id for cohort in plan.cohorts() for run_id in cohort.runs}
    return sorted(ledger.run_ids - planned)


class Ledger:
    """A study's folder in a store.

    `store_url` is the path of a local folder or the URL of an object store. `say` gets each message for the
    person at the sweep.
    """

    def __init__(self, store_url: str, study: str, say: Callable[[str], None]) -> None:
        self.say = say
        self.study = study
        url = f"{store_url.rstrip('/')}/{study}"
        self.home = open_store(store_url)
        """The store, with the folders of all studies."""
        self.store = open_store(url, within=store_url)
        self.runs_url = f"{url}/runs"
        self.runs = open_store(self.runs_url, within=store_url)
        self.results: dict[str, Result] = {}
        """What each finished run gave, by run id."""
        self.damaged: dict[str, str] = {}
        """Finished runs whose files cannot be trusted, with the reason."""
        self.misquoted: list[str] = []
        """The runs of which the index said something else than their files, when the results were loaded."""
        self._stamps: dict[str, str] = {}
        """The stamp of each run's outcome.json, when its result was read."""
        self._unfinished: dict[str, dict[str, str]] = {}
        """The files of each run without an outcome, with their stamps, when the results were loaded."""
        self._failed: set[str] = set()
        """The names of all files of failures, when they were listed or written."""

    # the study

    def declared(self) -> dict[str, Any] | None:
        """The content of study.json: identity, hash and extensions. None where the ledger is not begun."""
        return self._content("study.json", check_hash)

    def begun(self) -> dict[str, Any]:
        """The content of study.json. Raises NothingBegun where the ledger is not begun."""
        declared = self.declared()
        if declared is None:
            raise NothingBegun(self.store.where())
        return declared

    def state(self, *, by_index: bool = False) -> State:
        """Read the whole study; a driver may be at work. Raises NothingBegun where there is none.

        `by_index` believes the index, as `load` does.
        """
        declared = self.begun()
        self.load(keep=False, by_index=by_index)
        proposals, failures, looks = self.proposals(), self.failures(), self.looks()
        study = from_declared(self.study, declared)
        plan = Plan(study, self.results, proposals)
        for run_id, reason in self.damaged.items():
            plan.queue.damage(run_id, reason)
        for run_id, body in failures.items():
            failure = Failure(body["reason"], body["node"], body["attempts"], what=body["what"])
            plan.queue.failed.setdefault(run_id, failure)
        return State(declared, study, plan, failures, looks)

    def check(self, study: Study, extend: bool) -> list[str]:
        """How the study grew since the ledger was begun, a line for each key.

        Raises ChangedStudy where growth is not accepted (`extend`), or where the study did not only grow.
        """
        before = self.declared()
        if before is None or before["identity"] == study.identity:
            return []
        lines = changes(before["identity"], study.identity)
        grows = all(growth(before["identity"], study.identity))
        if grows and extend:
            return lines
        begun = f"{study.name} is not the study that {self.store.where('study.json')} was begun with:"
        hint = (
            "Only growth can be accepted (more searches, seeds, budget, finalists or arms). "
            "Give the changed study another name: copy the file."
        )
        if grows:
            hint = (
                "It grew. --extend accepts that and records it. After its gains could be seen, a study that "
                "grew has a stricter test: `sweep plan` says what it finds then."
            )
        raise ChangedStudy("\n".join([begun, *(f"  {line}" for line in lines), hint]))

    def declare(self, study: Study, extend: bool) -> None:
        """Begin the ledger with this study, or record how the study grew. Its results have to be loaded.

        Raises ChangedStudy as `check` does.
        """
        grown, before = self.check(study, extend), self.declared()
        if before is None:
            if self._has_work():
                missing = f"{self.store.where('study.json')} is missing, and there are runs."
                raise DamagedLedger(f"{missing} `sweep doctor` can write it anew.")
            self.store.create("study.json", declaration(study, [], datetime.now(UTC).isoformat()))
        elif grown:
            plan = Plan(from_declared(study.name, before), self.results, self.proposals())
            confirmed = sum(n for (phase, _), n in plan.finished.items() if phase == "confirm")
            at = self._time_of_record()
            was = {key: before[key] for key in ("identity", "taken_seeds") if key in before}
            extension = {"at": at, "changes": grown, "confirmed_before": confirmed, "before": was}
            extensions = [*before["extensions"], extension]
            self.store.write("study.json", declaration(study, extensions, before.get("declared_at")))
            self.say("extended: " + "; ".join(grown))
        elif notes(from_declared(study.name, before)) != notes(study):
            declared_at = before.get("declared_at")
            self.store.write("study.json", declaration(study, before["extensions"], declared_at))

    # other studies

    @cached_property
    def others(self) -> dict[str, dict[str, Any]]:
        """What the other studies of the store declare, by their names. It is read once."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.home.folders():
            if name == self.study:
                continue
            try:
                data = self.home.read(f"{name}/study.json", LARGEST_SEALED)
                # an export may lie in the store too, and has a study.json of its own
                if b'"identity"' in data:
                    body = checked(unseal(data), Declared)
                    check_hash(body)
                    found[name] = body
            except FileNotFoundError:
                continue
            except Refused as error:
                self.say(f"{error} So {name}'s seeds and runs are not known here.")
            except ValueError as error:
                where = self.home.where(f"{name}/study.json")
                self.say(
                    f"{where} is damaged ({error}), so that {name}'s seeds and runs are not known here."
                )
        return found

    def taken(self) -> dict[str, str]:
        """The runs that other studies of the store have trained, with the study of each. Reads no file."""
        matches = [TAKEN.fullmatch(name) for name in self.store.names("taken")]
        return {match[2]: match[1] for match in matches if match}

    # proposals

    def proposals(self) -> dict[tuple[str, int], list[Values]]:
        """The candidates of every recorded generation, by arm and number."""
        found: dict[tuple[str, int], list[Values]] = {}
        for name in self.store.names("generations"):
            if match := GENERATION.fullmatch(name):
                body = self._content(name)
                assert body is not None
                if (body["arm"], body["generation"]) != (match[1], int(match[2])):
                    raise DamagedLedger(f"{self.store.where(name)} is damaged: it is another generation's.")
                found[match[1], int(match[2])] = body["candidates"]
        return found

    def record(self, study: Study, due: Proposal, values: list[Values]) -> list[Values]:
        """Write a generation with the scores that it was proposed from, and return its candidates.

        Where another driver wrote this generation first, the candidates are those of that driver.
        """
        name = generation_file(due)
        history = [{"values": v, "score": score, "seeds": seeds} for v, score, seeds in due.history]
        body = {
            "study": identity_hash(study),
            "arm": due.arm,
            "generation": due.generation,
            "candidates": values,
            "proposed_from": history,
            "proposed_with": versions(),
        }
        self.store.create(name, seal(body))
        standing = self._content(name)
        assert standing is not None
        return standing["candidates"]

    # results

    @property
    def run_ids(self) -> set[str]:
        """Every run that has a folder here, when the results were loaded."""
        return {*self.results, *self.damaged, *self._unfinished}

    def load(self, *, keep: bool = True, by_index: bool = False) -> None:
        """Read the result of every finished run from its own files, which are checked by their hashes.

        What this ledger has read before is not read again while the run's outcome is the same file. With
        `keep` an index that says something else is written anew. A reader beside the driver leaves that to
        the driver. `by_index` believes the index where its stamps fit: that is quick, and proves nothing.
        """
        indexed = self._index() if keep or by_index else {}
        files = self.runs.stamps()
        stamps = {
            name.split("/")[0]: stamp for name, stamp in files.items() if name.endswith("/outcome.json")
        }
        self._unfinished = {}
        for name, stamp in files.items():
            if (run_id := name.split("/")[0]) not in stamps:
                self._unfinished.setdefault(run_id, {})[name] = stamp
        known = {run_id: (stamp, self.results[run_id]) for run_id, stamp in self._stamps.items()}
        known = {**(indexed if by_index else {}), **known}
        self.results, self._stamps = {}, {}
        for run_id, (stamp, result) in known.items():
            if stamps.get(run_id) == stamp:
                self.results[run_id], self._stamps[run_id] = result, stamp
        self.damaged = {}
        unread = [run_id for run_id in stamps if run_id not in self.results]
        with ThreadPoolExecutor(READERS) as readers:
            for run_id, found in zip(unread, readers.map(self._result, unread), strict=True):
                if isinstance(found, Result):
                    self.results[run_id], self._stamps[run_id] = found, stamps[run_id]
                else:
                    self.damaged[run_id] = found
        self.misquoted = [
            run_id
            for run_id, (stamp, result) in indexed.items()
            if self._stamps.get(run_id) == stamp and self.results[run_id] != result
        ]
        if keep and indexed != {
            run_id: (self._stamps[run_id], self.results[run_id]) for run_id in self.results
        }:
            self.write_index()

    def claims(self) -> dict[str, Claim]:
        """The claims on runs that somebody trained when the results were loaded, by run id."""
        with ThreadPoolExecutor(READERS) as readers:
            found = readers.map(lambda files: claim_on(self.runs, *files), self._unfinished.items())
            return {claim.run_id: claim for claim in found if claim}

    def add(self, run_id: str, result: Result) -> None:
        """Take the result of a run that has just finished, and delete its failure if it has one."""
        self.results[run_id] = result
        if f"failures/{run_id}.json" in self._failed:
            self.store.delete(f"failures/{run_id}.json")

    def write_index(self) -> None:
        """Write all results to the index, so that the next command starts quickly."""
        for run_id in self.results.keys() - self._stamps.keys():
            stamp = self.runs.stamps(run_id).get(f"{run_id}/outcome.json")
            # a folder that was moved away since has no stamp
            if stamp:
                self._stamps[run_id] = stamp
        runs = {run_id: [stamp, asdict(self.results[run_id])] for run_id, stamp in self._stamps.items()}
        self.store.write("index.json", seal({"runs": runs}))

    def misquotation(self) -> str:
        """What to say of an index that said something else than the runs' files; empty where it did not."""
        if not self.misquoted:
            return ""
        runs = counted(len(self.misquoted), "run")
        return f"said other figures of {runs} than their files. The files count; it is made anew from them."

    def _index(self) -> dict[str, tuple[str, Result]]:
        """What the index holds: the stamp of each run's outcome.json, and its result."""
        try:
            runs = content(self.store, "index.json")["runs"]
            return {run_id: (stamp, from_plain(values)) for run_id, (stamp, values) in runs.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            where = self.store.where("index.json")
            self.say(f"damaged: {where}. It is only a summary; it is made anew from the runs.")
            return {}

    def _result(self, run_id: str) -> Result | str:
        """The result from a run's own files; the reason where they cannot be trusted."""
        where = self.runs.where(f"{run_id}/spec.json")
        try:
            spec = RunSpec.from_json(self.runs.read(f"{run_id}/spec.json").decode())
            if spec.run_id != run_id:
                return f"{where} is damaged: it is another run's. `sweep doctor` can write it anew."
            folder = RunFolder(self.runs, spec, self.say)
            outcome = folder.outcome()
            assert outcome is not None
            return result_of(folder, outcome)
        except (SpecError, FileNotFoundError, UnicodeDecodeError) as error:
            return f"{where} is damaged or missing: {error}. `sweep doctor` can write it anew."
        except (DamagedRun, Refused, ValueError) as error:
            return str(error)

    # failures

    def fail(self, run_id: str, failure: Failure, log: list[str]) -> None:
        """Record that a run could not be finished. The record is deleted when the run finishes."""
        self.store.write(f"failures/{run_id}.json", seal({**asdict(failure), "log": log[-20:], "at": now()}))
        self._failed.add(f"failures/{run_id}.json")

    def failures(self) -> dict[str, dict[str, Any]]:
        """The runs that were tried and are not finished: reason, node, attempts and the log's last lines."""
        found: dict[str, dict[str, Any]] = {}
        self._failed = set(self.store.names("failures"))
        for name in self._failed:
            run_id = name.removeprefix("failures/").removesuffix(".json")
            with suppress(FileNotFoundError, DamagedLedger):
                if run_id not in self.results and (body := self._content(name)):
                    found[run_id] = body
        return found

    # looks

    def look(self, pairs: int, arms: list[str], said: Sequence[str] = (), taken_from: str = "") -> None:
        """Record that comparisons of these arms over so many pairs were shown, and what they said.

        `taken_from` is the study whose results could be seen instead, before this study was declared. The
        first record stays, until the study grows.
        """
        grown = [extension["at"] for extension in (self.declared() or {"extensions": []})["extensions"]]
        since = datetime.fromisoformat(grown[-1]) if grown else None
        for look in self.looks():
            is_new = since is None or datetime.fromisoformat(look.at) > since
            if (look.pairs, look.arms, look.taken_from) == (pairs, arms, taken_from) and is_new:
                return
        more = {"said": list(said), "taken_from": taken_from}
        at = self._time_of_record()
        body = {"pairs": pairs, "arms": arms, "at": at, **{key: more[key] for key in more if more[key]}}
        name = digest(" ".join([*arms, *grown[-1:], *([taken_from] if taken_from else [])]).encode())[:8]
        self.store.create(f"looks/{pairs}-{name}.json", seal(body))

    def looks(self) -> list[Look]:
        """Every look that was recorded, in the order of time."""
        found = [Look(**body) for name in self.store.names("looks") if (body := self._content(name))]
        return sorted(found, key=lambda look: (datetime.fromisoformat(look.at), look.pairs))

    def _time_of_record(self) -> str:
        """The time for a record of a look or of growth: now, or a second after the latest of these records.

        Whether a study grew after a look is told by these times. A clock that was put back, or another
        machine's clock, must not turn them round.
        """
        extensions = (self.declared() or {"extensions": []})["extensions"]
        times = [*(look.at for look in self.looks()), *(extension["at"] for extension in extensions)]
        earliest = [datetime.fromisoformat(at) + timedelta(seconds=1) for at in times]
        return max([datetime.fromisoformat(now()), *earliest]).isoformat(timespec="seconds")

    def _has_work(self) -> bool:
        return any(name.startswith(("runs/", "generations/")) for name in self.store.names())

    def _content(
        self, name: str, check: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> dict[str, Any] | None:
        """The content of a sealed file; None where there is none. Raises DamagedLedger.

        `check` raises ValueError where the content cannot be.
        """
        try:
            body = content(self.store, name)
            check(body)
            return body
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedLedger(
                f"{self.store.where(name)} is damaged ({error}). Nothing was deleted. "
                "`sweep doctor` says whether it can be rebuilt; else restore it from a backup."
            ) from error
