"""A real sweep with nine secrets: nothing that it writes, prints or starts shows one of them."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.security.victim import PATIENCE_SECONDS, arguments, environment, sweep
from tests.sweeps import AS_URGENT, descendants, write_study

CANARIES = {
    name: f"canary{number}of9sings"
    for number, name in enumerate(
        (
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "RAY_AUTH_TOKEN",
            "SWEEP_NOTIFY_URL",
            "a password before the @ of an address",
            "a password in the query of an address",
        ),
        start=1,
    )
}
*NAMED, IN_ADDRESS, IN_QUERY = CANARIES.values()


class Sampled(Thread):
    """The arguments of the processes under one, and the files of its Ray, as they are while it runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.over = pid, Event()
        self.found: set[str] = set()
        self.commands: set[str] = set()
        self.files = 0

    def run(self) -> None:
        while not self.over.wait(0.2):
            for pid in [self.pid, *descendants(self.pid)]:
                with suppress(OSError):
                    self.commands.add(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
            for folder in {Path(part[11:]) for line in self.commands for part in _temporary(line)}:
                self.look(folder)
        self.found |= {command for command in self.commands if shows(command.encode())}

    def look(self, folder: Path) -> None:
        """Look into every file of a folder. The sockets and pipes in it have no content."""
        for parent, _, names in os.walk(folder):
            for path in (Path(parent, name) for name in names):
                with suppress(OSError):
                    if path.is_file():
                        self.files += 1
                        self.found |= {str(path)} if shows(path.read_bytes()) else set()


def _temporary(command: str) -> list[str]:
    return [part for part in command.split("\0") if part.startswith("--temp_dir=")]


def shows(content: bytes) -> list[str]:
    return [name for name, canary in CANARIES.items() if canary.encode() in content]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sampled]:
    """The folder of a sweep that began with the secrets, and ended, and what was seen of it meanwhile."""
    folder = tmp_path_factory.mktemp("swept")
    # SQLAlchemy hands both to SQLite, which knows neither: a stand-in for a database with a password
    uri = f"sqlite:///{folder}/tracker.db?password={IN_QUERY}&user={IN_ADDRESS}"
    secrets = dict(zip(list(CANARIES), NAMED, strict=False))
    # nobody answers there, so that the command has something to say of it
    secrets["SWEEP_NOTIFY_URL"] = f"http://127.0.0.1:9/{secrets['SWEEP_NOTIFY_URL']}"
    env = environment({**AS_URGENT, **secrets, "MLFLOW_TRACKING_URI": uri})
    said = folder / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            arguments("sweep", "run", write_study(folder), "--store", folder / "store"),
            cwd=folder,
            env=env,
            stdout=out,
            stderr=out,
        )
    sampled = Sampled(process.pid)
    sampled.start()
    try:
        assert process.wait(4 * PATIENCE_SECONDS) == 0, said.read_text()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        sampled.over.set()
        sampled.join()
    return folder, sampled


def test_neither_stores_nor_databases_nor_output_hold_a_canary(swept: tuple[Path, Sampled]) -> None:
    folder, sampled = swept
    assert "notify: not everything was delivered" in (folder / "said").read_text()
    before = sampled.files
    sampled.look(folder)
    assert sampled.files > before
    assert sorted(sampled.found) == []


def test_neither_rays_folder_nor_a_command_line_held_one(swept: tuple[Path, Sampled]) -> None:
    _, sampled = swept
    assert any("raylet" in command for command in sampled.commands)
    assert any("--follow" in command for command in sampled.commands)
    assert sampled.files > 10
    assert sorted(sampled.found) == []


def test_neither_report_nor_export_holds_one(swept: tuple[Path, Sampled]) -> None:
    folder, sampled = swept
    env = dict(zip(list(CANARIES), NAMED, strict=False))
    for command in (["report"], ["export", "--to", "export"]):
        done = sweep(*command, "small.yaml", "--store", "store", cwd=folder, env=env)
        assert done.returncode == 0, done.stderr
        assert shows((done.stdout + done.stderr).encode()) == []
    sampled.look(folder)
    assert sorted(sampled.found) == []


def test_a_tracker_with_a_password_that_is_down_shows_none(swept: tuple[Path, Sampled]) -> None:
    folder, _ = swept
    uri = f"http://user:{IN_ADDRESS}@127.0.0.1:9/?token={IN_QUERY}"
    done = sweep("sync", "small.yaml", "--store", "store", cwd=folder, env={"MLFLOW_TRACKING_URI": uri})
    assert done.returncode == 3
    assert shows((done.stdout + done.stderr).encode()) == []
