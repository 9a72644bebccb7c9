"""The wheel in its own environment, used from an empty folder: it holds everything that it reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep import __version__
from tests.clusters import head_with_dashboard, write_token
from tests.conftest import ROOT
from tests.sweeps import AS_URGENT, environment
from trainer.store import unseal

FINDERS = "import json, sys; print(json.dumps([*sys.path, *map(str, sys.meta_path)]))"
pytestmark = pytest.mark.slow
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
WATCH = """
import os, sys
own = os.environ["WATCHED"] + os.sep
def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(arguments[0])) + os.sep
        if path.startswith(own) and not path.startswith(os.environ["DEPENDENCIES"] + os.sep):
            log = os.open(os.environ["WATCH_LOG"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.write(log, (path + chr(10)).encode())
            os.close(log)
sys.addaudithook(watch)
"""
"""A sitecustomize.py for every process: it notes in a file what a process opens in the checkout."""
RUN: dict[str, Any] = {
    "task": {"data": "wine", "model": "mlp-8", "epochs": 2, "batch_size": 64},
    "policy": {"name": "set", "epsilon": 4},
    "seed": 1,
}
STUDY: dict[str, Any] = {
    "task": RUN["task"],
    "arms": {"dense": {"policy": {"name": "dense"}}, "half": {"policy": {"name": "fixed", "ratio": 0.5}}},
    "confirm": {"seeds": 6},
    "analysis": {"baseline": "dense", "endpoints": [1.0]},
}


@dataclass(frozen=True)
class Installed:
    """The installed wheel: its environment, an empty folder, and the file that lists what was opened."""

    wheel: Path
    programs: Path
    folder: Path
    log: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, from the empty folder and under the watch."""
        watched = {"WATCHED": str(ROOT), "DEPENDENCIES": sys.prefix, "WATCH_LOG": str(self.log)}
        env = environment({"PYTHONPATH": str(self.log.parent), **watched})
        command = [str(self.programs / program), *arguments]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 240}
        return subprocess.run(command, cwd=self.folder, env=env, check=False, **options)

    def __call__(self, program: str, *arguments: str) -> str:
        """Run a program that must end well; return its stdout."""
        done = self.run(program, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def opened(self) -> list[str]:
        """Return the checkout's files that were opened so far, without its environment and its packages."""
        return self.log.read_text().splitlines() if self.log.exists() else []


def sources() -> set[str]:
    """Return the checkout's files that git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True)
    return {name for name in listed.split("\0") if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it in its own environment.

    It is built from a copy, so that nothing is left in the checkout. The other packages are this
    environment's, found by its path alone; so the `.pth` that installs the checkout there is left out.
    """
    root = tmp_path_factory.mktemp("wheel")
    for name in sources():
        (root / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / "copy" / name)
    (root / "dist").mkdir()
    build = [sys.executable, "-c", BUILD, root / "dist"]
    subprocess.run(build, cwd=root / "copy", check=True, capture_output=True)
    (wheel,) = (root / "dist").iterdir()
    assert wheel.name == f"pairsweep-{__version__}-py3-none-any.whl"
    home = root / "elsewhere"  # in somebody's repository
    subprocess.run(["git", "init", "--quiet", home], check=True)
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    commit = ["git", *author, "commit", "--quiet", "--allow-empty", "-m", "theirs"]
    subprocess.run(commit, cwd=home, check=True)
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run([home / "venv" / "bin" / "pip", *install], check=True)
    (site,) = home.glob("venv/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (home / "empty").mkdir()
    (home / "watch").mkdir()
    (home / "watch" / "sitecustomize.py").write_text(WATCH)
    return Installed(wheel, home / "venv" / "bin", home / "empty", home / "watch" / "opened")


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(installed: Installed) -> None:
    packed = {name for name in zipfile.ZipFile(installed.wheel).namelist() if ".dist-info/" not in name}
    packages = ("search_spaces/", "sweep/", "trainer/")
    assert packed == {name for name in sources() if name.startswith(packages)}


def test_the_packages_are_the_wheels_and_the_checkout_cannot_be_imported(installed: Installed) -> None:
    code = "import search_spaces as s, sweep, trainer; print(s.__file__, sweep.__file__, trainer.__file__)"
    places = installed("python", "-c", code).split()
    assert [installed.programs.parent in Path(place).parents for place in places] == [True] * 3
    finders = json.loads(installed("python", "-c", FINDERS))
    assert not [it for it in finders if it == str(ROOT) or "editable" in it]
    version = "from importlib.metadata import version; print(version('pairsweep'))"
    assert installed("python", "-c", version) == f"{__version__}\n"
    assert installed("sweep", "--version") == f"pairsweep {__version__}\n"
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_a_study_is_found_by_its_name_and_planned_by_a_measurement(installed: Installed) -> None:
    told = json.loads(installed("sweep", "plan", "cifar10", "--gpu", "h100", "--workers", "8", "--json"))
    assert round(told["gpu_hours_left"]) == 103
    assert "quickstart holds no study yet." in installed.run("sweep", "status", "quickstart").stderr
    names = "cifar10, cifar10-short, connectivity, papers-tables, quickstart"
    assert f"one of {names}." in installed.run("sweep", "plan", "another").stderr
    assert not installed.opened()


def test_a_study_is_run_and_exported(installed: Installed) -> None:
    (installed.folder / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    installed("sweep", "run", "tiny.yaml")
    installed("sweep", "export", "tiny.yaml", "--to", "out")
    exported = {path.name for path in (installed.folder / "out").iterdir()}
    assert {"runs.parquet", "comparisons.parquet", "significance.ipynb"} <= exported
    assert not installed.opened()


def test_a_run_does_not_take_the_repository_around_it_for_its_own(installed: Installed) -> None:
    (installed.folder / "run.json").write_text(json.dumps(RUN))
    rows = installed("python", "-m", "trainer", "run.json", "--store", "runs").splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]
    (attempt,) = installed.folder.glob("runs/*/attempt-1/attempt.json")
    assert unseal(attempt.read_bytes())["commit"] == "unknown"
    assert not installed.opened()


@pytest.fixture
def head(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """The dashboard of a cluster, and the variables that name its token."""
    for name, value in {**AS_URGENT, "MLFLOW_TRACKING_URI": "none"}.items():
        monkeypatch.setenv(name, value)
    auth = write_token(installed.folder)
    with head_with_dashboard(monkeypatch, auth, num_cpus=2) as cluster:
        yield cluster.dashboard, auth


def test_a_machine_with_the_wheel_an_address_and_a_token_hands_a_study_in(
    installed: Installed, head: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard, auth = head
    for name, value in auth.items():
        monkeypatch.setenv(name, value)
    (installed.folder / "far.yaml").write_text(yaml.safe_dump(STUDY))
    store = installed.folder / "there"
    job = installed("sweep", "submit", "far.yaml", "--address", dashboard, "--store", str(store))
    log = installed("sweep", "logs", "far", "--address", dashboard, "--follow")
    assert f"Running entrypoint for job {job.strip()}" in log
    assert "done: 12 runs." in log
    assert "complete" in installed("sweep", "status", "far.yaml", "--store", str(store), "--json")
    (attempt, *_) = store.glob("far/runs/*/attempt-1/attempt.json")
    # the wheel's code ran there: the checkout's would know its commit
    assert unseal(attempt.read_bytes())["commit"] == "unknown"
    assert not installed.opened()


def test_what_is_read_of_the_checkout_would_be_seen(installed: Installed) -> None:
    """The watch itself is tested last: it would be silent if it saw nothing."""
    read = ROOT / "README.md"
    installed("python", "-c", f"open({os.fspath(read)!r}).close()")
    assert installed.opened() == [f"{read}{os.sep}"]
    installed.log.unlink()
