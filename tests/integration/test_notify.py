"""Somebody who is elsewhere is told how a sweep ends, and nothing shows the address that is told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sweep.cli import notify
from sweep.cli.notify import URL, URL_FILE, Notifier, address, notifying
from sweep.cli.observer import Observer
from sweep.errors import RejectStudy
from sweep.ledger.gpu_time import GpuHours
from sweep.planning.plan import Plan
from sweep.planning.values import Failure
from sweep.study import Study
from sweep.study.contents import Contents
from tests.servers import Silent, serving
from tests.sweeps import study_values, sweep, write_study

SECRET = "hook-of-somebody"


@contextmanager
def listening(answers: Iterator[int] | None = None) -> Generator[tuple[str, list[Any]]]:
    """Answer POSTs with these codes, and then with 200; yield the address and what was told."""
    told: list[Any] = []

    class Hook(Silent):
        def do_POST(self) -> None:  # noqa: N802  (the base class's name)
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(answers, 200) if answers else 200)
            if self.path == "/moved":
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Hook) as server:
        yield server, told


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tries follow each other without pauses."""
    monkeypatch.setattr(notify, "PAUSES", (0.0, 0.0, 0.0))


@pytest.mark.usefixtures("at_once")
def test_a_notification_is_sent_again_until_the_server_takes_it() -> None:
    said: list[str] = []
    with listening(iter([500, 503])) as (server, told), notifying(f"{server}/{SECRET}", said.append) as tell:
        tell({"event": "failed"})
        tell({"event": "done"})
    assert [message["event"] for message in told] == ["failed", "failed", "failed", "done"]
    assert said == []


@pytest.mark.usefixtures("at_once")
def test_a_redirect_is_not_followed() -> None:
    said: list[str] = []
    with listening(iter([307] * 3)) as (server, told), notifying(f"{server}/moved", said.append) as tell:
        tell({"event": "done"})
    assert len(told) == 3
    assert said == ["notify: 'done' was not delivered: the server answered 307."]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://no.such.host.invalid/", "http://127.0.0.1/ "]
)
def test_an_address_that_cannot_be_reached_is_told_in_a_line_without_it(url: str) -> None:
    said: list[str] = []
    with notifying(url + SECRET, said.append) as tell:
        tell({"event": "done"})
    assert len(said) == 1
    assert said[0].startswith("notify: 'done' was not delivered: ")
    assert SECRET not in said[0]


def test_a_server_that_never_answers_does_not_keep_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "END_SECONDS", 0.2)
    free = threading.Event()

    class Deaf(Silent):
        def do_POST(self) -> None:  # noqa: N802
            free.wait()

    said: list[str] = []
    with serving(Deaf) as server:
        notifier = Notifier(f"{server}/{SECRET}", said.append)
        notifier.tell({"event": "done"})
        notifier.finish()
        free.set()
    assert said == ["notify: not everything was delivered: the server has not answered."]


def test_the_address_comes_from_the_environment_and_does_not_stay_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, url = tmp_path / "url", f"https://example.org/{SECRET}"
    file.write_text(url + "\n")
    file.chmod(0o600)
    for name, value in ((URL, url), (URL_FILE, str(file))):
        monkeypatch.setenv(name, value)
        assert address() == url
        assert name not in os.environ
    assert address() == ""
    file.chmod(0o644)
    monkeypatch.setenv(URL_FILE, str(file))
    with pytest.raises(RejectStudy, match="chmod 600"):
        address()


@pytest.mark.parametrize("url", ["file:///", "ftp://a/", "a/", "https:///", "http://[", "http://me:word@a/"])
def test_what_is_no_address_of_a_web_server_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv(URL, url + SECRET)
    with pytest.raises(RejectStudy) as error:
        address()
    assert URL in str(error.value)
    assert SECRET not in str(error.value)


def observed(**parts: Any) -> tuple[Plan, Observer, list[Any]]:
    """Return a plan, its observer, and what that tells."""
    plan, told = Plan(Study("small", Contents.read(study_values(**parts))), {}, {}), list[Any]()
    return plan, Observer(plan, 18, told.append, now=0), told


def events(told: list[Any]) -> list[str]:
    return [message["event"] for message in told]


def test_a_stall_is_told_once_each_time_and_a_run_that_only_catches_up_is_no_progress() -> None:
    _, it, told = observed(resources={"deadline": 100})
    it.look({"a": 2.0}, None, 90)
    it.look({"a": 2.0}, None, 180)
    assert events(told) == []
    it.look({"a": 1.0}, None, 191)  # it was begun anew
    it.look({"a": 2.0}, None, 300)
    assert events(told) == ["stalled"]
    it.look({"a": 2.1}, None, 301)
    it.look({}, None, 402)
    assert events(told) == ["stalled", "stalled"]


def test_a_run_that_is_given_up_and_a_budget_that_is_spent_are_told_once() -> None:
    plan, it, told = observed()
    plan.queue.failed["a"] = Failure("it is broken\nin two lines.")
    for now in (1, 2):
        it.look({}, GpuHours(3, 2), now)
    assert sorted(events(told)) == ["failed", "spent"]
    assert "run a was given up: it is broken\\nin two lines. 0 of 18 runs done." in told[1]["text"]
    assert (told[1]["failed"], told[1]["complete"]) == (1, False)


def test_of_events_that_the_study_does_not_name_nobody_is_told() -> None:
    plan, it, told = observed(notify=["done"])
    plan.queue.failed["a"] = Failure("it is broken")
    it.look({}, GpuHours(3, 2), 1e6)
    assert events(told) == []


@pytest.mark.slow
def test_a_sweep_tells_that_it_is_done(tmp_path: Path) -> None:
    with listening() as (server, told):
        done = sweep("run", write_study(tmp_path), "--store", tmp_path, env={URL: f"{server}/{SECRET}"})
    assert done.returncode == 0, done.stderr
    assert [(message["study"], message["event"], message["complete"]) for message in told] == [
        ("small", "done", True)
    ]
    assert SECRET not in done.stdout + done.stderr
