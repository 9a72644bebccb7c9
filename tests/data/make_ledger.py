"""Make the kept ledger with a checkout of the commit it is named after: `python make_ledger.py CHECKOUT TO`.

It uses the command line of that checkout alone. TO must have a path that may stand in committed files.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from tests.sweeps import actors

HERE = Path(__file__).parent
KEPT = 4
"""The number of epochs that the killed run has kept."""


def sweep(checkout: Path, to: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a `sweep` command of that checkout, in TO."""
    env = {**os.environ, "MLFLOW_TRACKING_URI": "none", "PYTHONPATH": str(checkout)}
    command = [str(checkout / ".venv/bin/python"), "-m", "sweep", *arguments, "--store", "store"]
    return subprocess.Popen(command, cwd=to, env=env, text=True, stdout=subprocess.PIPE)


def done(checkout: Path, to: Path, *arguments: str) -> str:
    """Run a command; return its output if it ended well."""
    process = sweep(checkout, to, *arguments)
    out, _ = process.communicate()
    assert process.returncode == 0, (arguments, process.returncode)
    return out


def kill_the_last_run(process: subprocess.Popen[str], runs: Path, total: int) -> None:
    """End the process that trains the last run, once it has kept some epochs."""
    pids: list[int] = []
    while process.poll() is None:
        finished = {path.parent for path in runs.glob("*/outcome.json")}
        if len(finished) == total - 2:
            pids = actors(process.pid) or pids
        for path in runs.glob("*/attempt-1/checkpoint-*.pt") if len(finished) == total - 1 else []:
            if path.parent.parent not in finished and int(path.name.split("-")[1]) >= KEPT:
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                assert process.wait() == 1, process.returncode
                return
        time.sleep(0.002)
    raise AssertionError("it ended before the last run could be killed")


def main(checkout: Path, to: Path) -> None:
    """Make both studies, their reports and exports, and the state `given-up`.

    In that state the first study's last run has been killed and given up.
    """
    to.mkdir(parents=True)
    whole = (HERE / "kept.yaml").read_text()
    begun = whole.replace("  again: # the arm that it is extended by\n    repeat: dense\n", "")
    assert begun != whole
    (to / "kept.yaml").write_text(begun)
    done(checkout, to, "run", "kept.yaml")
    done(checkout, to, "report", "kept.yaml")  # its gains were seen
    (to / "kept.yaml").write_text(whole)
    kept, state = to / "store" / "kept", to / "given-up" / "kept"
    before = len(list((kept / "runs").iterdir()))
    kill_the_last_run(sweep(checkout, to, "run", "kept.yaml", "--extend"), kept / "runs", before + 8)
    (failure,) = (kept / "failures").iterdir()
    for part in (f"failures/{failure.name}", f"runs/{failure.stem}", "index.json"):
        (state / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (kept / part).is_dir() else shutil.copy2)(kept / part, state / part)
    done(checkout, to, "run", "kept.yaml")
    shutil.copy(HERE / "kept-tasks.yaml", to)
    done(checkout, to, "run", "kept-tasks.yaml")
    for study in ("kept", "kept-tasks"):
        numbers = done(checkout, to, "report", f"{study}.yaml", "--json")
        done(checkout, to, "export", f"{study}.yaml", "--to", f"expected/{study}")
        (to / "expected" / study / "report.json").write_text(numbers.replace(f"{to}/", ""))
        for page in ("significance.ipynb", "README.md", "study.json"):
            (to / "expected" / study / page).unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
