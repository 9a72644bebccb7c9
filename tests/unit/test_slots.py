"""The rules of slots, on a pretended cluster: how many are asked for, which are given back, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.cluster import slots as module
from sweep.cluster.slots import MOST_PENDING, Slots
from sweep.study.contents import Resources


@dataclass
class Pretended:
    """Ray's table of groups, where a group is created as soon as one of the nodes has room for it."""

    room: dict[str, int]
    table: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    numbers: Iterator[int] = field(default_factory=count)

    def make(self, bundles: Any, name: str, bundle_label_selector: Any = None) -> Any:
        key = str(next(self.numbers))
        away = bundle_label_selector[0]["ray.io/node-id"] if bundle_label_selector else ""
        self.table[key] = {"name": name, "bundles": {0: bundles[0]}, "state": "PENDING", "away": away}
        return SimpleNamespace(id=SimpleNamespace(hex=lambda: key), key=key)

    def remove(self, group: Any) -> None:
        self.table[group.key]["state"] = "REMOVED"

    def look(self) -> dict[str, dict[str, Any]]:
        for group in self.table.values():
            for node, room in self.room.items():
                if group["state"] == "PENDING" and node not in group["away"] and self.on(node) < room:
                    group |= {"state": "CREATED", "bundles_to_node_id": {0: node}}
        return dict(self.table)

    def on(self, node: str) -> int:
        placed = (group for group in self.table.values() if group["state"] == "CREATED")
        return sum(group["bundles_to_node_id"][0] == node for group in placed)

    def ours(self, state: str) -> int:
        return sum(
            group["state"] == state and group["name"].startswith("pairsweep/mine/")
            for group in self.table.values()
        )


class Sweep:
    """The slots of a sweep on a pretended cluster of these nodes, and its clock."""

    def __init__(self, ray: Pretended, workers: int | None = None) -> None:
        self.ray, self.now, self.said = ray, 0.0, list[str]()
        self.examined: set[str] = set()
        """The nodes that are examined now."""
        self.cluster: Any = SimpleNamespace(
            address="somewhere",
            resources=Resources(workers=workers),
            kept_away={},
            forget_gone=lambda: None,
            wanted="1 CPU",
            free=lambda _: "none",
            alive=lambda: [{"NodeID": node, "Resources": {"CPU": room}} for node, room in ray.room.items()],
        )
        examination: Any = SimpleNamespace(
            is_fit=lambda node: node not in self.examined,
            look=lambda _: None,
            under_way=False,
            needs=lambda group: ray.table[group.key].get("bundles_to_node_id", {}).get(0) in self.examined,
        )
        self.slots = Slots(self.cluster, "mine", examination, self.said.append)

    def look(self, demand: int, seconds: float = 1.0) -> int:
        """Look after so much time, and again a second later, when what was asked for may be there."""
        self.now += seconds
        self.slots.look(demand, self.now)
        self.now += 1
        return self.slots.look(demand, self.now)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended({"a": 4})
    monkeypatch.setattr(module, "placement_group", pretended.make)
    monkeypatch.setattr(module, "remove_placement_group", pretended.remove)
    monkeypatch.setattr(module, "placement_group_table", pretended.look)
    return pretended


def test_as_many_slots_are_asked_for_as_runs_are_wanted_and_few_wait_at_a_time(ray: Pretended) -> None:
    sweep = Sweep(ray)
    assert sweep.look(demand=3) == 3
    assert sweep.look(demand=1000) == 4
    assert (ray.ours("CREATED"), ray.ours("PENDING")) == (4, MOST_PENDING)
    assert Sweep(ray, workers=2).slots._wanted(1000) == 2  # pyright: ignore[reportPrivateUsage]


def test_slots_that_no_run_wants_for_ten_seconds_are_given_back_but_for_those_in_use(ray: Pretended) -> None:
    sweep = Sweep(ray)
    assert sweep.look(demand=4) == 4
    used, between = sweep.slots.take(), sweep.slots.take()
    assert sweep.look(demand=1, seconds=8) == 4
    assert sweep.look(demand=1) == 1
    assert ray.ours("CREATED") == 2
    assert sweep.slots.wants_back(between)
    sweep.slots.leave(between)
    assert not sweep.slots.wants_back(used)
    assert (sweep.slots.count, ray.ours("CREATED")) == (1, 1)


def test_a_sweep_with_two_slots_more_than_one_that_waits_gives_back_one_at_a_time(ray: Pretended) -> None:
    sweep = Sweep(ray)
    assert sweep.look(demand=1000) == 4
    held = [sweep.slots.take() for _ in range(4)]
    ray.make([{"CPU": 1.0}], "pairsweep/other/1/1")
    ray.make([{"CPU": 1.0}], "pairsweep/other/1/2")
    ray.make([{"CPU": 1.0}], "pairsweep/other/1/3")
    for left in (3, 2):
        assert sweep.look(demand=1000) == left
        assert ray.ours("PENDING") == 0
        assert sweep.slots.wants_back(held[-1])
        sweep.slots.leave(held.pop())
        ray.look()
    assert sweep.look(demand=1000) == 2
    assert not sweep.slots.wants_back(held[0])
    assert ray.ours("CREATED") == 2


def test_a_node_that_is_kept_away_loses_its_free_slots_and_gets_no_others(ray: Pretended) -> None:
    ray.room = {"a": 2, "b": 2}
    sweep = Sweep(ray)
    assert sweep.look(demand=4) == 4
    used = sweep.slots.take()
    sweep.cluster.kept_away["a"] = "it is no good."
    assert sweep.look(demand=4) == 2
    assert (ray.on("a"), ray.on("b")) == (1, 2)
    assert sweep.slots.wants_back(used)
    sweep.slots.leave(used)
    assert sweep.look(demand=4) == 2
    assert (ray.on("a"), ray.on("b")) == (0, 2)


def test_a_slot_in_which_a_node_is_examined_stays_and_no_run_gets_it(ray: Pretended) -> None:
    sweep = Sweep(ray)
    sweep.examined = {"a"}
    assert sweep.look(demand=2) == 0
    assert sweep.slots.free is None
    sweep.look(demand=0, seconds=11)
    assert ray.ours("CREATED") == 2
    sweep.examined = set()
    assert sweep.look(demand=2) == 2


def test_a_sweep_without_room_says_once_a_minute_what_it_waits_for(ray: Pretended) -> None:
    ray.room = {}
    sweep = Sweep(ray)
    for _ in range(50):
        sweep.look(demand=1)
    assert sweep.said == ["waiting for a node with room for a run (1 CPU): none."] * 2
