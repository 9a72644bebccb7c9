"""Hosts of a local network on this machine, each in Linux namespaces of its own, with cables to pull out.

A host has its own address, processes, host name and folder `/tmp/ray`, and shares the other files. No packet
leaves the network. The kernel ends all of it when the process that made it is gone, however it ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster import bad_cable
from tests.clusters import SOON_MISSED, write_token
from tests.conftest import ROOT
from tests.sweeps import descendants, environment, sweep_command

NETWORK = "10.77.0"
"""The first three parts of every address."""
PORT = 6379
"""The port of Ray's head."""
OBJECTS = 80 * 2**20
"""The bytes of a host's object store: Ray's smallest is some 75 MB."""
RAY = str(Path(sys.executable).parent / "ray")
INIT = """
set -e
mkdir -p /tmp/ray "$FOLDER/ray"
mount --bind "$FOLDER/ray" /tmp/ray
mount --bind "$HOSTS" /etc/hosts
hostname "$NAME"
ip link set lo up
echo ready
sleep infinity & wait
"""
"""What the first process of a host does. A shell also takes the exit codes of processes without a parent."""

FORK = ("--pid", "--fork", "--kill-child")
SWITCH = ("--net", *FORK, "bash", "-c", "echo ready; sleep infinity & wait")


class NoNamespaces(Exception):
    """The error of a machine on which no hosts can be made, with the reason."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespaces(f"`{' '.join(command)}`: {done.stderr.strip() or done.returncode}")


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """Wait for a condition and return its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found


class Space:
    """A process that keeps namespaces open. They and all processes in them end with it."""

    def __init__(self, command: list[str], env: Mapping[str, str] | None = None) -> None:
        # the kernel kills it when this process ends, also by SIGKILL
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout
        assert self.process.stderr
        if self.process.stdout.readline() != "ready\n":
            self.process.kill()
            raise NoNamespaces(f"`{' '.join(command[:12])}`: {self.process.stderr.read().strip()}")

    @property
    def pid(self) -> int:
        """The process that stands in the namespaces: the last one in a chain of forks."""
        pid = self.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if Path(f"/proc/{children[0]}/comm").read_text().strip() not in ("unshare", "bash"):
                break
            pid = int(children[0])
        return pid

    def end(self) -> None:
        """Kill everything in the namespaces at once."""
        below = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()
        wait_until(lambda: not any(lives(pid) for pid in below), "processes of a host end")


