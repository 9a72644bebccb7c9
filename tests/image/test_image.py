"""The image is built from the lock, and a study runs in a container of it that may write almost nowhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sweep import __version__
from tests.cluster.lan import wait_until
from tests.conftest import ROOT
from tests.image.engine import Engine, Image, NoEngine
from tests.sweeps import (
    AS_URGENT,
    UNHURRIED,
    committed,
    descendants,
    final,
    generations,
    rows,
    sweep,
    write_study,
)

# the first test waits for the image: some three minutes on two quiet cores
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps({it.name: it.version for it in distributions()}))
"""
ORPHAN = """
import subprocess, sys
orphan = subprocess.check_output(["sh", "-c", "sleep infinity >/dev/null & echo $!"], text=True)
print(orphan, end="", flush=True)
sys.stdin.read()
"""
"""Leave a process without its parent, say its number, and wait."""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(Engine())
            engine.base()
        except NoEngine as reason:
            pytest.skip(f"no image can be built and run here: {reason}")
        yield engine.build()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder that the user of the image can write to."""
    os.chown(tmp_path, 1000, 1000)
    return tmp_path


def needed(name: str, extra: str = "") -> set[str]:
    """Return the names of a package and of all that it and its extra need on this machine."""
    found: set[tuple[str, str]] = set()
    waiting = {(canonicalize_name(name), extra)}
    while waiting:
        name, extra = one = waiting.pop()
        found.add(one)
        for line in distribution(name).requires or []:
            need = Requirement(line)
            if not need.marker or need.marker.evaluate({"extra": extra}):
                waiting |= {(canonicalize_name(need.name), it) for it in ("", *need.extras)} - found
    return {name for name, _ in found}


def test_it_has_what_the_wheel_and_its_servers_need_in_the_locks_versions_and_nothing_else(
    image: Image, work: Path
) -> None:
    installed = json.loads(image(work, "python", "-c", INSTALLED))
    versions = {canonicalize_name(name): version for name, version in installed.items()}
    assert set(versions) == needed("pairsweep") | needed("pairsweep", "server")
    assert versions.pop(canonicalize_name("pairsweep")) == __version__
    # the lock names two versions of a package where they depend on Python's
    locked = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert set(versions.items()) <= set(locked)


def test_a_package_with_another_hash_than_the_locks_is_refused(tmp_path: Path) -> None:
    """The build gives uv the lock as a constraint, and nothing else asks it to compare hashes."""
    lock = (ROOT / "requirements.lock").read_text()
    before, mark, after = lock.partition("\nsix==")
    own, end, rest = after.partition("\n    # via")
    bad = tmp_path / "bad.lock"
    bad.write_text(before + mark + re.sub("sha256:.{8}", "sha256:00000000", own) + end + rest)
    install = [ROOT / ".uv" / "bin" / "uv", "pip", "install", "--no-cache", "--only-binary", ":all:"]
    options = ["--target", tmp_path / "packages", "--constraint"]
    for constraint, said in ((ROOT / "requirements.lock", "Installed 1 package"), (bad, "Hash mismatch")):
        done = subprocess.run(
            [*install, *options, constraint, "six"], capture_output=True, text=True, check=False
        )
        assert said in done.stderr
        shutil.rmtree(tmp_path / "packages", ignore_errors=True)


def test_it_says_what_it_is_and_starts_with_a_reaper_as_a_user_without_rights(
    image: Image, work: Path
) -> None:
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    prefix = "org.opencontainers.image."
    assert image.config["Labels"] == image.config["Labels"] | {
        f"{prefix}title": "pairsweep",
        f"{prefix}licenses": "Apache-2.0",
        f"{prefix}version": __version__,
        f"{prefix}revision": commit,
    }
    assert "Usage: sweep" in image(work)
    assert image(work, "sh", "-c", "id -u; cat /proc/1/comm") == "1000\ntini\n"
    programs = ("sweep", "ray", "mlflow", "gunicorn")
    assert image(work, "which", *programs).split() == [f"/opt/pairsweep/bin/{name}" for name in programs]


def test_nothing_but_tmp_and_the_volume_can_be_written_to(image: Image, work: Path) -> None:
    find = "find / -xdev -writable ! -type l 2>/dev/null | sort"
    assert image(work, "sh", "-c", find) == "/tmp\n/work\n"
    # the owner of files may always make them writable
    paths = [path for path in (image.files / "opt").rglob("*") if not path.is_symlink()]
    assert [path for path in paths if path.stat().st_uid or path.stat().st_mode & 0o22] == []


def test_there_is_no_compiler_and_no_installer(image: Image, work: Path) -> None:
    assert image.run(work, "which", "gcc", "cc", "clang", "ld", "pip", "uv").stdout == ""
    debian = image(work, "dpkg-query", "--show", "--showformat", "${Package}\n").split()
    assert "tini" in debian
    assert [name for name in debian if name.endswith("-dev")] == []
    refused = image.run(work, "sh", "-c", "$CC other.c -o other.so")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "This image has no C compiler" in refused.stderr


def test_without_a_compiler_triton_gets_its_module_and_misses_the_driver_alone(
    image: Image, work: Path
) -> None:
    """No container here has a GPU: where the driver's library is missing, the module has been found."""
    load = "from triton.backends.nvidia.driver import CudaUtils; CudaUtils()"
    loaded = image.run(work, "python", "-c", load, env={"TRITON_LIBCUDA_PATH": "/usr/lib"})
    assert loaded.stderr.splitlines()[-1].startswith("ImportError: libcuda.so.1: cannot open shared object")


