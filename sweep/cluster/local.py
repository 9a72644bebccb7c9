"""A Ray cluster of our own, on this machine. Only the user of the sweep can reach it.

Its folder, its token and its processes are made here, and they end with the connection.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import utils
from ray._private.node import Node

from sweep.cluster.tokens import JobOfOurs, token_from
from sweep.study.contents import Resources

LOCAL_OBJECTS = 100 * 2**20
"""The bytes of the object store: nothing larger than a report is sent."""
IDLE_SECONDS = 30
"""The time for which Ray's first processes wait for work. By default they end after one second, which passes
while Tune reserves their room."""
RAYS_FOLDER = "ray"
"""The folder in ours that Ray gets: it opens its own to everybody, and ours stays closed."""
LONGEST_PARENT = 24
"""The characters that the path of the parent folder may have: the path of a socket has at most 107, of which
Ray adds 65 and we 18."""


@contextmanager
def local_cluster(resources: Resources, early: Sequence[str], quiet: dict[str, Any]) -> Generator[None]:
    """Start Ray without the services that it does not need; decision 15 has their cost.

    `early` names the modules that its processes import before they are given work.
    """

    def no_dashboard(node: Any, **_: Any) -> None:
        node._webui_url = ""

    for service, instead in (("api_server", no_dashboard), ("monitor", _nothing), ("log_monitor", _nothing)):
        setattr(Node, f"start_{service}", instead)
    # the dashboard's packages count as missing, so that its agent does without them as well
    sys.modules["ray.dashboard.optional_deps"] = None  # type: ignore[assignment]
    _give_sessions()
    system: dict[str, Any] = {"idle_worker_killing_time_threshold_ms": 1000 * IDLE_SECONDS}
    # Ray starts one process for each core. They import early only where every one of them may have a run.
    most = resources.workers or math.inf
    if resources.cpus == 1 and not resources.gpus and most >= (os.cpu_count() or 1):
        system["preload_python_modules"] = list(early)
    # a temporary folder is its owner's alone, whatever the umask
    with (
        tempfile.TemporaryDirectory(prefix="sweep-", dir=_parent(), ignore_cleanup_errors=True) as folder,
        token_from(_new_token(Path(folder))),
    ):
        try:
            # Ray's processes stand where the driver stands now, and import what lies there
            with chdir(folder):
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=LOCAL_OBJECTS,
                    job_config=JobOfOurs(),
                    _system_config=system,
                    _temp_dir=f"{folder}/{RAYS_FOLDER}",
                    **quiet,
                )
            yield
        finally:
            ray.shutdown()


def _parent() -> str:
    """Where Ray's folder is made: Ray's own choice or the temporary folder, if its path is short enough."""
    parents = [os.environ.get("RAY_TMPDIR"), tempfile.gettempdir()]
    fitting = (path for path in parents if path and Path(path).is_dir() and len(path) <= LONGEST_PARENT)
    return next(fitting, "/tmp")  # noqa: S108  (a folder that only we can read is made in it)


def _new_token(folder: Path) -> Path:
    """A file with a token that nobody else can read."""
    file = folder / "token"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(os.urandom(32).hex())
    return file


def _give_sessions() -> None:
    """Start each of Ray's processes in a session of its own; the kernel still ends it with the driver.

    `timeout` and batch systems send a signal to the whole group of the driver. Ray has to outlive it until
    the runs have committed.
    """
    end_with_driver = utils.set_kill_on_parent_death_linux
    if end_with_driver.__name__ == "_leave_session":
        return

    # Ray calls it in the new process
    def _leave_session() -> None:
        os.setsid()
        end_with_driver()

    utils.set_kill_on_parent_death_linux = _leave_session


def _nothing(_: Any) -> None:
    pass
