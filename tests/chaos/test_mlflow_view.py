"""MLflow that fails, hangs, lies or goes away, and a view that is killed.

After enough tries everything is there, and each run once.
"""

from __future__ import annotations

import http.client
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import TrackerDown
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.views.mlflow import following
from sweep.views.mlflow.client import Experiment
from sweep.views.mlflow.following import Follower
from sweep.views.mlflow.server import free_port
from sweep.views.reading import Reading, RunFiles
from tests.conftest import ROOT
from tests.servers import Silent, serving
from tests.sweeps import Started, environment, sweep, sweep_command
from tests.views import MLFLOWS_OWN, Filling, Shown, database, server, shown, synced, view_of
from trainer import stopping

pytestmark = [MLFLOWS_OWN, pytest.mark.chaos]


@pytest.fixture(scope="module")
def expected(finished_sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """The runs that an undisturbed view shows."""
    uri = database(tmp_path_factory.mktemp("undisturbed-view") / "mlflow.db")
    synced(finished_sweep, uri)
    return shown(uri)


def drawn() -> random.Random:
    seed = int.from_bytes(os.urandom(4))
    print(f"the seed is {seed}")
    return random.Random(seed)


def assert_same(found: dict[str, Shown], expected: dict[str, Shown]) -> None:
    assert found.keys() - {"report"} == expected.keys()
    for key, run in expected.items():
        assert found[key] == run, key


def planned(store: Path) -> list[str]:
    """Return the runs in an order in which each follows the runs that it waits for.

    Winners come first in a generation, so that each is seen before it has grown.
    """

    def place(run: RunFiles) -> tuple[Any, ...]:
        generation = run.cohort.candidate.name.split(".")[0]
        return run.cohort.phase == "confirm", generation, run.place, -len(run.cohort.runs)

    return [
        run.run_id for run in sorted(Reading(Ledger(str(store), "small", print)).runs.values(), key=place)
    ]


# killed


@pytest.mark.timeout(600)
def test_ten_kills_of_a_sync_change_nothing(
    finished_sweep: Path, expected: dict[str, Shown], tmp_path: Path
) -> None:
    moments, uri = drawn(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = ("sync", "small.yaml", "--store", finished_sweep, "--mlflow-uri", uri)
    for _ in range(10):
        with Started(tmp_path, *arguments) as started, suppress(subprocess.TimeoutExpired):
            started.process.wait(moments.uniform(1, 7))
    done = sweep(*arguments)
    assert done.returncode == 0, done.stderr
    assert_same(shown(uri), expected)


@pytest.mark.timeout(600)
def test_a_follower_that_is_told_to_stop_with_its_driver_brings_mlflow_up_to_date_first(
    finished_sweep: Path, expected: dict[str, Shown], tmp_path: Path
) -> None:
    store, said = Path(shutil.copytree(finished_sweep, tmp_path / "store")), list[str]()
    uri, ledger = database(tmp_path / "view" / "mlflow.db"), Ledger(str(store), "small", said.append)
    lease = Lease(ledger.store, print)
    lease.acquire()
    follower = Follower(ledger, str(store), uri, "a hint")
    for number in stopping.ORDERS:
        follower.process.send_signal(number)
    lease.release()
    follower.finish(seconds=500)
    assert said == ["bringing MLflow up to date ..."]
    assert_same(shown(uri), expected)


class Killed(BaseException):
    """An exception that no handler may catch, as none catches SIGKILL."""


def test_a_view_killed_before_it_removed_what_a_cohort_was_removes_it_the_next_time(
    finished_sweep: Path, expected: dict[str, Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, store = database(tmp_path / "view" / "mlflow.db"), tmp_path / "store"
    filling, view, deaths, remove = (
        Filling(finished_sweep, store, seed=0),
        view_of(store, uri),
        0,
        Experiment.delete_id,
    )

    def die(*_: Any) -> None:
        raise Killed

    for run_id in planned(finished_sweep):
        filling.finish(run_id)
        monkeypatch.setattr(Experiment, "delete_id", die)
        try:
            view.update(live=True)
        except Killed:
            deaths += 1
            shown(uri)  # every child's parent is there, at the death and after it
            monkeypatch.setattr(Experiment, "delete_id", remove)
            view = view_of(store, uri)
            view.update(live=True)
        shown(uri)
    monkeypatch.setattr(Experiment, "delete_id", remove)
    assert not filling.left
    assert deaths == 2, "one candidate of each generation is promoted"
    synced(store, uri)
    assert_same(shown(uri), expected)


# a server that fails


@contextmanager
def failing(target: int, draw: random.Random) -> Generator[str]:
    """A proxy that forwards everything, and answers a third of it with an error."""

    class Forward(Silent):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            behind = http.client.HTTPConnection("127.0.0.1", target, timeout=60)
            behind.request(
                self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"}
            )
            answer = behind.getresponse()
            content = answer.read()
            behind.close()
            if failed := draw.random() < 1 / 3:
                content = b"no such luck"
            self.send_response(500 if failed else answer.status)
            self.send_header(
                "Content-Type", "text/plain" if failed else answer.getheader("Content-Type", "text/plain")
            )
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = forward  # noqa: N815  (their names are the base class's)

    with serving(Forward) as address:
        yield address


def test_a_server_that_says_of_a_third_of_all_it_did_that_it_failed_ends_with_one_run_a_key(
    finished_sweep: Path, expected: dict[str, Shown], tmp_path: Path
) -> None:
    draw, port = drawn(), free_port(0)
    with server(tmp_path, port), failing(port, draw) as address:
        view, failures, wrote = view_of(finished_sweep, address, []), 0, -1
        while wrote:
            try:
                wrote = view.update(live=False)
            except TrackerDown:
                failures += 1
    print(f"{failures} updates failed")
    assert failures > 10
    assert_same(shown(database(tmp_path / "mlflow.db")), expected)


@pytest.mark.timeout(900)
def test_a_follower_catches_up_with_a_server_that_was_away(
    finished_sweep: Path, expected: dict[str, Shown], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PERIOD_SECONDS", 0.1)
    monkeypatch.setattr(following, "LONGEST_PAUSE_SECONDS", 1.0)
    store, port, working = tmp_path / "store", free_port(0), threading.Event()
    filling, said, reached = (
        Filling(finished_sweep, store, drawn().randrange(2**32)),
        list[str](),
        list[bool](),
    )
    view, updates = view_of(store, f"http://127.0.0.1:{port}", said), list[int]()

    def update(live: bool) -> int:
        wrote = view.update(live=live)
        updates.append(wrote)
        return wrote

    def until(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 250
        while not condition():
            assert time.monotonic() < end, said
            assert follower.is_alive(), said
            time.sleep(0.02)

    def updated() -> None:
        seen = len(updates)
        until(lambda: len(updates) > seen + 1)

    def fill(down_to: int) -> None:
        """Add runs to the ledger, with an update of the view after each step."""
        while len(filling.left) > down_to:
            filling.step(2)
            updated()

    working.set()
    follower = threading.Thread(
        target=lambda: reached.append(following.follow(update, working.is_set, said.append, time.sleep))
    )
    try:
        with server(tmp_path, port):
            follower.start()
            fill(12)
        # Everything that this run waits for is there.
        filling.finish(next(run_id for run_id in planned(finished_sweep) if run_id in filling.left))
        until(lambda: said)
        filling.step(4)
        with server(tmp_path, port):
            fill(0)
            working.clear()
            follower.join(250)
    finally:
        working.clear()
        follower.join(250)
    assert reached == [True]
    assert_same(shown(database(tmp_path / "mlflow.db")), expected)


# a server that hangs


@pytest.fixture
def silent() -> Generator[str]:
    """A server that takes every connection and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_never_answers_is_given_up_after_the_timeout(
    finished_sweep: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(TrackerDown, match=silent):
        view_of(finished_sweep, silent).update(live=True)


def test_the_command_says_so_and_what_to_do(finished_sweep: Path, silent: str) -> None:
    command = sweep_command("sync", "small.yaml", "--store", finished_sweep, "--mlflow-uri", silent)
    env = environment({"MLFLOW_HTTP_REQUEST_TIMEOUT": "1"})
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=env, cwd=ROOT, timeout=240
    )
    assert done.returncode == 3, done.stderr
    assert silent in done.stderr
    assert f"sync small.yaml --store {finished_sweep}" in done.stderr.splitlines()[-1]
