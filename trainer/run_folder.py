"""The files of a run: their names, how damage is noticed, and which checkpoint a run continues from.

    <run_id>/spec.json  outcome.json  epochs.parquet  endpoints.parquet
             attempt-<a>/attempt.json  log.txt  checkpoint-<epoch>-<hash>.pt  epochs-<epoch>-<hash>.parquet
                         endpoints-<epoch>-<hash>.parquet  claim.json

Each attempt writes only in its own folder, and reads from the folders of all attempts. `outcome.json` is
written last and only once. It names the run's final files with their hashes. The two tables beside it are
copies of these files, for people.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from trainer.checkpoints import values_of
from trainer.claims import Claimed, claim_on, latest_attempt, this_process
from trainer.sealed import AttemptRecord, OutcomeRecord, checked, read_sealed
from trainer.spec import RunSpec
from trainer.store import LARGEST, LARGEST_SEALED, Store, StoreError, digest, seal, unseal

KEPT = 2
"""Number of checkpoints kept while a run trains: the last, and the one before it in case of damage."""


class DamagedRun(RuntimeError):
    """Damage to files that cannot be rebuilt. The message names them; nothing was deleted."""


class Superseded(RuntimeError):
    """The error of an attempt whose run another attempt has taken over or finished."""


@dataclass(frozen=True)
class File:
    """A file that an outcome names."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Completed:
    """The run trained to its last epoch. `collapsed` says that its final loss is no better than a guess."""

    epochs: int
    collapsed: bool
    attempt: int
    files: dict[str, File]


@dataclass(frozen=True)
class Diverged:
    """The training loss is not a number after epoch `epochs`. This is a result and ends the run."""

    epochs: int
    attempt: int
    files: dict[str, File]


Outcome = Completed | Diverged
_OUTCOMES = {cls.__name__.lower(): cls for cls in (Completed, Diverged)}


@dataclass(frozen=True)
class Commit:
    """A checkpoint file: its name, attempt and epoch."""

    name: str
    attempt: int
    epoch: int


