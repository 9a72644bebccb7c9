"""The services of docker/compose.yaml as processes on hosts of a local network, without Docker.

A service gets what Docker would give it: its environment and no other, its command, a user without rights, a
root folder that it cannot write, its secrets, volumes and names, and an address of its own. A program of
this machine stands in for each image. What the file says and this module does not understand is an error.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from tests.cluster.lan import Host, Lan, wait_until
from tests.conftest import ROOT
from tests.sweeps import AS_URGENT

FILE = ROOT / "docker" / "compose.yaml"
VENV = Path(sys.prefix)
PYTHON = Path(sys.base_prefix)
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), Path("/usr/lib/postgresql/bin"))
FROM_POSTGRES_IMAGE = """
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE \\"$POSTGRES_DB\\"" | postgres --single postgres
fi
exec "$@" -c 'listen_addresses=*'
"""
"""What the image of PostgreSQL does with its variables before its server starts."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
OF_TESTS = {"TINI_SUBREAPER": "1", **AS_URGENT}
"""Variables that no container has. The first process here is the host's, so that tini has to ask for what a
first process gets; and Ray's workers would starve beside other tests."""
KEYS = {
    "": {"name", "services", "volumes", "configs", "secrets"},
    "service": {
        *("image", "user", "init", "entrypoint", "command", "environment", "working_dir"),
        *("read_only", "cap_drop", "security_opt", "tmpfs", "shm_size", "volumes", "configs", "secrets"),
        *("ports", "depends_on", "healthcheck", "scale", "restart", "profiles"),
    },
    "healthcheck": {"test", "interval", "timeout", "retries"},
    "file": {"file"},
}
"""The keys that this module understands, by the kind of thing that has them."""


class NotUnderstood(Exception):
    """The error of a compose file that says something for which nothing is done here."""


@dataclass(frozen=True)
class Image:
    """What stands in for an image: its first process, its user, and where its programs are."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    programs: Path


IMAGES = {
    "pairsweep": Image(("tini", "--"), (), "1000:1000", VENV / "bin"),
    "postgres": Image(("sh", "-ec", FROM_POSTGRES_IMAGE, "sh"), ("postgres",), "0:0", POSTGRES),
    "chrislusf/seaweedfs": Image(("weed",), (), "0:0", VENV / "bin"),
}
NEEDS = {"initdb": "postgresql", "tini": "tini", "wget": "wget", "setpriv": "util-linux", "ip": "iproute2"}
"""Programs, and the Debian packages that have them."""


def missing() -> list[str]:
    """The Debian packages that this machine lacks."""
    return [package for name, package in NEEDS.items() if not (which(name) or (POSTGRES / name).exists())]


def read(variables: Mapping[str, str], file: Path = FILE) -> dict[str, Any]:
    """Read a compose file with these variables. Raises NotUnderstood."""
    return checked(interpolated(yaml.safe_load(file.read_text()), variables))


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """Put variables in, as `${NAME}` or `${NAME:-default}`. `$$` stands for a dollar."""

    def put_in(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        if not found["name"]:
            raise NotUnderstood(f"a dollar in {found.string!r}")
        return variables.get(found["name"]) or found["default"] or ""

    if isinstance(value, dict):
        return {key: interpolated(below, variables) for key, below in value.items()}
    if isinstance(value, list):
        return [interpolated(below, variables) for below in value]
    if isinstance(value, str):
        return re.sub(r"\$\$|\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}|\$", put_in, value)
    return value


def checked(project: dict[str, Any]) -> dict[str, Any]:
    """Return a project without its `x-` parts. Raises NotUnderstood."""
    project = {key: value for key, value in project.items() if not key.startswith("x-")}
    _expect("", project)
    for name, service in project["services"].items():
        _expect("service", service)
        _expect("healthcheck", service.get("healthcheck", {}))
        for only, value in (
            ("cap_drop", ["ALL"]),
            ("security_opt", ["no-new-privileges:true"]),
            ("read_only", True),
        ):
            if service[only] != value:
                raise NotUnderstood(f"{name}: {only}: {service[only]}")
        if repository(service) not in IMAGES:
            raise NotUnderstood(f"{name}: image: {service['image']}")
    for kind in ("configs", "secrets"):
        for entry in project[kind].values():
            _expect("file", entry)
    if any(project["volumes"].values()):
        raise NotUnderstood(f"volumes: {project['volumes']}")
    return project


def _expect(kind: str, mapping: Mapping[str, Any]) -> None:
    if unknown := mapping.keys() - KEYS[kind]:
        raise NotUnderstood(f"{kind}: {', '.join(sorted(unknown))}")


def repository(service: Mapping[str, Any]) -> str:
    """The name of a service's image without its tag."""
    return service["image"].partition(":")[0]


