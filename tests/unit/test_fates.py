"""What is known of nodes, told by a head of a cluster that is played here."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from sweep.cluster import fates
from sweep.cluster.fates import DEAD, Fates
from sweep.planning.queue import Loss
from sweep.planning.values import Failure

NODES = {bytes([i]): SimpleNamespace(node_manager_hostname=f"host-{i}", state=0) for i in (1, 2, 3)}


class Head:
    """Answers as the head of a cluster of three nodes does, unless it is `away`."""

    def __init__(self) -> None:
        self.nodes, self.draining, self.away = dict(NODES), dict[str, int](), False

    def get_all_node_info(self, timeout: float) -> dict[bytes, Any]:
        if self.away:
            raise RaySystemError("no answer")
        return self.nodes

    def get_draining_nodes(self, timeout: float) -> dict[str, int]:
        return self.draining

    def lose(self, node: int) -> None:
        lost = SimpleNamespace(node_manager_hostname=f"host-{node}", state=DEAD)
        self.nodes = {**self.nodes, bytes([node]): lost}


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    head = Head()
    monkeypatch.setattr(fates, "_RAY", SimpleNamespace(GcsClient=lambda **_: head))
    monkeypatch.setattr(fates, "ASK_SECONDS", 0.001)
    monkeypatch.setattr(fates, "SILENT_SECONDS", 0.1)
    return head


def watching(told: list[str] | None = None) -> Fates:
    told = [] if told is None else told
    return Fates("head:1", tell=lambda: told.append("told"), end=lambda: told.append("ended"))


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def loss(node: str, at: float) -> Loss:
    run: Any = None
    return Loss(run, Failure("lost"), node, at, blames=True, strikes=True, apart=False)


def test_a_node_is_named_and_its_drain_and_its_end_are_seen(head: Head) -> None:
    with watching() as seen:
        assert seen.name("01") == "host-1 (01)"
        assert not seen.is_gone("01")
        head.draining = {"01": 0}
        until(lambda: seen.draining == frozenset(["01"]))
        head.lose(1)
        until(lambda: seen.is_gone("01"))
        until(lambda: not seen.draining)


def test_a_process_that_never_said_where_it_was_is_lost_with_any_node_that_goes_then(head: Head) -> None:
    head.lose(3)
    with watching() as seen:
        now = time.monotonic()
        assert not seen.took(loss("", now))  # the third node went before the sweep
        assert seen.took(loss("03", now))
        head.lose(1)
        until(lambda: seen.is_gone("01"))
        assert seen.took(loss("", now))
        assert not seen.took(loss("02", now))


def test_what_is_known_is_no_newer_than_the_last_answer_of_the_head(head: Head) -> None:
    with watching() as seen:
        head.away = True
        until(lambda: seen.silent)
        known = seen.answered_at
        head.away = False
        until(lambda: not seen.silent)
        assert seen.answered_at > known


def test_a_head_that_stays_away_is_told_once_and_then_ends_the_sweep(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fates, "HEAD_SECONDS", 0.01)
    monkeypatch.setattr(fates, "END_SECONDS", 0.02)
    told: list[str] = []
    with watching(told):
        head.away = True
        until(lambda: "ended" in told)
    assert told[0] == "told"
    assert told.count("told") == 1
