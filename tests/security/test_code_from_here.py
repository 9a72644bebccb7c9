"""A folder with a stranger's study also holds files named like modules. No process of ours runs them.

`python -m sweep`, without `-P`, puts the folder on Python's path before any of our code runs, so the
commands here are started as the installed `sweep` is.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import run_spec
from tests.kept import unpack
from tests.security.victim import PATIENCE_SECONDS, arguments, environment, sweep
from tests.sweeps import AS_URGENT, write_study
from trainer.orders import Order

MODULES = (
    *("yaml", "pyarrow", "numpy", "torch", "ray", "mlflow", "sqlalchemy", "requests", "optuna", "rich"),
    *("sitecustomize", "usercustomize", "gunicorn.conf", "uvicorn", "huey", "alembic", "sweep", "trainer"),
)
"""What the processes of a sweep, of MLflow and of a crew import early."""


TRAP = """
import sys
open({mark!r}, "w").close()
sys.path[:] = [entry for entry in sys.path if entry not in ("", {here!r})]
del sys.modules[__name__]
__import__(__name__)
"""
"""It leaves a file, and then is the module that it stands in front of, so that nobody notices."""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder with a study and with modules that leave a file in `ran` when somebody runs them."""
    (tmp_path / "ran").mkdir()
    for module in MODULES:
        mark = str(tmp_path / "ran" / module)
        (tmp_path / f"{module}.py").write_text(TRAP.format(mark=mark, here=str(tmp_path)))
    write_study(tmp_path, search={"budget": 2})
    return tmp_path


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "ran").iterdir())


def test_neither_the_workers_nor_the_follower_of_a_sweep_run_it(trapped: Path) -> None:
    tracker = ("--mlflow-uri", "sqlite:///here/tracker.db")
    done = sweep("run", "small.yaml", "--store", "results", *tracker, cwd=trapped, env=AS_URGENT)
    assert not ran(trapped)
    assert done.returncode == 0, done.stderr
    assert "MLflow is behind" not in done.stderr
    # relative paths still mean the folder that the command was started in
    assert (trapped / "results" / "small" / "study.json").is_file()
    assert (trapped / "here" / "tracker.db").is_file()


def test_mlflows_server_does_not_run_it(trapped: Path) -> None:
    unpack(trapped)
    log = trapped / "ui.log"
    with log.open("w") as out:
        shown = subprocess.Popen(
            arguments("sweep", "ui", "kept.yaml", "--store", "store", "--port", "0"),
            cwd=trapped,
            env=environment(),
            stdout=out,
            stderr=out,
        )
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while "Ctrl-C ends it" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            assert shown.poll() is None, log.read_text()
            time.sleep(0.1)
    finally:
        shown.send_signal(signal.SIGTERM)
        shown.wait(PATIENCE_SECONDS)
    assert not ran(trapped)


def test_the_processes_of_a_crew_do_not_run_it(trapped: Path) -> None:
    lines = "".join(Order(run_spec(seed=seed, epochs=1, model="mlp-16")).to_json() + "\n" for seed in (1, 2))
    done = subprocess.run(
        arguments("trainer", "--from-stdin", "--store", "runs", "--workers", "2", "--device", "cpu"),
        cwd=trapped,
        env=environment(),
        input=lines,
        timeout=PATIENCE_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, ran(trapped)) == (0, []), done.stderr
    assert len(list((trapped / "runs").iterdir())) == 2
