"""The examination of a cluster's nodes: no work goes to a node before it has shown that it can do the work.

Each node is examined once, whenever it comes, in the first slot that the driver gets there.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweep.cluster import preflight
from sweep.cluster.nodes import Cluster
from sweep.errors import AbortSweep
from trainer.data import Data
from trainer.models import own
from trainer.plain import one_line
from trainer.store import Store

ANSWER_SECONDS = 120.0
"""The time that a node has to answer."""


@dataclass(frozen=True)
class _Question:
    """A question to a node that is not answered yet."""

    answer: Any
    group: Any
    """The placement group in which the node answers."""
    note: str
    asked_at: float
    """When it was asked, by `time.time`, as nodes tell their clocks."""


class Examination:
    """Which nodes may be given work. Those that may not are in the cluster's `kept_away`, with reasons."""

    def __init__(
        self, cluster: Cluster, store: Store, data: list[Data], data_dir: Path, say: Callable[[str], None]
    ) -> None:
        self.cluster, self.store, self.say = cluster, store, say
        self.needed = bool(cluster.address or cluster.resources.gpus)
        """Whether nodes are examined. The CPUs of this machine answer as the driver itself does."""
        self._question = (store.where(), data, str(data_dir))
        self._here: dict[str, Any] = {}
        """The driver's own answers."""
        self._device: str | None = None
        """The GPU of the node that passed first."""
        self._fit: set[str] = set()
        self._open: dict[str, _Question] = {}
        self._asked_again: set[str] = set()

    def begin(self) -> None:
        """Answer the questions here. Raises AbortSweep where the runs are trained here and cannot be."""
        note = self._new_note()
        try:
            self._here = preflight.probe(*self._question, 0.0, note, own.allowed())
        finally:
            self._remove(note)
        if not self.needed and (problems := preflight.compare(self._here, self._here)):
            raise AbortSweep("\n".join(f"node this machine: {problem}" for problem in problems))

    def is_fit(self, node: str) -> bool:
        """Whether a node may be given work."""
        return not self.needed or node in self._fit

    @property
    def under_way(self) -> bool:
        """Whether a node has not answered yet."""
        return bool(self._open)

    def needs(self, group: Any) -> bool:
        """Whether a node answers in this group now, so that it has to stay."""
        return any(question.group is group for question in self._open.values())

    def look(self, groups: Mapping[str, Any]) -> None:
        """Ask each new node, in the given group of its own, and hear what the others have answered.

        Raises AbortSweep where every node that is there was examined and none can do the work.
        """
        if not self.needed:
            return
        for node, group in groups.items():
            if node not in self._fit and node not in self._open and node not in self.cluster.kept_away:
                self._ask(node, group)
        alive = {node["NodeID"] for node in self.cluster.alive() if self.cluster.runs_on(node)}
        for node in list(self._open):
            if node not in alive:
                self._remove(self._open.pop(node).note)
            elif (problems := self._heard(node)) is not None:
                self._judge(node, problems)
        if alive and not self._fit and alive <= self.cluster.kept_away.keys():
            raise AbortSweep(
                "\n".join(
                    f"node {self.cluster.name(node)}: {self.cluster.kept_away[node]}" for node in alive
                )
            )

    def close(self) -> None:
        """Remove what open questions left in the store."""
        for question in self._open.values():
            self._remove(question.note)

    def _ask(self, node: str, group: Any) -> None:
        note, gpus = self._new_note(), self.cluster.resources.gpus
        there = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        probe: Any = ray.remote(preflight.probe)
        asked = probe.options(num_cpus=0, num_gpus=min(gpus, 1), scheduling_strategy=there)
        answer = asked.remote(*self._question, gpus, note, own.allowed())
        self._open[node] = _Question(answer, group, note, time.time())

    def _heard(self, node: str) -> list[str] | None:
        """The problems with a node by its answer; None while it has time to answer."""
        question, now = self._open[node], time.time()
        if not ray.wait([question.answer], timeout=0)[0]:
            late = now - question.asked_at > ANSWER_SECONDS
            return [f"it did not answer within {ANSWER_SECONDS:.0f} s."] if late else None
        try:
            facts: dict[str, Any] = ray.get(question.answer)
        except exceptions.RayError as error:
            if node not in self._asked_again:
                # a process can be lost on a good node, too
                self._asked_again.add(node)
                self._remove(self._open.pop(node).note)
                return None
            return [f"it did not answer: {str(error).strip().splitlines()[0]}"]
        if facts["answer"] and facts["answer"] not in self.store.names("preflight"):
            facts["problems"].append(
                f"the driver does not see the file that it wrote in {self.store.where()}: "
                "the store must be the same on every node."
            )
        # the node looked at its clock at some moment between question and answer
        clock = min(max(facts["clock"], question.asked_at), now)
        problems = preflight.compare({**self._here, "clock": clock, "device": self._device}, facts)
        if not problems:
            self._device = facts.get("device")
        return problems

    def _judge(self, node: str, problems: list[str]) -> None:
        self._remove(self._open.pop(node).note)
        if not problems:
            self._fit.add(node)
            return
        reason = " ".join(" ".join(problems).split())
        self.cluster.kept_away[node] = one_line(reason)
        self.say(one_line(f"node {self.cluster.name(node)}: {reason.rstrip('.')}; no work goes to it."))

    def _new_note(self) -> str:
        note = f"preflight/{secrets.token_hex(4)}"
        self.store.write(note, b"")
        return note

    def _remove(self, note: str) -> None:
        """Remove a note of ours, and what a node wrote beside it."""
        for name in self.store.names("preflight"):
            if name.startswith(note):
                self.store.delete(name)
