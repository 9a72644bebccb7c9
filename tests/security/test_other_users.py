"""What other users of a machine can reach of a sweep: nothing but what the store's own permissions allow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kept import unpack
from tests.security.victim import PATIENCE_SECONDS, arguments, environment
from tests.sweeps import AS_URGENT, descendants, write_study

NOBODY = 65534
LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1, ::1 and 127.0.0.1 as IPv6, as the kernel writes them."""


@pytest.fixture(scope="module")
def sweeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep under way, which nobody watches, with files that everybody may read by the user's umask."""
    folder = tmp_path_factory.mktemp("sweeping")
    study = write_study(folder, task={"epochs": 100_000, "evaluate_every": 50_000})
    env = {**AS_URGENT, "MLFLOW_TRACKING_URI": "none", "HOME": str(folder / "home")}
    yield from _until(
        lambda: list(folder.rglob("checkpoint-*")), folder, ["run", study, "--store", folder], env
    )


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """`sweep ui`, as soon as its server answers."""
    folder = tmp_path_factory.mktemp("showing")
    command = ["ui", "kept.yaml", "--store", unpack(folder), "--port", "0"]
    yield from _until(lambda: "Ctrl-C ends it" in (folder / "said").read_text(), folder, command, {})


def _until(
    condition: Callable[[], Any], folder: Path, command: list[str | Path], env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "home").mkdir()
    log = folder / "said"
    with log.open("w") as out:
        process = subprocess.Popen(
            arguments("sweep", *command),
            cwd=folder,
            env=environment(env),
            stdout=out,
            stderr=out,
            umask=0,
        )
    try:
        end = time.monotonic() + 2 * PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in [*descendants(process.pid), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def listening(pids: list[int]) -> dict[int, str]:
    """The ports on which processes listen, as `ss -ltnp` shows them, each with the kernel's address."""
    sockets: set[str] = set()
    for pid in pids:
        for entry in _entries(Path(f"/proc/{pid}/fd")):
            with suppress(OSError):
                sockets.add(str(entry.readlink()))
    found: dict[int, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            (
                _,
                local,
                _,
                state,
                *_,
            ) = line.split()[:5]
            inode = line.split()[9]
            if state == LISTENING and f"socket:[{inode}]" in sockets:
                address, _, port = local.partition(":")
                found[int(port, 16)] = address
    return found


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def our_folder(pids: list[int]) -> Path:
    """The folder in which the Ray of a sweep, and its token, are."""
    for pid in pids:
        with suppress(OSError):
            for part in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"):
                if part.startswith("--temp_dir="):
                    return Path(part.removeprefix("--temp_dir=")).parent
    raise AssertionError("no raylet runs")


def test_a_sweep_listens_on_loopback_alone(sweeping: subprocess.Popen[bytes]) -> None:
    found = listening([sweeping.pid, *descendants(sweeping.pid)])
    assert len(found) > 2
    assert {port: address for port, address in found.items() if address not in LOOPBACK} == {}


def test_mlflow_listens_on_loopback_alone(showing: subprocess.Popen[bytes]) -> None:
    found = listening([showing.pid, *descendants(showing.pid)])
    assert found
    assert {port: address for port, address in found.items() if address not in LOOPBACK} == {}


def test_rays_folder_is_the_users_alone_whatever_the_umask(sweeping: subprocess.Popen[bytes]) -> None:
    folder = our_folder(descendants(sweeping.pid))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "token").stat().st_mode & 0o777 == 0o600


def test_a_sweep_leaves_no_token_at_home(sweeping: subprocess.Popen[bytes]) -> None:
    home = environment_of(sweeping.pid)["HOME"]
    assert not list(Path(home).rglob("auth_token"))


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


# an interpreter in somebody's home cannot be started as another user, so it becomes one
COMMAND_RAY = """
import os, sys
os.environ["RAY_AUTH_MODE"] = sys.argv[2]
if sys.argv[2] == "token":
    os.environ["RAY_AUTH_TOKEN"] = "0" * 64
from ray import exceptions
from ray._raylet import GcsClient
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, 5))
except exceptions.AuthenticationError:
    print("refused")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_another_user_cannot_command_ray(sweeping: subprocess.Popen[bytes], mode: str) -> None:
    pids = descendants(sweeping.pid)
    gcs = [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().startswith("gcs_server")]
    ports = listening(gcs)
    answers = [
        _run([sys.executable, "-c", COMMAND_RAY, f"127.0.0.1:{port}", mode]).stdout.strip() for port in ports
    ]
    assert "refused" in answers
    assert set(answers) <= {"refused", ""}, answers


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_reads_neither_the_token_nor_a_socket(sweeping: subprocess.Popen[bytes]) -> None:
    folder = our_folder(descendants(sweeping.pid))
    for path in (folder, folder / "token"):
        looked = as_nobody(["cat" if path.name == "token" else "ls", str(path)])
        assert looked.returncode, looked.stdout
        assert "Permission denied" in looked.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_store_in_a_folder_of_its_users_own_is_closed_to_others(tmp_path: Path) -> None:
    """Files of a store get the permissions that the user's umask leaves: the folder decides."""
    store = unpack(tmp_path)
    (file,) = store.glob("kept/study.json")
    store.chmod(0o700)
    assert as_nobody(["cat", str(file)]).returncode


def as_nobody(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as the user `nobody`."""
    return _run(command, user=NOBODY, group=NOBODY, extra_groups=[])


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of ours in the environment."""
    env = {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C"}
    more: dict[str, Any] = {"env": env, "cwd": "/", "timeout": PATIENCE_SECONDS, **options}
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)
