"""A Ray cluster as it is now: its nodes, their names, and how many runs fit on each.

It knows nothing of Tune. What a driver has reserved there is in `slots`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import ray
from ray import exceptions
from ray._private import state, utils

from sweep.cluster.code import code_to_send
from sweep.cluster.local import local_cluster
from sweep.cluster.tokens import JobOfOurs, use_token
from sweep.errors import AbortSweep
from sweep.study.contents import Resources
from trainer.models import own

FEW = 6
"""The most nodes that a message lists."""


class Cluster:
    """The connection to a Ray cluster, from construction to exit.

    Without an address the cluster is started on this machine, and ends with this process. `early` names the
    modules that the processes of such a cluster import before they are given work.
    """

    def __init__(self, address: str | None, resources: Resources, early: Sequence[str] = ()) -> None:
        self.address, self.resources = address, resources
        self.kept_away: dict[str, str] = {}
        """Why no more work goes to a node, by its id."""
        self._names: dict[str, str] = {}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        setattr(utils, "set_sigterm_handler", _nothing)  # noqa: B010  (Ray's own exits with 15)
        with _in_a_line(address), ExitStack() as until_exit:
            if address:
                use_token(address)
                until_exit.callback(ray.shutdown)
                job, files = JobOfOurs(), {"py_modules": code_to_send(own.allowed())}
                ray.init(address=address, job_config=job, runtime_env=files, **quiet)
            else:
                until_exit.enter_context(local_cluster(resources, early, quiet))
            self._until_exit = until_exit.pop_all()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_exit.close()

    def name(self, node: str) -> str:
        """A node's name for people."""
        if node not in self._names:
            self.alive()
        return self._names.get(node, node[:8])

    def room(self) -> int:
        """The number of runs that fit on the nodes that are there, were nothing else on them."""
        room = sum(map(self.runs_on, self.alive()))
        return min(room, self.resources.workers or room)

    def keep_away(self, node: str, avoided: set[str]) -> bool:
        """Give a node on which attempts keep ending badly no more work.

        False, and nothing done, where no other node has room: the last node stays in use.
        """
        without = avoided | self.kept_away.keys()
        if not any(self.runs_on(other) for other in self.alive() if other["NodeID"] not in without):
            return False
        self.kept_away[node] = "attempts keep ending badly there."
        return True

    def forget_gone(self) -> None:
        """Forget why no work goes to nodes that are gone: a node that comes back has another id."""
        for node in self.kept_away.keys() - {node["NodeID"] for node in self.alive()}:
            del self.kept_away[node]

    @property
    def wanted(self) -> str:
        """The room that a run takes, in words."""
        return f"{_cpus(self.resources.cpus)}, {_gpus(self.resources.gpus)}"

    def free(self, draining: Set[str]) -> str:
        """What is free on each node, in words. On those that are `draining` nothing begins."""
        free: dict[str, dict[str, float]] = state.available_resources_per_node()
        return _listed(
            f"{self.name(node['NodeID'])} {self._free_on(node['NodeID'], free, draining)}"
            for node in self.alive()
            # Ray leaves out some that are drained, and those of which it knows nothing yet
            if node["NodeID"] in free.keys() | draining
        )

    def _free_on(self, node: str, free: Mapping[str, Mapping[str, float]], draining: Set[str]) -> str:
        if node in self.kept_away:
            return "is kept away"
        if node in draining:
            return "is being drained"
        return f"has {_cpus(free[node].get('CPU', 0))}, {_gpus(free[node].get('GPU', 0))} free"

    def no_room(self) -> str:
        """The message that no node has room for a run, with what each node has."""
        nodes = _listed(
            f"{self.name(node['NodeID'])} has {_resource(node, 'CPU'):g} CPUs, "
            f"{_resource(node, 'GPU'):g} GPUs"
            for node in self.alive()
        )
        wanted = f"{self.resources.cpus} CPUs and {self.resources.gpus:g} GPUs (resources in the study)"
        return f"No node has room for a run, which takes {wanted}: {nodes}."

    def alive(self) -> list[dict[str, Any]]:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        self._names |= {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})" for node in nodes
        }
        return nodes

    def runs_on(self, node: dict[str, Any]) -> int:
        """The number of runs that fit on a node."""
        share, gpus = self.resources.gpus, _resource(node, "GPU")
        if not share:
            on_gpus = math.inf
        elif share >= 1:
            on_gpus = gpus // share
        else:
            on_gpus = gpus * math.floor(1 / share + 1e-9)
        return int(min(_resource(node, "CPU") // self.resources.cpus, on_gpus))


def reach(address: str) -> None:
    """Make sure that a cluster answers and takes the user's token. Raises AbortSweep where it does not."""
    with _in_a_line(address):
        use_token(address)


@contextmanager
def _in_a_line(address: str | None) -> Generator[None]:
    """Raise AbortSweep, with a message of one line, where a cluster cannot be reached or started."""
    try:
        yield
    except AbortSweep:
        raise
    except (exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        what = f"no Ray cluster at {address}" if address else "Ray does not start here"
        raise AbortSweep(f"{what}: {str(error).strip().splitlines()[0]}") from error


def _nothing(_: Any) -> None:
    pass


def _listed(nodes: Iterable[str]) -> str:
    """The first few of some nodes, and how many more there are."""
    first = list(nodes)
    more = f"; and {len(first) - FEW} more" if len(first) > FEW else ""
    return "; ".join(first[:FEW]) + more or "there is no node"


def _cpus(number: float) -> str:
    return f"{number:g} CPU" if number == 1 else f"{number:g} CPUs"


def _gpus(number: float) -> str:
    return f"{number:g} GPU" if number == 1 else f"{number:g} GPUs"


def _resource(node: dict[str, Any], kind: str) -> float:
    return node["Resources"].get(kind, 0.0)