class Container:
    """A service's processes on a host, or one of several that are alike."""

    def __init__(self, project: Project, name: str, number: int) -> None:
        self.project, self.name, self.service = project, name, project.services[name]
        self.image = IMAGES[repository(self.service)]
        self.user = self.service.get("user", self.image.user)
        self.host: Host = project.lan.add()
        self.root = self.host.folder / "root"
        self.log = self.host.folder / f"{name}-{number}.log"
        self.main: subprocess.Popen[bytes] | None = None
        self._make_root()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the service's first process, with these arguments in place of its command."""
        self.main = self.host.spawn(self.log, *self.command(*self._first(*arguments)), env={})
        return self.main

    def run(self, *arguments: str, seconds: float = 200) -> subprocess.CompletedProcess[str]:
        """Run the service with these arguments in place of its command, to its end."""
        return self.host.call(*self.command(*self._first(*arguments)), seconds=seconds)

    def execute(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another command in the container, as `docker compose exec` does."""
        return self.host.call(*self.command(*command), seconds=seconds)

    def is_healthy(self) -> bool:
        """Whether its health check says so. Its process must not have ended."""
        assert self.main
        assert self.main.poll() is None, f"{self.name} ended:\n{self.log.read_text()}"
        kind, *test = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        return self.execute(*test).returncode == 0

    def kill(self) -> None:
        """End all its processes at once, as by SIGKILL."""
        self.host.off()

    def start_again(self) -> None:
        """Start what was killed anew, with its volumes."""
        self.host.on()
        self._make_root()
        self.start()

    def terminate(self) -> None:
        """Send SIGTERM to its first process."""
        if self.main and self.main.poll() is None:
            (first,) = Path(f"/proc/{self.main.pid}/task/{self.main.pid}/children").read_text().split()
            subprocess.run(["kill", first], check=True)

    def end(self) -> None:
        """Wait until it has ended, and kill it after Docker's ten seconds."""
        if self.main:
            with suppress(subprocess.TimeoutExpired):
                self.main.wait(10)
        self.host.off()

    def command(self, *command: str) -> list[str]:
        """A command as one within the container's root, as its user and with its environment alone."""
        user, _, group = self.user.partition(":")
        drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        env = [f"{key}={value}" for key, value in self._environment().items()]
        place = f"--chdir={self.service.get('working_dir', '/')}"
        return [
            *("chroot", str(self.root), "setpriv", f"--reuid={user}", f"--regid={group}", *drop),
            *("env", "-i", place, *env, *command),
        ]

    def _first(self, *arguments: str) -> list[str]:
        init = ["tini", "--"] if self.service.get("init") else []
        entrypoint = self.service.get("entrypoint")
        command = arguments or self.service.get("command") or (() if entrypoint else self.image.command)
        return [*init, *(entrypoint or self.image.entrypoint), *command]

    def _environment(self) -> dict[str, str]:
        path = f"{self.image.programs}:/usr/local/bin:/usr/bin:/bin"
        own = {"PATH": path, "HOME": "/tmp", "USER": "sweep", "LANG": "C.UTF-8"}
        return {**own, **OF_TESTS, **self.service.get("environment", {})}

    def _make_root(self) -> None:
        """Mount the container's root folder: this machine's programs, and what the service is given."""
        root = self.root
        root.mkdir(exist_ok=True)
        lines = ["set -e", f"mount -t tmpfs root {root}", f"mkdir {root}/dev {root}/run {root}/var"]
        lines.append(f"ln -s /run {root}/var/run")
        for source in (*SYSTEM, PYTHON, VENV, *(ROOT / part for part in ("sweep", "trainer", "tests"))):
            lines += self._bound(Path(source), str(source), read_only=True)
        lines += self._bound(ROOT / "search_spaces", f"{ROOT}/search_spaces", read_only=True)
        for device in DEVICES:
            lines += self._bound(Path("/dev", device), f"/dev/{device}")
        lines += [f"ln -s /proc/self/fd {root}/dev/fd"]
        shared = self.service.get("shm_size", "64m")
        lines += [f"mkdir {root}/dev/shm", f"mount -t tmpfs -o mode=1777,size={shared} shm {root}/dev/shm"]
        lines += self._bound(self.project.users, "/etc/passwd", read_only=True)
        lines += self._bound(self.project.resolver, "/etc/resolv.conf", read_only=True)
        for volume in self.service.get("volumes", []):
            source, target, *mode = volume.split(":")
            lines += self._bound(self.project.volume(source, self.user), target, read_only=mode == ["ro"])
        for name in self.service.get("secrets", []):
            file = self.project.file("secrets", name)
            lines += self._bound(file, f"/run/secrets/{name}", read_only=True)
        for config in self.service.get("configs", []):
            file = self.project.file("configs", config["source"])
            lines += self._bound(file, config["target"], read_only=True)
        for entry in self.service.get("tmpfs", []):
            folder, _, more = entry.partition(":")
            options = ",".join(["noexec,nosuid,nodev,mode=1777", *([more] if more else [])])
            lines += [f"mkdir -p {root}{folder}", f"mount -t tmpfs -o {options} tmpfs {root}{folder}"]
        lines.append(f"mount -o remount,ro {root}")
        script = "\n".join(lines)
        done = self.host.call("bash", "-c", script)
        assert done.returncode == 0, f"{script}\n{done.stderr}"

    def _bound(self, source: Path, target: str, read_only: bool = False) -> list[str]:
        """The lines that mount a file or folder within the root. A link is made again."""
        inner = shlex.quote(f"{self.root}{target}")
        if source.is_symlink():
            return [f"ln -s {shlex.quote(str(source.readlink()))} {inner}"]
        if source.is_dir():
            make = [f"mkdir -p {inner}"]
        else:
            make = [f"mkdir -p $(dirname {inner})", f"test -e {inner} || touch {inner}"]
        mount = [f"mount --rbind {shlex.quote(str(source))} {inner}"]
        return [*make, *mount, *([f"mount -o remount,bind,ro {inner}"] if read_only else [])]


class Project:
    """The services of a compose file in a network, each started when those that it waits for are healthy."""

    def __init__(self, lan: Lan, folder: Path, variables: Mapping[str, str], secrets: Path) -> None:
        """`secrets` is the folder with the secrets, in place of the one beside the file."""
        self.lan, self.folder, self.secrets = lan, folder, secrets
        self.project = read(variables)
        self.services: dict[str, Any] = self.project["services"]
        self.containers: dict[str, list[Container]] = {}
        self.started: list[str] = []
        self.users, self.resolver = folder / "passwd", folder / "resolv.conf"
        # nobody is there, which is answered at once; names are in /etc/hosts
        self.resolver.write_text("nameserver 127.0.0.1\n")
        ids = {service.get("user", IMAGES[repository(service)].user) for service in self.services.values()}
        lines = [f"user{user.partition(':')[0]}:x:{user}::/tmp:/bin/sh\n" for user in sorted(ids)]
        self.users.write_text("root:x:0:0::/root:/bin/sh\n" + "".join(lines))

    def file(self, kind: str, name: str) -> Path:
        """The file of a secret or of a configuration."""
        file = self.project[kind][name]["file"]
        return self.secrets / name if kind == "secrets" else FILE.parent / file

    def volume(self, source: str, user: str) -> Path:
        """The folder of a volume. A new one belongs to the user whose image has a folder there."""
        if source.startswith((".", "/")):
            return (FILE.parent / source).resolve()
        assert source in self.project["volumes"], source
        folder = self.folder / "volumes" / source
        if not folder.exists():
            folder.mkdir(parents=True)
            subprocess.run(["chown", user, folder], check=True)
        return folder

    def make(self, name: str) -> list[Container]:
        """Make the hosts of a service, and let the others find them by its name."""
        count = int(self.services[name].get("scale", 1))
        made = [Container(self, name, number) for number in range(1, count + 1)]
        with self.lan.hosts_file.open("a") as hosts:
            hosts.writelines(f"{container.host.address} {name}\n" for container in made)
        self.containers[name] = made
        return made

    def up(self) -> None:
        """Start every service without a profile, and wait until all are healthy."""
        waiting = {name for name, service in self.services.items() if "profiles" not in service}
        for name in sorted(waiting):
            self.make(name)
        while waiting:
            ready = [name for name in sorted(waiting) if not waiting & self._waits_for(name)]
            assert ready, f"in a circle: {waiting}"
            for name in ready:
                self.started.append(name)
                for container in self.containers[name]:
                    container.start()
            for name in ready:
                self.until_healthy(name)
            waiting -= set(ready)

    def _waits_for(self, name: str) -> set[str]:
        conditions = self.services[name].get("depends_on", {})
        assert all(how == {"condition": "service_healthy"} for how in conditions.values())
        return set(conditions)

    def until_healthy(self, name: str) -> None:
        """Wait until a service is healthy, as long as its health check may fail."""
        check = self.services[name]["healthcheck"]
        seconds = float(check["interval"].rstrip("s")) * check["retries"]
        for container in self.containers[name]:
            wait_until(container.is_healthy, f"{name} is healthy", seconds)

    def down(self) -> None:
        """Stop every container, those that wait for others first, and those of the command line at once."""
        for name in self.containers.keys() - set(self.started):
            for container in self.containers[name]:
                container.kill()
        for name in reversed(self.started):
            for container in self.containers[name]:
                container.terminate()
            for container in self.containers[name]:
                container.end()
