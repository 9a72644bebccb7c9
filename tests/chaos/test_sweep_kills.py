"""A sweep that is killed again and again ends as an undisturbed one does.

Every run is there once, with the same rows and the same candidates.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sweep.gains.comparisons import comparisons
from sweep.gains.rows import Compared
from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from sweep.study import load
from tests.chaos.tally import assert_whole
from tests.sweeps import (
    UNHURRIED,
    Started,
    actors,
    committed,
    final,
    folders,
    generations,
    rows,
    sweep,
    write_study,
)

pytestmark = pytest.mark.chaos
KILLS = int(os.environ.get("KILLS", "20"))
"""The number of kills in all; `make soak` asks for more than a hundred."""


def finalists(store: Path) -> list[Any]:
    """Return the finalists that follow from the ledger's files alone."""
    ledger = Ledger(str(store), "small", print)
    ledger.load(keep=False)
    plan = Plan(load(store / "small.yaml"), ledger.results, ledger.proposals())
    assert plan.complete
    return [plan.finalists(arm) for arm in plan.study.arms]


def assert_equal(store: Path, undisturbed: Path) -> None:
    assert rows(store) == rows(undisturbed)
    assert generations(store) == generations(undisturbed)
    assert finalists(store) == finalists(undisturbed)
    for folder in folders(store):
        assert len(list(folder.glob("outcome.json"))) == 1


def commits(store: Path) -> set[Path]:
    return set((store / "small" / "runs").glob("*/attempt-*/checkpoint-*"))


def killed_at_a_moment(kill: int, moments: random.Random, store: Path, study: Path) -> bool:
    """Start the sweep and kill it at a random moment; return whether it was not over before.

    One try in three is killed while ledger, lease and cluster begin, the others after a commit.
    """
    before = commits(store)
    with Started(store, "run", study, "--store", store) as started:
        if kill % 3:
            started.until(lambda: started.over or commits(store) - before)
            delay = moments.uniform(0, 1)
        else:
            delay = moments.uniform(0, 3)
        try:
            started.process.wait(delay)
        except subprocess.TimeoutExpired:
            return True
    return False


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, KILLS, 10))
def test_twenty_kills_of_the_whole_tree_change_nothing(
    first: int, tmp_path: Path, undisturbed: Path
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"the seed of the moments is {seed}")
    moments = random.Random(seed)
    study = write_study(tmp_path, **UNHURRIED)
    kept: dict[tuple[str, int], Any] = {}
    kills = 0
    for kill in range(first, min(first + 10, KILLS)):
        kills += killed_at_a_moment(kill, moments, tmp_path, study)
        kept |= committed(tmp_path)
    done = sweep("run", study, "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert_whole("kills of the whole tree", kills, tmp_path, undisturbed)
    assert_equal(tmp_path, undisturbed)
    ended = final(tmp_path)
    assert {key: ended[key] for key in kept} == kept, "an epoch that was committed was trained again"


@pytest.mark.timeout(600)
def test_actors_killed_at_random_change_nothing(tmp_path: Path, undisturbed: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    moments = random.Random(seed)
    study = write_study(tmp_path, **UNHURRIED, resources={"commit_share": 1, "attempts": 20})
    print(f"the seed of the moments is {seed}")
    killed = 0
    with Started(tmp_path, "run", study, "--store", tmp_path) as started:
        while killed < 6 and started.process.poll() is None:  # a fast machine is done before the sixth
            time.sleep(moments.uniform(0, 3))
            if alive := actors(started.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(moments.choice(alive), signal.SIGKILL)
                    killed += 1
        assert started.wait() == 0, started.log.read_text()
    assert killed
    assert_whole("kills of training processes", killed, tmp_path, undisturbed)
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
def test_actors_that_die_between_two_runs_and_when_set_up_for_another_change_nothing(
    tmp_path: Path, undisturbed: Path
) -> None:
    done = sweep(
        "run", write_study(tmp_path, **UNHURRIED), "--store", tmp_path, env={"DIE_ONCE": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "idle").exists()
    assert (tmp_path / "reset").exists()
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
def test_one_worker_gives_what_two_give(tmp_path: Path, undisturbed: Path) -> None:
    done = sweep("run", write_study(tmp_path, **UNHURRIED, resources={"workers": 1}), "--store", tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path, undisturbed)


SEARCHED: dict[str, Any] = {
    "task": {"epochs": 30, "evaluate_every": 10},
    "arms": {
        "dense": {
            "policy": {"name": "dense"},
            "task": {"learning_rate": {"low": 0.03, "high": 0.3, "log": True}},
        }
    },
    "search": {
        "replicates": 7,
        "proposer": "random",
        "budget": 2,
        "ladder": [1],
        "objective": "each",
    },
    "confirm": {"seeds": 1},
    "analysis": {"endpoints": [1.0, 0.05]},
}
"""Both arms searched seven times, with a finalist for each of two endpoints."""


@pytest.mark.timeout(900)
def test_kills_of_a_study_with_several_searches_change_no_candidate_pair_or_number(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"the seed of the moments is {seed}")
    moments = random.Random(seed)
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    for store in (killed, plain):
        store.mkdir()
    study = write_study(killed, **SEARCHED)
    kills = sum(killed_at_a_moment(kill, moments, killed, study) for kill in range(4))
    for store in (killed, plain):
        done = sweep("run", write_study(store, **SEARCHED), "--store", store)
        assert done.returncode == 0, done.stderr
    assert_whole("kills of the whole tree, several searches", kills, killed, plain)
    assert_equal(killed, plain)
    assert compared(killed) == compared(plain)
    assert {row.searches for row in compared(killed)} == {7}


def compared(store: Path) -> list[Compared]:
    """Return the comparisons that follow from the ledger's files alone."""
    return comparisons(Ledger(str(store), "small", print).state().plan)
