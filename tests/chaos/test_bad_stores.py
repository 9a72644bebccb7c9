"""A store that answers late, wrong, twice, with 503 or not at all: rows are right, or the sweep stops.

A sweep that stops says so in a line or two, and goes on when it is started again.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.bad_store import ANY, KINDS, Plan, bad_store
from tests.chaos.tally import ROUNDS, assert_whole
from tests.sweeps import generations, sweep, write_study
from trainer.store import open_store

pytestmark = pytest.mark.chaos
STARTS = 12
"""After so many starts the sweep has to be over."""


@pytest.fixture(scope="module")
def undisturbed_short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed sweep of short runs, because a store with faults is slow."""
    folder = tmp_path_factory.mktemp("undisturbed-short")
    done = sweep("run", write_study(folder), "--store", folder)
    assert done.returncode == 0, done.stderr
    return folder


def downloaded(url: str, folder: Path) -> Path:
    """Copy a bucket to a folder, so that it can be read like any store."""
    store, copy = open_store(url), open_store(folder)
    for name in store.names():
        copy.write(name, store.read(name))
    return folder


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("_", range(ROUNDS))
def test_a_sweep_on_a_store_with_faults_has_the_right_rows_or_stops_and_goes_on_when_started_again(
    _: int, tmp_path: Path, undisturbed_short: Path, s3_environment: dict[str, str], bucket: str
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"the seed of the faults is {seed}")
    plan = Plan(random.Random(seed), share=0.03)
    study, codes = write_study(tmp_path, resources={"commit_share": 1, "attempts": 20}), list[int]()
    with bad_store(s3_environment["AWS_ENDPOINT_URL"], plan) as address:
        env = {**s3_environment, "AWS_ENDPOINT_URL": address}
        while not codes or (codes[-1] and len(codes) < STARTS):
            done = sweep("run", study, "--store", bucket, env=env, timeout=600)
            print(done.stderr)
            codes.append(done.returncode)
            assert "Traceback" not in done.stderr
            assert done.returncode in (0, 3)
    print(f"exit codes {codes}; {dict(plan.done)}")
    assert codes[-1] == 0
    store = downloaded(bucket, tmp_path / "copy")
    assert_whole("a store with faults", {kind: plan.done[kind] for kind in KINDS}, store, undisturbed_short)
    assert generations(store) == generations(undisturbed_short)


@pytest.mark.parametrize("kind", [*ANY, "cut off"])
def test_a_fault_on_the_way_is_hidden_from_whoever_reads_and_writes(
    kind: str, s3_environment: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(random.Random(1), share=0.25, kinds=(kind,))
    with bad_store(s3_environment["AWS_ENDPOINT_URL"], plan) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        store = open_store(bucket)
        for number in range(4):
            assert store.create(f"a/{number}", b"first")
            assert not store.create(f"a/{number}", b"second")
            store.write(f"b/{number}", b"%d" % number)
            assert store.read(f"a/{number}") == b"first"
            assert store.read(f"b/{number}") == b"%d" % number
        assert store.folders() == ["a", "b"]
        store.delete("b/0")
        assert store.names() == [*(f"a/{number}" for number in range(4)), "b/1", "b/2", "b/3"]
    assert plan.done[kind]
