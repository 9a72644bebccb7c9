"""Files of a ledger with a seal that fits and a content that does not: one message, and no traceback.

`tests/security/test_hostile_json.py` tries many more of them, in one process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kept import STUDY, falsify, first_run
from tests.security.victim import assert_one_message, sweep, trainer
from trainer.store import seal, unseal

DEEP = b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b', "check": ""}'


def generation(store: Path) -> Path:
    return store / "kept" / "generations" / "additive-0.json"


def look(store: Path) -> Path:
    return min((store / "kept" / "looks").iterdir())


CASES: dict[str, tuple[Callable[[Path], Path], Any, str, int, tuple[str, ...]]] = {
    "a study without extensions": (
        lambda store: store / "kept" / "study.json",
        lambda body: body.pop("extensions"),
        "status", 3, ("study.json is damaged (extensions",),
    ),
    "a study that is nested without end": (
        lambda store: store / "kept" / "study.json",
        DEEP, "status", 3, ("study.json is damaged (it is nested too deeply)",),
    ),
    "a study whose arms are a number": (
        lambda store: store / "kept" / "study.json",
        lambda body: body.update(arms=3),
        "plan", 3, ("study.json is damaged (arms", "must be a list"),
    ),
    "an extension at no time": (
        lambda store: store / "kept" / "study.json",
        lambda body: body["extensions"][0].update(at="yesterday"),
        "report", 3, ("study.json is damaged (extensions", "must be a time"),
    ),
    "candidates that are texts": (
        generation, lambda body: body.update(candidates=["a"]),
        "status", 3, ("additive-0.json is damaged (candidates", "must be an object"),
    ),
    "a candidate with other settings": (
        generation, lambda body: body["candidates"][0].update({"policy.name": "dense"}),
        "status", 3, ("generations/additive-0.json holds a candidate that additive cannot have",),
    ),
    "a candidate that cannot be trained": (
        generation, lambda body: body["candidates"][0].update({"policy.step": "../.."}),
        "plan", 3, ("additive-0.json holds a candidate that additive cannot have", "policy.step"),
    ),
    "a score that is no number": (
        generation, seal({"arm": "additive", "generation": 0, "score": "NaN"}).replace(b'"NaN"', b"NaN"),
        "status", 3, ("additive-0.json is damaged (NaN is no number)",),
    ),
    "a look without a time": (
        look, lambda body: body.pop("at"),
        "report", 3, ("looks/", "is damaged (at", "is missing"),
    ),
    "a look of half a character": (
        look, lambda body: body.update(arms=["\ud800"]),
        "report", 3, ("looks/", "is damaged (it is not UTF-8 text)"),
    ),
    "a lease that is empty": (
        lambda store: next((store / "kept" / "lease").iterdir()),
        b"", "doctor", 0, ("repaired:", "lease-", "taken over"),
    ),
    "a lease without a process": (
        lambda store: next((store / "kept" / "lease").iterdir()),
        seal({}), "status", 0, ("done, 0 failed",),
    ),
    "a lease of a process that is a path": (
        lambda store: next((store / "kept" / "lease").iterdir()),
        lambda body: body.update(pid="../../etc", state="held"), "status", 0, ("done, 0 failed",),
    ),
    "an outcome that took no epochs": (
        lambda store: first_run(store) / "outcome.json",
        lambda body: body.update(epochs=[]), "status", 0, ("outcome.json is damaged (epochs",),
    ),
    "an outcome of files that are numbers": (
        lambda store: first_run(store) / "outcome.json",
        lambda body: body.update(files={"epochs": 3}), "doctor", 0, ("Put aside as outcome.json.damaged",),
    ),
    "an attempt at no time": (
        lambda store: first_run(store) / "attempt-1" / "attempt.json",
        lambda body: body.update(started_at=3), "doctor", 0, ("Put aside as attempt.json.damaged",),
    ),
    "a failure without a reason": (
        lambda store: store / "kept" / "failures" / "0123456789abcdef.json",
        seal({"log": 3}), "status", 0, ("done, 0 failed",),
    ),
    "a spec that is nested without end": (
        lambda store: first_run(store) / "spec.json",
        b"[" * 100_000, "doctor", 0, ("spec.json: written anew from the study",),
    ),
}  # fmt: skip
"""The file, what becomes of it, the command, its exit code and what it says."""


@pytest.mark.parametrize("case", CASES)
def test_a_misshapen_file_is_named_in_one_message(case: str, store: Path) -> None:
    find, change, command, code, words = CASES[case]
    path = find(store)
    if isinstance(change, bytes):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(change)
    else:
        falsify(path, change)
    done = sweep(command, STUDY, "--store", store, cwd=store)
    assert_one_message(done, code, *words)


@pytest.mark.parametrize("name", ["lease-007.json", "lease-٣.json"])
def test_a_lease_with_another_number_than_its_name_can_have_is_no_lease(name: str, store: Path) -> None:
    (store / "kept" / "lease" / name).write_bytes(b"{}")
    done = sweep("doctor", STUDY, "--store", store, cwd=store)
    assert_one_message(done, 0)


def test_tables_with_hashes_that_fit_and_other_figures_than_the_run_can_have_are_damage(store: Path) -> None:
    run, other = sorted((store / "kept" / "runs").iterdir())[:2]
    # another run's table of epochs as that of the endpoints: the hash fits, and the columns do not
    table = unseal((run / "outcome.json").read_bytes())["files"]["epochs"]
    stem, end = table["name"].split("/")
    name = f"{stem}/{end.replace('epochs', 'endpoints', 1)}"
    shutil.copy(run / table["name"], run / name)
    falsify(run / "outcome.json", lambda body: body["files"].update(endpoints={**table, "name": name}))
    done = sweep("status", STUDY, "--store", store, cwd=store)
    assert_one_message(done, 0, f"{run}: its tables are not those of this run")
    assert other.name not in done.stdout


def test_a_run_whose_attempts_were_falsified_is_printed_all_the_same(store: Path) -> None:
    run = first_run(store)
    (run / "attempt-1" / "attempt.json").write_bytes(seal({"holder": "me", "started_at": []}))
    done = trainer(run / "spec.json", "--store", store / "kept" / "runs", "--device", "cpu", cwd=store)
    assert_one_message(done, 0, "finished before")
    assert [json.loads(line)["epoch"] for line in done.stdout.splitlines()] == list(range(1, 13))
