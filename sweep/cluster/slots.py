"""The slots of a driver: rooms for one run each, which it reserves on the cluster for itself.

A slot is a placement group of ours. A group that waits is demand, which an autoscaler sees, and which other
drivers see by its name. Decision 24 has the reasons.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ray import exceptions
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from sweep.cluster.examination import Examination
from sweep.cluster.nodes import Cluster

PREFIX = "pairsweep/"
"""How the names of all drivers' groups begin: pairsweep/STUDY/TOKEN/NUMBER."""
MOST_PENDING = 32
"""The most groups that wait at a time."""
LOOK_SECONDS, QUICK_SECONDS = 1.0, 0.1
"""The time from one look at the cluster to the next, and while a slot is expected."""
SOON_SECONDS = 2.0
"""The time for which a slot is expected after it was asked for."""
SURPLUS_SECONDS = 10.0
"""The time after which slots that no run wants are given back, so that a cluster can shrink."""
PATIENCE_SECONDS, SAY_SECONDS = 5.0, 60.0
"""The time without room after which that is said, and then said again."""


@dataclass(eq=False)
class Slot:
    """Room for one run, or the demand for it."""

    group: PlacementGroup
    kept_away: frozenset[str]
    """The nodes that it must not be on."""
    node: str = ""
    """The node it is on; empty while it waits."""
    taken: bool = False
    """Whether a process of Tune is in it."""


