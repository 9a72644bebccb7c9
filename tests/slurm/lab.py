"""Slurm on three hosts of a local network: a controller, and two nodes that take jobs.

Its configuration, key and state are in a folder of the test's own. Nothing of the machine's own Slurm is
used or changed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.lan import INIT, Host, Lan, wait_until
from tests.conftest import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CORES = 2
"""The cores of a node, as Slurm counts them."""
PATH = os.pathsep.join([str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/bin"])
ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL")
"""The states of a job that does not go on."""
CONFIG = """
ClusterName=lab
SlurmctldHost={controller}({address})
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
KillWait=30
MpiDefault=none
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""A job that was requeued waits for `cred_expire`, two minutes by default. `linuxproc` does without control
groups, which a test cannot count on. 30 s is Slurm's own time from SIGTERM to SIGKILL."""


def missing() -> list[str]:
    """Return the programs that a lab needs and this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


class SlurmLab:
    """Slurm on the hosts of a network. It ends with the network."""

    def __init__(self, lan: Lan, folder: Path) -> None:
        self.folder, self.controller = folder, lan.add()
        self.nodes = [lan.add() for _ in range(2)]
        self.config = folder / "slurm.conf"
        nodes = [f"NodeName={node.name} NodeAddr={node.address} CPUs={CORES}" for node in self.nodes]
        host = {"controller": self.controller.name, "address": self.controller.address, "user": "root"}
        self.config.write_text(CONFIG.format(**host, folder=folder, nodes="\n".join(nodes)))
        (folder / "state").mkdir()
        self._start_munge()
        self._start(self.controller, "slurmctld")
        for node in self.nodes:
            self._start(node, "slurmd", "-N", node.name)
        wait_until(lambda: self.idle, "Slurm's nodes are idle")

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        parts = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        files = [f"--{option}={self.folder}/munge.{ending}" for option, ending in parts.items()]
        self._spawn(self.controller, "munged", "--foreground", "--force", *files)
        wait_until((self.folder / "munge.socket").exists, "munge listens")

    def _start(self, host: Host, program: str, *options: str) -> None:
        self._spawn(host, program, "-D", "-f", str(self.config), *options)

    def _spawn(self, host: Host, *command: str) -> None:
        host.spawn(self.folder / f"{command[0]}-{host.name}.out", *command, env=self.variables())

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config), "PATH": PATH, "HOME": str(self.folder), **(more or {})}

    def call(self, *command: str | Path) -> str:
        """Run one of Slurm's commands on the controller's host; return what it prints."""
        done = self.controller.call(*command, env=self.variables())
        assert not done.returncode, f"{' '.join(map(str, command))}: {done.stderr}"
        return done.stdout.strip()

    @property
    def idle(self) -> bool:
        """Whether both nodes are there, without work."""
        with suppress(AssertionError):
            return self.call("sinfo", "--noheader", "--format=%t %D") == f"idle {len(self.nodes)}"
        return False

    def submit(self, script: str, study: Path, store: Path, *options: str) -> Job:
        """Submit a script of docker/slurm, with the three lines edited that its reader edits."""
        text = (ROOT / "docker" / "slurm" / script).read_text()
        for name, value in {"project": ROOT, "study": study, "store": store}.items():
            text, found = re.subn(rf"(?m)^{name}=\S+", f"{name}={value}", text)
            assert found == 1, f"{script} has no line {name}="
        copy = self.folder / script
        copy.write_text(text)
        log = self.folder / f"job-{time.monotonic_ns()}-%a.log"
        where = ("--parsable", f"--chdir={self.folder}", f"--output={log}")
        return Job(self, self.call("sbatch", *where, *options, copy), log)

    def left(self) -> list[str]:
        """Return the command lines of what runs on the nodes beside Slurm itself."""
        found: list[str] = []
        for node in self.nodes:
            for pid in node.processes():
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    ours = line.startswith(("slurm", "sleep infinity")) or INIT in line
                    found += [] if ours else [line]
        return found


class Job:
    """A job that was submitted."""

    def __init__(self, lab: SlurmLab, number: str, log: Path) -> None:
        self.lab, self.number, self._log = lab, number, log

    @property
    def said(self) -> str:
        """What its script and its steps wrote, of all tasks."""
        logs = sorted(self._log.parent.glob(self._log.name.replace("%a", "*")))
        return "\n".join(log.read_text(errors="replace") for log in logs)

    def states(self) -> list[tuple[str, int]]:
        """Return the state of each task and how often it was requeued."""
        shown = self.lab.call("scontrol", "--oneliner", "show", "job", self.number)
        return [
            (state, int(count)) for state, count in re.findall(r"JobState=(\S+).*?Restarts=(\d+)", shown)
        ]

    def let_time_run_out(self) -> None:
        """Lower its time limit, so that one to two minutes are left."""
        shown = self.lab.call("scontrol", "--oneliner", "show", "job", self.number)
        (minutes,) = re.findall(r" RunTime=00:(\d\d):", shown)
        self.lab.call("scontrol", "update", f"JobId={self.number}", f"TimeLimit={int(minutes) + 2}")

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 200) -> Any:
        """Wait for a condition while the job is there."""

        def found() -> Any:
            value = condition()
            assert value or not self.over, f"the job ended before {what}: {self.states()}\n{self.said}"
            return value

        return wait_until(found, f"{what}\n{self.said}", seconds)

    @property
    def requeued(self) -> bool:
        return all(count for _, count in self.states())

    @property
    def over(self) -> bool:
        return all(state in ENDED for state, _ in self.states())

    def end(self, *states: str) -> None:
        """Wait for its end, and assert the states in which its tasks ended."""
        wait_until(lambda: self.over and self.lab.idle, f"job {self.number} ends", 300)
        assert {state for state, _ in self.states()} == set(states), self.said
