"""A run's files: how they are named, what makes them whole, and which of them a run goes on from.

    <run_id>/spec.json  outcome.json  epochs.parquet  endpoints.parquet
             attempt-<a>/attempt.json  log.txt  checkpoint-<epoch>-<hash>.pt  epochs-<epoch>-<hash>.parquet
                         endpoints-<epoch>-<hash>.parquet

Every attempt writes in a folder of its own, and reads from all. `outcome.json` is written last, only once, and names the files it stands
for with their hashes; the two tables beside it are copies of those, for people.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from trainer.spec import RunSpec
from trainer.store import Store, digest, seal, unseal

KEPT = 2
"""Checkpoints of a run that is under way: the last, and the one before in case the last is damaged."""


class DamagedRun(RuntimeError):
    """Files that cannot be rebuilt are damaged; the message names them. Nothing was deleted."""


class Superseded(RuntimeError):
    """Another attempt has taken this run over, or finished it."""


@dataclass(frozen=True)
class File:
    """A file that an outcome stands for."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Completed:
    """Trained to the last epoch. `collapsed`: with a finite training loss that is that of a guess."""

    epochs: int
    collapsed: bool
    attempt: int
    files: dict[str, File]


@dataclass(frozen=True)
class Diverged:
    """The training loss was not a number at the end of this epoch: a result, and the run's end."""

    epochs: int
    attempt: int
    files: dict[str, File]


Outcome = Completed | Diverged
_OUTCOMES = {cls.__name__.lower(): cls for cls in (Completed, Diverged)}


@dataclass(frozen=True)
class Commit:
    """A checkpoint by its name."""

    name: str
    attempt: int
    epoch: int


