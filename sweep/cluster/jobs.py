"""Studies that were handed in to a cluster. Each is a job of Ray's: a driver on the cluster's head.

The cluster is reached by its dashboard, over HTTP and from anywhere. Whoever has its token can run code on
it: that is what Ray's Jobs API is for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from requests import RequestException

from sweep.cluster.code import code_to_send
from sweep.cluster.tokens import use_token_at
from sweep.errors import AbortSweep, Held
from trainer.models import own

STUDY, STORE = "pairsweep_study", "pairsweep_store"
"""What a job of ours says of itself in its metadata."""
STOP_SECONDS = 60
"""How long a driver has to let its runs commit, after it was told to stop. Ray's own default is 3 s."""
NO_AGENT, AGENT_SECONDS = "No available agent", 30.0
"""What Ray says where no agent takes a job, and how long it may say so."""
ASK_SECONDS = 0.5
"""The time between two questions whether a job has ended."""
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""The modules of Ray that log each step of handing in."""
SCRIPT, START = (
    "start.sh",
    r"""
# The driver gets the Python and the address of the raylet above it. Ray itself would take the `python` on
# the path, and any cluster on the machine.
raylet=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$PPID/status")
of_raylet() { tr '\0' '\n' < "/proc/$raylet/cmdline" | sed -n "s/^--$1=\([^ ]*\).*/\1/p"; }
python=$(of_raylet python_worker_command)
address=$(of_raylet gcs-address)
export RAY_ADDRESS="${address:-$RAY_ADDRESS}"
exec "${python:-python}" -P -m sweep "$@"
""",
)
"""What a job runs: a file beside the study's, and its content."""
LIVE = (JobStatus.PENDING, JobStatus.RUNNING)
STATES = {
    JobStatus.PENDING: "waiting to start",
    JobStatus.RUNNING: "running",
    JobStatus.STOPPED: "stopped",
    JobStatus.SUCCEEDED: "done",
}
ENDS = {1: "ended, some runs failed", 2: "refused", 3: "ended by an error"}
"""What the exit codes of `sweep run` mean."""


@dataclass(frozen=True)
class HandedIn:
    """A study that was handed in, as its job is now."""

    id: str
    study: str
    store: str
    state: str
    is_live: bool
    """Whether it waits or runs."""
    since: str
    """When this state began. Where it runs, when it was handed in."""


class Jobs:
    """The studies that were handed in to the cluster whose dashboard has this URL.

    Raises AbortSweep where the cluster has no token, or another one than the user.
    """

    def __init__(self, dashboard: str) -> None:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        use_token_at(dashboard)
        # Ray believes the variable before the argument
        os.environ["RAY_API_SERVER_ADDRESS"] = dashboard
        with _told(dashboard):
            self.client = JobSubmissionClient(dashboard)
        self.dashboard = dashboard

    def hand_in(self, file: Path, store: str, options: Sequence[str]) -> str:
        """Start `sweep run` with these options on the cluster; return the job's id.

        What travels is the study's file, the code of this process and nothing of its environment. Raises
        Held where the study is live already.
        """
        study = file.stem
        for other in self.all():
            if other.is_live and (other.study, other.store) == (study, store):
                advice = f"`sweep logs {study}` shows how far it is, and `sweep stop {study}` ends it."
                raise Held(f"{study} in {store} is {other.state} since {other.since}. {advice}")
        with tempfile.TemporaryDirectory(prefix="sweep-") as folder, _told(self.dashboard):
            shutil.copyfile(file, Path(folder, f"{study}.yaml"))
            Path(folder, SCRIPT).write_text(START)
            code = code_to_send(own.allowed())
            for module in code:
                # Ray's client takes folders alone; the job's own folder is on the path too
                if Path(module).is_file():
                    shutil.copy(module, folder)
            return self._submit(
                submission_id=f"pairsweep-{study}-{secrets.token_hex(4)}",
                entrypoint=_entrypoint(study, store, options),
                metadata={STUDY: study, STORE: store},
                runtime_env={
                    "working_dir": folder,
                    "py_modules": [module for module in code if Path(module).is_dir()],
                    "env_vars": {
                        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
                        # the driver names the same code again, which Ray would call a conflict
                        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
                    },
                },
            )

    def _submit(self, **job: Any) -> str:
        """Submit a job. The head's agent, which takes it, starts some seconds after the dashboard."""
        until = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                return self.client.submit_job(**job)
            except RuntimeError as error:
                if NO_AGENT not in str(error):
                    raise
                if time.monotonic() > until:
                    raise AbortSweep(
                        f"The Ray cluster at {self.dashboard} has no agent that takes jobs. Its port may be "
                        "taken by another Ray on the head: `ray start --head "
                        "--dashboard-agent-listen-port PORT` gives it another one."
                    ) from None
            time.sleep(ASK_SECONDS)

    def all(self) -> list[HandedIn]:
        """Every study that was handed in, the latest first. A cluster forgets them when its head ends."""
        with _told(self.dashboard):
            jobs: list[JobDetails] = self.client.list_jobs()
        ours = [job for job in jobs if job.submission_id and {STUDY, STORE} <= (job.metadata or {}).keys()]
        return [_handed_in(job) for job in sorted(ours, key=lambda job: job.start_time or 0, reverse=True)]

    def log(self, job: HandedIn) -> str:
        """What a job has printed so far."""
        with _told(self.dashboard):
            return self.client.get_job_logs(job.id)

    def follow(self, job: HandedIn) -> Iterator[str]:
        """What a job prints, piece by piece, until it ends."""
        with _told(self.dashboard), asyncio.Runner() as runner:
            pieces: AsyncIterator[str] = self.client.tail_job_logs(job.id)
            while (piece := runner.run(_next(pieces))) is not None:
                yield piece
            if self.client.get_job_status(job.id) in LIVE:
                raise ConnectionError("it stopped answering before the study ended.")

    def stop(self, job: HandedIn) -> HandedIn:
        """Tell a job to stop, and wait until its runs have committed and it has ended."""
        with _told(self.dashboard):
            self.client.stop_job(job.id)
            while (now := _handed_in(self.client.get_job_info(job.id))).is_live:
                time.sleep(ASK_SECONDS)
        return now


def _entrypoint(study: str, store: str, options: Sequence[str]) -> str:
    """The shell command of a job."""
    # MLflow's database would lie in the job's folder, which goes with the job
    tracker = 'export MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-none}"; ' if "://" in store else ""
    return f"{tracker}exec {shlex.join(['sh', SCRIPT, 'run', f'{study}.yaml', '--store', store, *options])}"


def _handed_in(job: JobDetails) -> HandedIn:
    assert job.submission_id
    assert job.metadata
    ended = ENDS.get(job.driver_exit_code or 0, "died")
    changed = job.end_time or job.start_time
    since = datetime.fromtimestamp(changed / 1000).astimezone() if changed else None
    return HandedIn(
        id=job.submission_id,
        study=job.metadata[STUDY],
        store=job.metadata[STORE],
        state=STATES.get(job.status, ended),
        is_live=job.status in LIVE,
        since=since.isoformat(timespec="seconds") if since else "",
    )


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


@contextmanager
def _told(dashboard: str) -> Generator[None]:
    """Tell what goes wrong between here and the cluster in one line."""
    try:
        yield
    except (RequestException, ConnectionError, RuntimeError, OSError, AuthenticationError) as error:
        line: Any = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise AbortSweep(f"The Ray cluster at {dashboard}: {line}") from None
