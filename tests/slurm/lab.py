"""Slurm on three hosts of a local network: a controller, and two nodes that take jobs.

Its configuration, key and state are in a folder of the test's own. Nothing of the machine's own Slurm is
used or changed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.cluster.lan import Host, Lan, wait_until
from tests.conftest import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
BINARIES = f"{Path(ROOT / '.venv' / 'bin')}{os.pathsep}/usr/sbin{os.pathsep}/usr/bin{os.pathsep}/bin"
CONFIG = """
ClusterName=lab
SlurmctldHost={controller}({address})
SlurmUser=root
SlurmdUser=root
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
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=30
MpiDefault=none
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""No systemd, and no control groups. A job that was put back waits for `cred_expire`, two minutes by default."""


def missing() -> list[str]:
    """Return the programs that a lab needs and this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name, path=BINARIES)]


class SlurmLab:
    """Slurm under way on the hosts of a network, until the network ends."""

    def __init__(self, lan: Lan, folder: Path, nodes: int = 2, cpus: int = 2) -> None:
        self.folder = folder
        self.controller = lan.add()
        self.nodes = [lan.add() for _ in range(nodes)]
        self.config = folder / "slurm.conf"
        lines = [f"NodeName={it.name} NodeAddr={it.address} CPUs={cpus} State=UNKNOWN" for it in self.nodes]
        names = {"controller": self.controller.name, "address": self.controller.address, "folder": folder}
        self.config.write_text(CONFIG.format(**names, nodes="\n".join(lines)))
        (folder / "state").mkdir()
        self._start_munge()
        self._spawn(self.controller, "slurmctld", "-D", "-f", self.config)
        for node in self.nodes:
            self._spawn(node, "slurmd", "-D", "-f", self.config, "-N", node.name)
        wait_until(self._is_ready, "the nodes are idle")

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [
            f"--{name}={self.folder}/munge.{kind}"
            for name, kind in (
                *(("key-file", "key"), ("socket", "socket"), ("pid-file", "pid")),
                *(("log-file", "log"), ("seed-file", "seed")),
            )
        ]
        self._spawn(self.controller, "munged", "--foreground", "--force", *files)
        wait_until((self.folder / "munge.socket").exists, "munge is there")

    def _spawn(self, host: Host, *command: str | Path) -> None:
        host.spawn(self.folder / f"{command[0]}-{host.name}.out", *command, env=self.variables())

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"SLURM_CONF": str(self.config), "PATH": BINARIES, "HOME": str(self.folder), **(more or {})}

    def call(self, *command: str | Path) -> str:
        """Run one of Slurm's commands on the controller's host; return what it prints."""
        done = self.controller.call(*command, env=self.variables())
        assert not done.returncode, f"{' '.join(map(str, command))}: {done.stderr}"
        return done.stdout.strip()

    def _is_ready(self) -> bool:
        with suppress(AssertionError):
            return self.call("sinfo", "--noheader", "--format=%t %D") == f"idle {len(self.nodes)}"
        return False