class RunFolder:
    """The folder of one run in a store. Messages for the user go to `say`."""

    def __init__(self, store: Store, spec: RunSpec, say: Callable[[str], None]) -> None:
        self.store, self.spec, self.say = store, spec, say
        self.root = spec.run_id
        self.damaged: set[str] = set()

    def next_attempt(self, lease: int = 0, silent: str = "") -> int:
        """The number of a new attempt. Raises Claimed where somebody trains the run now.

        A driver takes over what was begun under its `lease` or an earlier one: it knows that this was lost.
        `silent` is the stamp of a claim that was watched and gave no sign of life.
        """
        stamps = self.store.stamps(self.root)
        claim = claim_on(self.store, self.root, stamps)
        if claim and claim.stamp != silent and not 0 < claim.holder["lease"] <= lease:
            raise Claimed(claim)
        return latest_attempt(self.root, stamps) + 1

    def claim(self, environment: dict[str, Any], lease: int = 0, silent: str = "") -> int | None:
        """Start a new attempt and return its number. Earlier attempts stop at their next commit.

        None, and nothing started, where the run is finished. Raises Claimed as `next_attempt` does.
        """
        self._keep_spec()
        record = {
            **environment,
            "holder": {**this_process(), "lease": lease},
            "started_at": datetime.now(UTC).isoformat(),
            "token": secrets.token_hex(8),
        }
        while True:
            number = self.next_attempt(lease, silent)
            # now: whoever had the run until a moment ago wrote its outcome before it let go
            if self.outcome():
                return None
            if self.store.create(f"{self.root}/attempt-{number}/attempt.json", seal(record)):
                self._compare(number - 1, environment)
                return number

    def attempts(self) -> list[int]:
        """Numbers of all attempts so far, in ascending order."""
        return sorted(
            {int(match[1]) for name in self._names() if (match := re.match(r"attempt-([1-9][0-9]*)/", name))}
        )

    def commits(self) -> list[Commit]:
        """All checkpoints, best first: the latest epoch, then the latest attempt."""
        found = [
            (name, re.fullmatch(r"attempt-([1-9][0-9]*)/checkpoint-([0-9]+)-[0-9a-f]{16}\.pt", name))
            for name in self._names()
        ]
        commits = [Commit(name, int(match[1]), int(match[2])) for name, match in found if match]
        return sorted(commits, key=lambda commit: (commit.epoch, commit.attempt), reverse=True)

    def latest(self, use: Callable[[dict[str, Any]], object]) -> Commit | None:
        """The best undamaged checkpoint, or None if the run has no checkpoint.

        `use` is given its state, and raises an error where that is not a state it can take.
        """
        while commits := self.commits():
            try:
                for commit in commits:
                    if self._is_usable(commit, use):
                        return commit
            except FileNotFoundError:
                continue  # another attempt has just made a better commit and deleted this one
            names = "\n  ".join(self.store.where(f"{self.root}/{commit.name}") for commit in commits)
            raise DamagedRun(
                f"run {self.spec.run_id}: every checkpoint is damaged:\n  {names}\n"
                "Nothing was deleted. Restore one from a backup, "
                "or move the run's folder away to start it anew."
            )
        return None

    def commit(self, attempt: int, state: dict[str, Any], tables: dict[str, bytes]) -> dict[str, File]:
        """Write a state and then the tables made from it. Delete checkpoints older than the last two.

        Returns the written files by kind.
        """
        import torch

        if (newest := max(self.attempts())) > attempt:
            raise Superseded(
                f"attempt {newest} has taken run {self.spec.run_id} over; attempt {attempt} stops."
            )
        if self.outcome():
            raise Superseded(
                f"run {self.spec.run_id} was finished by another attempt; attempt {attempt} stops."
            )
        epoch = len(state["rows"])
        buffer = io.BytesIO()
        torch.save(state, buffer)
        kept = {"checkpoint": self._keep(f"attempt-{attempt}/checkpoint-{epoch}", buffer.getvalue(), "pt")}
        for table, data in tables.items():
            kept[table] = self._keep(f"attempt-{attempt}/{table}-{epoch}", data, "parquet")
        intact = [
            commit
            for commit in self.commits()
            if commit.attempt <= attempt and commit.name not in self.damaged
        ]
        old = {(commit.attempt, commit.epoch) for commit in intact[KEPT:]}
        for name in self._names():
            if (match := re.match(r"attempt-(\d+)/\w+-(\d+)-", name)) and (
                int(match[1]),
                int(match[2]),
            ) in old:
                self._delete(name)
        return kept

    def finish(self, outcome: Outcome) -> Outcome:
        """Write the outcome unless the run has one. Delete the files it does not name, and return it."""
        kind = type(outcome).__name__.lower()
        body = {
            "outcome": kind,
            "run_id": self.spec.run_id,
            "written_at": datetime.now(UTC).isoformat(),
            **asdict(outcome),
        }
        self.store.create(f"{self.root}/outcome.json", seal(body))
        standing = self.outcome()
        assert standing is not None
        self._publish(standing, lambda _: None)
        return standing

    def outcome(self) -> Outcome | None:
        """How the run ended, or None if it has not. DamagedRun says that the file was altered."""
        try:
            return self.outcome_in(self.store.read(f"{self.root}/outcome.json", LARGEST_SEALED))
        except FileNotFoundError:
            return None

    def outcome_in(self, data: bytes) -> Outcome:
        """The outcome that the content of an outcome.json holds. DamagedRun says that it was altered."""
        try:
            body = checked(unseal(data), OutcomeRecord)
            if body["run_id"] != self.spec.run_id:
                raise ValueError("it is another run's")
            files = {
                kind: File(file["name"], file["bytes"], file["sha256"])
                for kind, file in body["files"].items()
            }
            cls = _OUTCOMES[body["outcome"]]
            return cls(**{key: body[key] for key in cls.__dataclass_fields__ if key != "files"}, files=files)
        except ValueError as error:
            where = self.store.where(f"{self.root}/outcome.json")
            raise DamagedRun(
                f"{where} is damaged ({error}). Nothing was deleted. "
                "Restore it from a backup, or move it away: "
                "the run is then finished anew from its last checkpoint, "
                "or from its first epoch where none is left."
            ) from error

    def tidy(self, outcome: Outcome) -> None:
        """Repair the files that the outcome names and their copies, and delete all other results."""
        self._publish(outcome, self.say)

    def _publish(self, outcome: Outcome, say: Callable[[str], None]) -> None:
        for kind, file in outcome.files.items():
            data = self.table(outcome, kind)
            for name in (file.name, f"{kind}.parquet") if kind != "checkpoint" else ():
                if self._intact(name, file) is None:
                    self.store.write(f"{self.root}/{name}", data)
                    path = self.store.where(f"{self.root}/{name}")
                    say(f"missing or altered: {path}. It was written anew from its copy.")
        named = {file.name for file in outcome.files.values()}
        unneeded = re.compile(r"attempt-\d+/(checkpoint-|epochs-|endpoints-|claim\.json)")
        for name in self._names():
            if unneeded.match(name) and name not in named:
                self._delete(name)
        self.store.delete_partial(self.root)

    def table(self, outcome: Outcome, kind: str) -> bytes:
        """The content of a file that the outcome names, or of its copy. DamagedRun: both are damaged."""
        file = outcome.files[kind]
        for name in (file.name, f"{kind}.parquet"):
            if (data := self._intact(name, file)) is not None:
                return data
        where = self.store.where(f"{self.root}/{file.name}")
        raise DamagedRun(
            f"{where} is damaged or missing, and so is its copy. "
            f"Move {self.store.where(self.root)} away to train the run anew."
        )

    def write_log(self, attempt: int, lines: list[str]) -> None:
        """Write the last lines of an attempt's log."""
        self.store.write(f"{self.root}/attempt-{attempt}/log.txt", ("\n".join(lines) + "\n").encode())

    def _intact(self, name: str, file: File) -> bytes | None:
        try:
            data = self.store.read(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return data if len(data) == file.bytes and digest(data) == file.sha256 else None

    def _is_usable(self, commit: Commit, use: Callable[[dict[str, Any]], object]) -> bool:
        """Whether `use` took the state in a checkpoint. A damaged one is reported to `say`."""
        import torch

        data = self.store.read(f"{self.root}/{commit.name}")
        try:
            if digest(data)[:16] not in commit.name:
                raise ValueError(f"its {len(data):,} bytes do not match the hash in its name")
            state = values_of(data)
            if (
                not isinstance(state, dict)
                or cast("dict[str, Any]", state).get("run_id") != self.spec.run_id
            ):
                raise ValueError("it is not a checkpoint of this run")
            use(cast("dict[str, Any]", state))
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # the machine failed, and not the file
        except Exception as error:  # a state that was made up can fail anywhere
            self.damaged.add(commit.name)
            why = (str(error) or type(error).__name__).splitlines()[0]
            self.say(f"damaged: {self.store.where(f'{self.root}/{commit.name}')}: {why}.")
            return False
        return True

    def _compare(self, attempt: int, environment: dict[str, Any]) -> None:
        """Report if the attempt before ran on another machine or code, which may change the last bits."""
        try:
            before = read_sealed(self.store, f"{self.root}/attempt-{attempt}/attempt.json", AttemptRecord)
        except (FileNotFoundError, ValueError):
            return  # there is no attempt before, or its record is damaged
        # a commit that changes numbers changes the code's hash too, and the other values describe the node
        compared = environment.keys() - {"commit", "node"}
        if changed := [
            f"{key} {before.get(key)} -> {environment[key]}"
            for key in sorted(compared)
            if before.get(key) != environment[key]
        ]:
            self.say(
                f"attempt {attempt} ran on something else ({', '.join(changed)}): "
                "the last bits of the numbers may differ."
            )

    def _keep_spec(self) -> None:
        name, text = f"{self.root}/spec.json", self.spec.to_json().encode()
        if not self.store.create(name, text) and self.store.read(name) != text:
            self.say(
                f"damaged: {self.store.where(name)}: it is not the spec that its folder is named after. "
                "It was written anew."
            )
            self.store.write(name, text)

    def _keep(self, stem: str, data: bytes, suffix: str) -> File:
        if len(data) > LARGEST:
            path = self.store.where(f"{self.root}/{stem}.{suffix}")
            raise StoreError(f"{path} would have {len(data):,} bytes, and at most {LARGEST:,} are read.")
        sha256 = digest(data)
        file = File(f"{stem}-{sha256[:16]}.{suffix}", len(data), sha256)
        self.store.write(f"{self.root}/{file.name}", data)
        return file

    def _names(self) -> list[str]:
        return [name.removeprefix(f"{self.root}/") for name in self.store.names(self.root)]

    def _delete(self, name: str) -> None:
        self.store.delete(f"{self.root}/{name}")