def test_without_a_compiler_every_kernel_is_compiled_for_a_gpu(image: Image, work: Path) -> None:
    shutil.copy(ROOT / "benchmarks" / "kernels.py", work)
    assert json.loads(image(work, "python", "kernels.py", "--ptx"))["sites"] == 25


@contextmanager
def started(image: Image, work: Path, *arguments: str) -> Generator[tuple[subprocess.Popen[str], int]]:
    """Start a container; yield the command and the number of its first process on this machine."""
    command = image.command(work, *arguments, env=AS_URGENT)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield process, wait_until(lambda: first_of(process.pid), "the container starts")
        finally:
            process.kill()


def first_of(pid: int) -> int | None:
    """Return the number of tini below a process, if it is there."""
    for below in descendants(pid):
        with suppress(OSError):
            if Path(f"/proc/{below}/comm").read_text() == "tini\n":
                return below
    return None


def test_a_killed_process_without_a_parent_leaves_no_zombie(image: Image, work: Path) -> None:
    with started(image, work, "python", "-c", ORPHAN) as (process, first):
        assert process.stdout
        inside = process.stdout.readline().strip()
        # the machine sees the container's processes by its first one
        orphan = Path(f"/proc/{first}/root/proc/{inside}")
        status = dict(line.split(":\t", 1) for line in (orphan / "status").read_text().splitlines())
        assert (status["Name"], status["PPid"]) == ("sleep", "1")
        (outside,) = [pid for pid in descendants(first) if in_container(pid) == inside]
        os.kill(outside, signal.SIGKILL)
        wait_until(lambda: not orphan.exists(), "its exit code is taken", 60)


def in_container(pid: int) -> str:
    """Return the number of a process in the innermost namespace that it is in."""
    (numbers,) = re.findall(r"^NSpid:\t(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return numbers.split()[-1]


def test_a_study_is_stopped_goes_on_and_has_the_checkouts_numbers(image: Image, work: Path) -> None:
    study = write_study(work, **UNHURRIED)
    store = work / "results"
    with started(image, work, "sweep", "run", "small.yaml") as (process, first):
        wait_until(lambda: committed(store), "an epoch is committed", 280)
        os.kill(first, signal.SIGTERM)  # as an engine stops a container
        assert process.wait(280) == 128 + signal.SIGTERM
    kept = committed(store)
    assert len(list(store.glob("small/runs/*/outcome.json"))) < 18
    assert "done: 18 runs." in image.run(work, "sweep", "run", "small.yaml").stderr
    assert kept.items() <= final(store).items()
    image(work, "sweep", "report", "small.yaml")
    assert (store / "small-report.html").stat().st_uid == 1000
    undisturbed = sweep("run", study, "--store", work / "here")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert (rows(store), generations(store)) == (rows(work / "here"), generations(work / "here"))