class Slots:
    """The slots of a driver, from construction to exit."""

    def __init__(
        self, cluster: Cluster, study: str, examination: Examination, say: Callable[[str], None]
    ) -> None:
        self.cluster, self.examination, self.say = cluster, examination, say
        self._name = f"{PREFIX}{study}/{secrets.token_hex(4)}"
        self._made = 0
        self._slots: list[Slot] = []
        self._back = 0
        """How many slots that processes are in are to be given back, as soon as they end a run."""
        self._draining: frozenset[str] = frozenset()
        """The nodes that will soon be gone."""
        self._looked_at = self._asked_at = self._surplus_since = self._said_at = -math.inf
        self._waits_since = math.inf

    def __enter__(self) -> Slots:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.examination.close()
        # the cluster may be gone, and then they are gone with it
        with suppress(exceptions.RayError, RuntimeError):
            for slot in list(self._slots):
                self._remove(slot)

    @property
    def count(self) -> int:
        """The number of runs that may be under way."""
        return max(0, sum(map(self._usable, self._slots)) - self._back)

    def reserve(self, demand: int, now: float) -> None:
        """Ask for the first slots, for so many runs."""
        self._ask_for(self._wanted(demand), now)

    def look(self, demand: int, now: float, draining: frozenset[str] = frozenset()) -> int:
        """See how the cluster is, and ask for slots for so many runs. Returns how many may be under way.

        Nothing begins on the nodes that are `draining`.
        """
        self._draining = draining
        soon = now - self._asked_at < SOON_SECONDS or self.examination.under_way
        if now - self._looked_at >= (QUICK_SECONDS if soon else LOOK_SECONDS):
            self._looked_at = now
            groups: dict[str, dict[str, Any]] = placement_group_table()
            self._follow(groups)
            self.cluster.forget_gone()
            self.examination.look({slot.node: slot.group for slot in self._slots if slot.node})
            self._settle(demand, poorest(groups.values(), self._name, self._totals()), now)
            self._say_what_is_missing(demand, now)
        return self.count

    # for Tune

    @property
    def free(self) -> Slot | None:
        """A slot that no process is in."""
        return next((slot for slot in self._slots if self._usable(slot) and not slot.taken), None)

    def wants_back(self, slot: Slot) -> bool:
        """Whether a process that is between two runs should end, because its slot is given back."""
        return self._back > 0 or slot.node in self.cluster.kept_away or slot.node in self._draining

    def take(self) -> Slot:
        """Give a process a free slot."""
        slot = self.free
        assert slot
        slot.taken = True
        return slot

    def leave(self, slot: Slot) -> None:
        """Give a slot back that a process has left. The next look asks for another one, if it is wanted.

        Its node may be gone without a word. A new group is only made on a node that answers.
        """
        if slot in self._slots:
            self._back = max(0, self._back - 1)
            self._remove(slot)
            self._looked_at = -math.inf

    def clear(self) -> None:
        """Note that no process is in any slot, because Tune has ended all."""
        for slot in self._slots:
            slot.taken = False

    # inside

    def _usable(self, slot: Slot) -> bool:
        return (
            bool(slot.node)
            and slot.node not in self.cluster.kept_away
            and slot.node not in self._draining
            and self.examination.is_fit(slot.node)
        )

    def _may_go(self, slot: Slot) -> bool:
        return not slot.taken and not self.examination.needs(slot.group)

    def _wanted(self, demand: int) -> int:
        most = self.cluster.resources.workers or math.inf
        # on this machine nobody else wants the room, and processes that stay need not start again
        return int(min(demand, most) if self.cluster.address else self.cluster.room())

    def _totals(self) -> list[Mapping[str, float]]:
        """What the nodes have on which slots of ours are."""
        ours = {slot.node for slot in self._slots}
        return [node["Resources"] for node in self.cluster.alive() if node["NodeID"] in ours]

    def _follow(self, groups: Mapping[str, dict[str, Any]]) -> None:
        """Note where each slot is. Ray moves those of a node that is gone."""
        for slot in list(self._slots):
            group = groups.get(slot.group.id.hex(), {"state": "REMOVED"})
            if group["state"] == "REMOVED":
                self._slots.remove(slot)
            slot.node = group["bundles_to_node_id"][0] if group["state"] == "CREATED" else ""

    def _settle(self, demand: int, poorest: int | None, now: float) -> None:
        """Give back what should not be held, and ask for what is missing.

        `poorest` is what the other driver has that has the fewest slots of those who wait for some.
        """
        kept_away = frozenset(self.cluster.kept_away)
        for slot in list(self._slots):
            unwanted = slot.node in kept_away | self._draining if slot.node else slot.kept_away != kept_away
            if unwanted and self._may_go(slot):
                self._remove(slot)
        wanted, held = self._wanted(demand), sum(bool(slot.node) for slot in self._slots)
        if poorest is not None and held > poorest:
            # what becomes free is for the other one, who would have to share it with what waits here
            for slot in [slot for slot in self._slots if not slot.node and self._may_go(slot)]:
                self._remove(slot)
            wanted = min(wanted, held)
        if len(self._slots) <= wanted:
            self._surplus_since = now
        surplus = len(self._slots) - wanted if now - self._surplus_since >= SURPLUS_SECONDS else 0
        if poorest is not None and held >= poorest + 2:
            surplus = max(surplus, 1)
        waiting_first = sorted(self._slots, key=lambda slot: bool(slot.node))
        for slot in [slot for slot in waiting_first if self._may_go(slot)][:surplus]:
            self._remove(slot)
            surplus -= 1
        self._back = surplus
        self._ask_for(wanted, now)

    def _ask_for(self, wanted: int, now: float) -> None:
        pending = sum(not slot.node for slot in self._slots)
        resources, kept_away = self.cluster.resources, frozenset(self.cluster.kept_away)
        bundle = {"CPU": float(resources.cpus), "GPU": float(resources.gpus)}
        selector = {"ray.io/node-id": f"!in({','.join(sorted(kept_away))})"} if kept_away else {}
        for _ in range(min(wanted - len(self._slots), MOST_PENDING - pending)):
            self._made, self._asked_at = self._made + 1, now
            group = placement_group(
                [{kind: amount for kind, amount in bundle.items() if amount}],
                name=f"{self._name}/{self._made}",
                bundle_label_selector=[selector] if selector else None,  # type: ignore[arg-type]
            )
            self._slots.append(Slot(group, kept_away))

    def _remove(self, slot: Slot) -> None:
        self._slots.remove(slot)
        remove_placement_group(slot.group)

    def _say_what_is_missing(self, demand: int, now: float) -> None:
        """Say once a minute what is waited for, where no run can be under way."""
        if not demand or any(slot.node for slot in self._slots):
            self._waits_since, self._said_at = math.inf, -math.inf
            return
        self._waits_since = min(self._waits_since, now)
        if now - self._waits_since > PATIENCE_SECONDS and now - self._said_at > SAY_SECONDS:
            self._said_at = now
            free = self.cluster.free(self._draining)
            self.say(f"waiting for a node with room for a run ({self.cluster.wanted}): {free}.")


def poorest(
    groups: Iterable[Mapping[str, Any]], mine: str, nodes: Iterable[Mapping[str, float]]
) -> int | None:
    """The fewest slots of another driver that waits for room which the given nodes could have.

    None where nobody else waits for such room. `mine` is the part of a name that this driver's groups share.
    """
    held: Counter[str] = Counter()
    waiting: set[str] = set()
    rooms = list(nodes)
    for group in groups:
        driver = group["name"].rpartition("/")[0]
        if not driver.startswith(PREFIX) or driver == mine or group["state"] == "REMOVED":
            continue
        if group["state"] == "CREATED":
            held[driver] += 1
        elif any(_fits(group["bundles"][0], room) for room in rooms):
            waiting.add(driver)
    return min((held[driver] for driver in waiting), default=None)


def _fits(bundle: Mapping[str, float], room: Mapping[str, float]) -> bool:
    return all(room.get(kind, 0.0) >= amount for kind, amount in bundle.items())
