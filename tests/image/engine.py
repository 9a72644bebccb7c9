"""What a container engine does, without a daemon: buildah builds the image, and crun runs containers of it.

Everything is kept in one folder on disk, and is removed with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

TOOLS = ("buildah", "mmdebstrap", "crun")
BASE = "docker.io/library/debian:bookworm-slim"
"""The name that the Dockerfile's base has."""
SETTINGS = {
    "ca": Path("/etc/ssl/certs/ca-certificates.crt"),
    "pip": Path("/etc/pip.conf"),
    "uv": Path("/etc/uv/uv.toml"),
}
"""Where this machine says which certificates and package indexes it uses, by the secret of the build."""
DISK = 30 * 2**30
APART = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
"""What comes before a command, so that all that it starts and mounts ends with who started it."""
ALONE = """
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec "$@"
"""
"""Hide the machine's control groups, where nothing may be left; crun refuses machines with both versions."""


class NoEngine(Exception):
    """The error of a machine on which no image can be built or run, with the reason."""


def _mount(at: str, kind: str, *options: str, source: str | Path = "none") -> dict[str, Any]:
    return {"destination": at, "type": kind, "source": str(source), "options": list(options)}


@dataclass(frozen=True)
class Image:
    """An image: the folder of its files, what it says of itself, and a folder for what is run."""

    files: Path
    config: dict[str, Any]
    folder: Path

    def command(self, work: Path, *arguments: str, env: Mapping[str, str] | None = None) -> list[str]:
        """Return a command as one in a container.

        The container is as with `--read-only --tmpfs /tmp --cap-drop ALL --network none -v WORK:/work` of an
        engine. Without `arguments` it runs the image's own command.
        """
        user, group = map(int, self.config["User"].split(":"))
        own = ("nosuid", "nodev", "mode=1777")
        values = {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])],
                "env": [*self.config["Env"], *(f"{name}={value}" for name, value in (env or {}).items())],
                "cwd": self.config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.files), "readonly": True},
            "mounts": [
                _mount("/proc", "proc"),
                _mount("/dev", "tmpfs", "nosuid", "mode=755"),
                _mount("/dev/shm", "tmpfs", *own, "size=64m"),
                _mount("/tmp", "tmpfs", *own),
                _mount("/work", "bind", "rbind", "rw", source=work),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
        }
        bundle = Path(tempfile.mkdtemp(dir=self.folder))
        (bundle / "config.json").write_text(json.dumps(values))
        crun = ["crun", "--root", str(bundle / "state"), "--cgroup-manager", "disabled"]
        run = [*crun, "run", "--bundle", str(bundle), bundle.name]
        return [*APART, "sh", "-ec", ALONE, "alone", *run]

    def run(
        self, work: Path, *arguments: str, env: Mapping[str, str] | None = None, seconds: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container to its end."""
        command = self.command(work, *arguments, env=env)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)

    def __call__(self, work: Path, *arguments: str, seconds: float = 600) -> str:
        """Run a command that must end well; return its stdout."""
        done = self.run(work, *arguments, seconds=seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Engine:
    """A store of images in a folder of its own, from entering to exit."""

    def __enter__(self) -> Engine:
        missing = [tool for tool in TOOLS if not shutil.which(tool)]
        if missing:
            raise NoEngine(f"there is no {', no '.join(missing)}")
        if os.geteuid():
            raise NoEngine("it is not run by root")
        if shutil.disk_usage("/var/tmp").free < DISK:
            raise NoEngine(f"/var/tmp has less than {DISK >> 30} GiB of room")
        # memory is too small for it, and other temporary folders may be in memory
        self.folder = Path(tempfile.mkdtemp(prefix="image-", dir="/var/tmp"))
        places = ["--root", f"{self.folder}/images", "--runroot", f"{self.folder}/run"]
        self.command = ["buildah", *places, "--storage-driver", "overlay"]
        self.environment = {**os.environ, "TMPDIR": str(self.folder)}
        return self

    def __exit__(self, *_: object) -> None:
        self.buildah("umount", "--all")
        shutil.rmtree(self.folder)

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah on this store; return its stdout. Raises NoEngine where it does not work."""
        return self._tool(*self.command, *arguments)

    def _tool(self, *command: str | Path) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoEngine(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout.strip()

    def base(self) -> None:
        """Make a Debian from its packages, and give it the name of the image's base."""
        tar = self.folder / "base.tar"
        self._tool("mmdebstrap", "--quiet", "--variant=minbase", "bookworm", tar)
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, tar, "/")
        tar.unlink()
        probe = {"User": "0:0", "Entrypoint": [], "Cmd": ["/bin/true"], "Env": [], "WorkingDir": "/"}
        ran = Image(Path(self.buildah("mount", container)), probe, self.folder).run(self.folder)
        if ran.returncode:
            raise NoEngine(f"crun: {ran.stderr.strip()}")
        self.buildah("commit", "--quiet", "--rm", container, BASE)

    def build(self) -> Image:
        """Build the image of the project with the command of its page."""
        secrets = [f"--secret id={name},src={path}" for name, path in SETTINGS.items() if path.exists()]
        options = " ".join(["--isolation chroot --pull=never", *secrets])
        make = ["make", "image", f"ENGINE={' '.join(self.command)}", f"IMAGE_OPTIONS={options}"]
        command = [*APART, *make]
        built = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stdout + built.stderr
        described = json.loads(self.buildah("inspect", "--type", "image", "pairsweep"))
        files = self.buildah("mount", self.buildah("from", "pairsweep"))
        return Image(Path(files), described["OCIv1"]["config"], self.folder)