def lives(pid: int) -> bool:
    """Whether a process runs. One that has ended is still listed until its parent takes its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Host:
    """A machine in the network."""

    def __init__(self, lan: Lan, number: int) -> None:
        self.lan, self.number, self.name = lan, number, f"h{number}"
        self.address, self.port = f"{NETWORK}.{number}", f"p{number}"
        self.folder = lan.folder / self.name
        self.folder.mkdir()
        self.cable: subprocess.Popen[bytes] | None = None
        """The forwarder, where the cable is a bad one."""
        self._started: list[subprocess.Popen[bytes]] = []
        self.on()

    def on(self, loss: float = 0, delay: float = 0, seed: int = 0) -> None:
        """Switch the host on. With `loss` and `delay` (seconds) its cable loses and delays packets."""
        spaces = ("--net", "--mount", "--uts", "--ipc", *FORK, "--mount-proc")
        command = ["unshare", *spaces, "bash", "-c", INIT]
        env = {"FOLDER": str(self.folder), "HOSTS": str(self.lan.hosts_file), "NAME": self.name}
        self.space = Space([*self.lan.enter, *command], env)
        self.pid = self.space.pid
        if loss or delay:
            ends = self.lan.pid, self.pid, self.port
            self.cable = bad_cable.start(self.lan.enter, *ends, loss, delay, seed)
        else:
            peer = ("peer", "name", "eth0", "netns", str(self.pid))
            self.lan.run("ip", "link", "add", self.port, "type", "veth", *peer)
        self.lan.run("ip", "link", "set", self.port, "master", "switch", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "dev", "eth0")

    def off(self) -> None:
        """Take away its power: it sends no farewell, and all its processes are gone."""
        with suppress(NoNamespaces):
            self.cable_out()
        self.space.end()
        for process in self._started:
            process.wait()
        self._started.clear()
        if self.cable:
            self.cable.kill()
            self.cable.wait()
            self.cable = None
        # the kernel may take its time to remove the pair
        with suppress(NoNamespaces):
            self.lan.run("ip", "link", "delete", self.port)

    def cable_out(self) -> None:
        self.lan.run("ip", "link", "set", self.port, "down")

    def cable_in(self) -> None:
        self.lan.run("ip", "link", "set", self.port, "up")

    def freeze(self) -> None:
        """Stop all its processes; `thaw` lets them go on."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)
        for process in self._started:
            # nsenter, which stands outside, has stopped with what it started
            process.send_signal(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self) -> list[int]:
        """Return its processes by their numbers outside, without the first."""
        space = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*/ns/pid"):
            with suppress(OSError):
                if path.readlink() == space and int(path.parts[2]) != self.pid:
                    found.append(int(path.parts[2]))
        return found

    def command(self, *arguments: str | Path) -> list[str]:
        """Return a command as one that runs on this host. It ends with the host."""
        user = ["--user", "--preserve-credentials"] if self.lan.enter else []
        inside = ["--target", str(self.pid), *user, "--net", "--mount", "--uts", "--ipc", "--pid"]
        return ["nsenter", *inside, "--", *map(str, arguments)]

    def run(self, *arguments: str | Path) -> None:
        _run(*self.command(*arguments))

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables for a command of the sweep, with the token of the network's cluster."""
        # tests let Ray listen on loopback alone, and these hosts have to reach each other
        ours = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_TMPDIR": "/tmp"}
        return environment({**self.lan.auth, **ours, **(more or {})})

    def call(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, seconds: float = 200
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host to its end."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=self.environment(env),
            timeout=seconds,
        )

    def spawn(
        self, log: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on the host; its output goes to a file."""
        with log.open("a") as out:
            process = subprocess.Popen(
                self.command(*arguments), stdout=out, stderr=out, env=self.environment(env), cwd=ROOT
            )
        self._started.append(process)
        return process

    def sweep(self, *arguments: str | Path, seconds: float = 200) -> subprocess.CompletedProcess[str]:
        """Run the command `sweep` on the host to its end."""
        return self.call(*sweep_command(*arguments), seconds=seconds)

    def start_ray(self, *options: str, env: Mapping[str, str] | None = None) -> None:
        """Start Ray as a node of the head's cluster, and again whenever it ends, as a service would be."""
        ray = self._ray("--address", f"{self.lan.hosts[0].address}:{PORT}", "--num-cpus", "1", *options)
        again = 'while :; do "$@" || echo "ray ended with $?"; sleep 1; done'
        self.spawn(self.folder / "ray.log", "bash", "-c", again, "again", *ray, "--block", env=env)

    def start_head(self, *options: str, cpus: int = 0, env: Mapping[str, str] | None = None) -> None:
        """Start Ray's head. Its parts do not look after each other, so that a drill may replace one."""
        system = ("--system-config", json.dumps(SOON_MISSED), "--include-dashboard", "false")
        ray = self._ray("--head", "--port", str(PORT), "--num-cpus", str(cpus), *system, *options)
        log = self.folder / "ray.log"
        code = self.spawn(log, *ray, env=env).wait(120)
        assert code == 0, log.read_text()

    def _ray(self, *options: str) -> list[str]:
        own = ["--node-ip-address", self.address, "--disable-usage-stats"]
        return [RAY, "start", *own, "--object-store-memory", str(OBJECTS), *options]


class Lan:
    """A network of hosts around a switch, from entering to exit."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.enter: list[str] = []
        """What comes before a command that makes namespaces: nothing for root."""

    def __enter__(self) -> Lan:
        try:
            if os.geteuid():
                self.switch = Space(["unshare", "--user", "--map-root-user", *SWITCH])
                user = ["--target", str(self.switch.pid), "--user", "--preserve-credentials"]
                self.enter = ["nsenter", *user]
            else:
                self.switch = Space(["unshare", *SWITCH])
        except OSError as error:
            raise NoNamespaces(str(error)) from error
        self.pid = self.switch.pid
        self._folder = tempfile.TemporaryDirectory(prefix="lan-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.hosts_file = self.folder / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{NETWORK}.{number} h{number}" for number in range(1, 10))]
        self.hosts_file.write_text("\n".join(lines) + "\n")
        self.auth = write_token(self.folder)
        try:
            self.run("ip", "link", "add", "switch", "type", "bridge")
            self.run("ip", "link", "set", "switch", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            with suppress(ProcessLookupError):
                host.off()
        self.switch.end()
        self._folder.cleanup()

    def run(self, *command: str) -> None:
        """Run a command at the switch."""
        user = ["--user", "--preserve-credentials"] if self.enter else []
        _run("nsenter", "--target", str(self.pid), *user, "--net", "--", *command)

    def add(self) -> Host:
        """Plug in another host."""
        host = Host(self, len(self.hosts) + 1)
        self.hosts.append(host)
        return host
