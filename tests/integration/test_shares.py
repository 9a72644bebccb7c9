"""Two sweeps on one cluster share it evenly, and each gives its own numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweep.cluster.slots import poorest
from tests.clusters import head_of, write_token
from tests.sweeps import AS_URGENT, UNHURRIED, Started, rows, write_study


def group(driver: str, state: str, **bundle: float) -> dict[str, Any]:
    return {"name": f"pairsweep/{driver}/1", "state": state, "bundles": {0: {"CPU": 1.0, **bundle}}}


def test_who_waits_for_room_and_has_the_fewest_slots_is_the_poorest() -> None:
    table = [
        *(group("mine/1", "CREATED"), group("mine/1", "PENDING")),
        *(group("a/2", "CREATED"), group("a/2", "CREATED"), group("a/2", "PENDING")),
        *(group("b/3", "CREATED"), group("b/3", "PENDING"), group("b/3", "REMOVED")),
        *(group("content/4", "CREATED"), group("gone/5", "REMOVED")),
        {**group("x/6", "PENDING"), "name": "somebody else's"},
    ]
    assert poorest(table, "pairsweep/mine/1", [{"CPU": 4.0}]) == 1


def test_who_waits_for_what_no_node_of_ours_has_is_given_nothing() -> None:
    table = [group("a/2", "PENDING", GPU=1.0)]
    assert poorest(table, "pairsweep/mine/1", [{"CPU": 4.0}]) is None
    assert poorest(table, "pairsweep/mine/1", [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 2.0}]) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_that_has_all_slots_gives_half_of_them_to_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AS_URGENT.items():
        monkeypatch.setenv(name, value)
    study = write_study(tmp_path, **UNHURRIED, confirm={"seeds": 16})
    with head_of(monkeypatch, write_token(tmp_path), num_cpus=4) as cluster:

        def slots() -> list[int]:
            """How many slots each sweep has, the most first."""
            table: dict[str, dict[str, Any]] = cluster.global_state.placement_group_table()
            created = [group["name"] for group in table.values() if group["state"] == "CREATED"]
            return sorted(Counter(name.split("/")[2] for name in created).values(), reverse=True)

        def started(store: str) -> Started:
            return Started(
                tmp_path, "run", study, "--store", tmp_path / store, "--ray-address", cluster.address
            )

        with started("a") as first:
            first.until(lambda: len(list(tmp_path.glob("a/small/runs/*/attempt-1"))) >= 4)
            assert slots() == [4]
            with started("b") as second:
                first.until(lambda: slots() == [2, 2])
                assert first.wait() == 0, first.log.read_text()
                assert second.wait() == 0, second.log.read_text()
        assert not slots()
    assert len(rows(tmp_path / "a")) == 38
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
