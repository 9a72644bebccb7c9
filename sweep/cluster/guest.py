"""An attempt whose run is trained in a host: a process that belongs to a GPU and trains several runs.

The attempt's own process trains nothing. It forwards what it is asked to the host, and never imports torch.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from trainer.reports import Began, Failed, Report
from trainer.worker import LOG_LINES, Job

MPS_FOLDER = "/tmp/nvidia-mps"  # noqa: S108  (NVIDIA's own choice)
"""Where MPS listens unless CUDA_MPS_PIPE_DIRECTORY names another folder."""


class Guest:
    """The work on one attempt, with the methods of a `Worker`. The driver gives it `host` after a report."""

    def __init__(self, job: Job, attempt: str) -> None:
        self.job, self.attempt = job, attempt
        self.host: Any = None
        self._inside = False

    def step(self) -> Report:
        """Ask the host for the run's next report. The first report comes at once, and asks for a host."""
        if self.host is None:
            gpu = ray.get_runtime_context().get_accelerator_ids()["GPU"][0]
            return Began(run_id=self.job.run_id, messages=[], pid=os.getpid(), gpu=gpu)
        try:
            if self._inside:
                return ray.get(self.host.step.remote(self.attempt))
            self._inside = True
            return ray.get(self.host.begin.remote(self.attempt, self.job))
        except exceptions.RayError as error:
            text = str(error)
            log = text.splitlines()[-LOG_LINES:]
            return Failed(
                run_id=self.job.run_id, messages=[], reason=why_gone(text), log=log, machine=True, fatal=True
            )

    def stop(self) -> None:
        """Let the host commit the last whole epoch."""
        if self._inside:
            # nobody would hear of an error any more, and the next attempt goes on from the last commit
            with suppress(exceptions.RayError):
                ray.get(self.host.leave.remote(self.attempt))


def mps_runs() -> bool:
    """Whether NVIDIA's MPS runs on this machine, so that processes share a GPU as well as threads do."""
    return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_FOLDER), "control").exists()


def why_gone(text: str) -> str:
    """The reason why a process is gone, in words for people. `text` is Ray's message."""
    return next((reason for sign, reason in _SIGNS.items() if sign in text), _NO_SIGN)


NODE_GONE = "its node is gone."
NO_MEMORY = "it was ended because its node was out of memory."
_NO_SIGN = "its process ended: it was killed, or ran out of memory."
_SIGNS = {
    "node was dead": NODE_GONE,
    "node has died": NODE_GONE,
    "node died": NODE_GONE,
    "OutOfMemory": NO_MEMORY,
    "memory pressure": NO_MEMORY,
}
