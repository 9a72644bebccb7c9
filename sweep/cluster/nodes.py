"""A Ray cluster as it is now: its nodes, the room for runs, and whether each node can do the work.

It knows nothing of Tune.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import ray
from ray import exceptions
from ray._private import utils
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.cluster import preflight
from sweep.cluster.code import code_to_send
from sweep.cluster.local import local_cluster
from sweep.cluster.tokens import JobOfOurs, use_token
from sweep.errors import AbortSweep
from sweep.study.contents import Resources
from trainer.data import Data
from trainer.models import own
from trainer.store import Store

ANSWER_SECONDS = 120.0
"""The time that a node has to answer the preflight."""


class Cluster:
    """The connection to a Ray cluster, from construction to exit.

    Without an address the cluster is started on this machine, and ends with this process. `early` names the
    modules that the processes of such a cluster import before they are given work.
    """

    def __init__(self, address: str | None, resources: Resources, early: Sequence[str] = ()) -> None:
        self.address, self.resources = address, resources
        self._names: dict[str, str] = {}
        self._blockers: dict[str, list[Any]] = {}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        setattr(utils, "set_sigterm_handler", _nothing)  # noqa: B010  (Ray's own exits with 15)
        try:
            with ExitStack() as until_exit:
                if address:
                    use_token(address)
                    until_exit.callback(ray.shutdown)
                    job, files = JobOfOurs(), {"py_modules": code_to_send(own.allowed())}
                    ray.init(address=address, job_config=job, runtime_env=files, **quiet)
                else:
                    until_exit.enter_context(local_cluster(resources, early, quiet))
                self._until_exit = until_exit.pop_all()
        except AbortSweep:
            raise
        except (exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            what = f"no Ray cluster at {address}" if address else "Ray does not start here"
            raise AbortSweep(f"{what}: {str(error).strip().splitlines()[0]}") from error

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_exit.close()

    def name(self, node: str) -> str:
        """A node's name for people."""
        if node not in self._names:
            self._alive()
        return self._names.get(node, node[:8])

    def slots(self, avoided: set[str]) -> int:
        """The number of runs that may be under way at the same time, without the avoided nodes."""
        room = sum(self._room(node) for node in self._alive() if node["NodeID"] not in avoided)
        return min(room, self.resources.workers or room)

    def keep_away(self, node: str, avoided: set[str]) -> bool:
        """Occupy all room of a node, so that no attempt is placed there.

        False, and nothing done, where no other node has room: the last node stays in use.
        """
        alive = self._alive()
        if not any(self._room(other) for other in alive if other["NodeID"] not in avoided):
            return False
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        blocker = ray.remote(_Blocker).options(  # type: ignore[attr-defined]
            num_cpus=self.resources.cpus, num_gpus=self.resources.gpus, scheduling_strategy=there
        )
        room = sum(self._room(other) for other in alive if other["NodeID"] == node)
        self._blockers[node] = [blocker.remote() for _ in range(room)]
        return True

    def examine(self, store: Store, data: list[Data], data_dir: Path) -> None:
        """Raise AbortSweep, naming each node that cannot do the work or would do it differently."""
        if not self.slots(set()):
            raise AbortSweep(self._no_room())
        note = f"preflight/{secrets.token_hex(4)}"
        store.write(note, b"")
        try:
            here = preflight.probe(store.where(), data, str(data_dir), 0.0, note, own.allowed())
            answers = {"this machine": here}
            if self.address or self.resources.gpus:
                question = (store.where(), data, str(data_dir), self.resources.gpus, note, own.allowed())
                answers = self._ask_nodes(store, question)
            if problems := preflight.compare(here, answers):
                raise AbortSweep("\n".join(problems))
        finally:
            for name in store.names("preflight"):
                store.delete(name)

    def _no_room(self) -> str:
        """The message that no node has room for a run, with what each node has."""
        nodes = [
            f"{self.name(node['NodeID'])} has {_resource(node, 'CPU'):g} CPUs, "
            f"{_resource(node, 'GPU'):g} GPUs"
            for node in self._alive()
        ]
        wanted = f"{self.resources.cpus} CPUs and {self.resources.gpus:g} GPUs (resources in the study)"
        return f"No node has room for a run, which takes {wanted}: {'; '.join(nodes) or 'there is no node'}."

    def _ask_nodes(self, store: Store, question: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
        """The preflight's answers by the name of each node that has room for a run."""
        answering: dict[str, Any] = {}
        for node in self._alive():
            if self._room(node):
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                probe = ray.remote(preflight.probe).options(
                    num_cpus=0, num_gpus=min(self.resources.gpus, 1), scheduling_strategy=there
                )
                answering[self.name(node["NodeID"])] = probe.remote(*question)
        answers: dict[str, dict[str, Any]] = {}
        for name, answer in answering.items():
            try:
                facts = answers[name] = cast("dict[str, Any]", ray.get(answer, timeout=ANSWER_SECONDS))
            except exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                raise AbortSweep(f"node {name} did not answer: {reason}") from error
            if facts["answer"] and facts["answer"] not in store.names("preflight"):
                facts["problems"].append(
                    f"the driver does not see the file that it wrote in {store.where()}: "
                    "the store must be the same on every node."
                )
        return answers

    def _alive(self) -> list[dict[str, Any]]:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        self._names |= {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})" for node in nodes
        }
        return nodes

    def _room(self, node: dict[str, Any]) -> int:
        """The number of runs that fit on a node."""
        share, gpus = self.resources.gpus, _resource(node, "GPU")
        if not share:
            on_gpus = math.inf
        elif share >= 1:
            on_gpus = gpus // share
        else:
            on_gpus = gpus * math.floor(1 / share + 1e-9)
        return int(min(_resource(node, "CPU") // self.resources.cpus, on_gpus))


class _Blocker:
    """An actor that does nothing and occupies a slot."""


def _nothing(_: Any) -> None:
    pass


def _resource(node: dict[str, Any], kind: str) -> float:
    return node["Resources"].get(kind, 0.0)