class RunFolder:
    """One run's folder in a store. `say` is told what a person should know."""

    def __init__(self, store: Store, spec: RunSpec, say: Callable[[str], None]) -> None:
        self.store, self.spec, self.say = store, spec, say
        self.root = spec.run_id
        self.damaged: set[str] = set()

    def claim(self, environment: dict[str, Any]) -> int:
        """Begin a new attempt, numbered above all there are; from now on the earlier ones will stop by themselves."""
        self._keep_spec()
        record = {**environment, "started_at": datetime.now(UTC).isoformat(), "token": secrets.token_hex(8)}
        while True:
            number = max(self.attempts(), default=0) + 1
            if self.store.create(f"{self.root}/attempt-{number}/attempt.json", seal(record)):
                self._compare(number - 1, environment)
                return number

    def attempts(self) -> list[int]:
        """The numbers of all attempts so far."""
        return sorted(
            {int(match[1]) for name in self._names() if (match := re.match(r"attempt-(\d+)/", name))}
        )

    def commits(self) -> list[Commit]:
        """Every checkpoint there is, best first: the latest epoch, then the latest attempt."""
        found = [
            (name, re.fullmatch(r"attempt-(\d+)/checkpoint-(\d+)-[0-9a-f]{16}\.pt", name))
            for name in self._names()
        ]
        commits = [Commit(name, int(match[1]), int(match[2])) for name, match in found if match]
        return sorted(commits, key=lambda commit: (commit.epoch, commit.attempt), reverse=True)

    def latest(self) -> tuple[Commit, dict[str, Any]] | None:
        """The best whole checkpoint and the state in it, to go on from; None where there is no checkpoint at all."""
        while commits := self.commits():
            try:
                for commit in commits:
                    if state := self._state(commit):
                        return commit, state
            except FileNotFoundError:
                continue  # an attempt that was under way committed something better meanwhile, and removed this one
            names = "\n  ".join(self.store.where(f"{self.root}/{commit.name}") for commit in commits)
            raise DamagedRun(
                f"run {self.spec.run_id}: every checkpoint is damaged:\n  {names}\n"
                "Nothing was deleted. Restore one from a backup, or move the run's folder away to start it anew."
            )
        return None

    def commit(self, attempt: int, state: dict[str, Any], tables: dict[str, bytes]) -> dict[str, File]:
        """Keep a state and then the tables made from it; what was kept, by kind. Checkpoints before the last two go."""
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
        whole = [
            commit
            for commit in self.commits()
            if commit.attempt <= attempt and commit.name not in self.damaged
        ]
        old = {(commit.attempt, commit.epoch) for commit in whole[KEPT:]}
        for name in self._names():
            if (match := re.match(r"attempt-(\d+)/\w+-(\d+)-", name)) and (
                int(match[1]),
                int(match[2]),
            ) in old:
                self._delete(name)
        return kept

    def finish(self, outcome: Outcome) -> Outcome:
        """Write the outcome unless one stands, and return the one that does; then leave only what it stands for."""
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
        """How the run ended, or None where it has not; DamagedRun where the file was altered."""
        name = f"{self.root}/outcome.json"
        try:
            data = self.store.read(name)
        except FileNotFoundError:
            return None
        try:
            body = unseal(data)
            if body["run_id"] != self.spec.run_id:
                raise ValueError("it is another run's")
            files = {kind: File(**file) for kind, file in body["files"].items()}
            cls = _OUTCOMES[body["outcome"]]
            return cls(**{key: body[key] for key in cls.__dataclass_fields__ if key != "files"}, files=files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(
                f"{self.store.where(name)} is damaged ({error}). Nothing was deleted. Restore it from a backup, or move it away: "
                "the run is then finished anew from its last checkpoint, or from its first epoch where none is left."
            ) from error

    def tidy(self, outcome: Outcome) -> None:
        """See that every file the outcome stands for is whole, with its copy for people, and remove what nothing stands for."""
        self._publish(outcome, self.say)

    def _publish(self, outcome: Outcome, say: Callable[[str], None]) -> None:
        for kind, file in outcome.files.items():
            data = self.table(outcome, kind)
            for name in (file.name, f"{kind}.parquet") if kind != "checkpoint" else ():
                if self._whole(name, file) is None:
                    self.store.write(f"{self.root}/{name}", data)
                    say(
                        f"missing or altered: {self.store.where(f'{self.root}/{name}')}. It was written anew from its copy."
                    )
        stands = {file.name for file in outcome.files.values()}
        for name in self._names():
            if re.match(r"attempt-\d+/(checkpoint|epochs|endpoints)-", name) and name not in stands:
                self._delete(name)
        self.store.delete_partial(self.root)

    def table(self, outcome: Outcome, kind: str) -> bytes:
        """One of the files an outcome stands for, or its copy; DamagedRun where neither is whole."""
        file = outcome.files[kind]
        for name in (file.name, f"{kind}.parquet"):
            if (data := self._whole(name, file)) is not None:
                return data
        where = self.store.where(f"{self.root}/{file.name}")
        raise DamagedRun(
            f"{where} is damaged or missing, and so is its copy. Move {self.store.where(self.root)} away to train the run anew."
        )

    def write_log(self, attempt: int, lines: list[str]) -> None:
        """Keep the end of an attempt's log."""
        self.store.write(f"{self.root}/attempt-{attempt}/log.txt", ("\n".join(lines) + "\n").encode())

    def _whole(self, name: str, file: File) -> bytes | None:
        try:
            data = self.store.read(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return data if len(data) == file.bytes and digest(data) == file.sha256 else None

    def _state(self, commit: Commit) -> dict[str, Any] | None:
        """A checkpoint's content; None, with a word about it, where it is not what its name says or holds more than plain values."""
        import pickle

        import torch

        data = self.store.read(f"{self.root}/{commit.name}")
        try:
            if digest(data)[:16] not in commit.name:
                raise ValueError(f"its {len(data):,} bytes do not match the hash in its name")
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if (
                not isinstance(state, dict)
                or cast("dict[str, Any]", state).get("run_id") != self.spec.run_id
            ):
                raise ValueError("it is not a checkpoint of this run")
        except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            self.damaged.add(commit.name)
            why = str(error).splitlines()[0]
            self.say(f"damaged: {self.store.where(f'{self.root}/{commit.name}')}: {why}.")
            return None
        return cast("dict[str, Any]", state)

    def _compare(self, attempt: int, environment: dict[str, Any]) -> None:
        """Say where the attempt before ran on something that may change the last bits of the numbers."""
        try:
            before = unseal(self.store.read(f"{self.root}/attempt-{attempt}/attempt.json"))
        except (FileNotFoundError, ValueError):
            return  # there is no attempt before, or what it ran on can no longer be told
        # most commits change no number, and those that do change the code's hash too; nodes differ by what else is compared
        compared = environment.keys() - {"commit", "node"}
        if changed := [
            f"{key} {before.get(key)} -> {environment[key]}"
            for key in sorted(compared)
            if before.get(key) != environment[key]
        ]:
            self.say(
                f"attempt {attempt} ran on something else ({', '.join(changed)}): the last bits of the numbers may differ."
            )

    def _keep_spec(self) -> None:
        name, text = f"{self.root}/spec.json", self.spec.to_json().encode()
        if not self.store.create(name, text) and self.store.read(name) != text:
            self.say(
                f"damaged: {self.store.where(name)}: it is not the spec that its folder is named after. It was written anew."
            )
            self.store.write(name, text)

    def _keep(self, stem: str, data: bytes, suffix: str) -> File:
        sha256 = digest(data)
        file = File(f"{stem}-{sha256[:16]}.{suffix}", len(data), sha256)
        self.store.write(f"{self.root}/{file.name}", data)
        return file

    def _names(self) -> list[str]:
        return [name.removeprefix(f"{self.root}/") for name in self.store.names(self.root)]

    def _delete(self, name: str) -> None:
        self.store.delete(f"{self.root}/{name}")
