"""Runs that go wrong, each in its own way.

Each is reported with its reason, the others finish, and the exit code says so.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.sweeps import Started, sweep, write_study

pytestmark = pytest.mark.chaos
HOW = ("raises", "hangs", "killed", "memory")


@pytest.mark.timeout(900)
def test_every_kind_of_failure_is_told_and_the_others_finish(tmp_path: Path) -> None:
    arms = {how: {"policy": {"name": "faulty", "how": how}} for how in HOW}
    arms |= {"dense": {"policy": {"name": "dense"}}, "fine": {"policy": {"name": "fixed", "ratio": 0.3}}}
    arms["diverges"] = {"policy": {"name": "dense"}, "task": {"learning_rate": 1e30}}
    study = write_study(
        tmp_path,
        arms=arms,
        confirm={"seeds": 2},
        analysis={"baseline": "dense", "endpoints": [1.0], "test": "paired-t"},
        resources={"attempts": 1, "deadline": 30, "commit_share": 1},
    )
    done = sweep("run", study, "--store", tmp_path, "--json", timeout=600)
    assert done.returncode == 1, done.stderr
    view = json.loads(done.stdout)
    by_arm = {arm["arm"]: arm for arm in view["arms"]}
    assert {arm for arm, it in by_arm.items() if it["failed"]} == set(HOW)
    assert all(by_arm[how]["failed"] == 2 for how in HOW)
    assert (
        by_arm["dense"]["confirm_done"]
        == by_arm["fine"]["confirm_done"]
        == by_arm["diverges"]["diverged"]
        == 2
    )

    status = sweep("status", study, "--store", tmp_path, "--json")
    reasons = {
        failure["what"].split(",")[0]: failure for failure in json.loads(status.stdout)["failures"].values()
    }
    assert "no such luck" in reasons["raises"]["reason"]
    assert any("RuntimeError: no such luck" in line for line in reasons["raises"]["log"])
    assert "no progress for 30 s" in reasons["hangs"]["reason"]
    assert "killed, or ran out of memory" in reasons["killed"]["reason"]
    assert "memory" in reasons["memory"]["reason"]
    assert "no such luck" in sweep("status", study, "--store", tmp_path).stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_last_epoch_and_names_the_command_that_continues(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    study = write_study(
        tmp_path, task={"epochs": 4000, "evaluate_every": 500}, resources={"commit_share": 1}
    )
    with Started(tmp_path, "run", study, "--store", tmp_path) as started:
        started.until(lambda: any((tmp_path / "small" / "runs").glob("*/attempt-*/checkpoint-*")))
        started.process.send_signal(number)
        assert started.wait() == code, started.log.read_text()
    assert f"To continue: python -m sweep run {study} --store {tmp_path}" in started.log.read_text()
    logs = [path.read_text() for path in (tmp_path / "small" / "runs").glob("*/attempt-*/log.txt")]
    assert any("stopped; what was trained is kept" in log for log in logs)


@pytest.mark.timeout(600)
def test_the_second_signal_stops_at_once(tmp_path: Path) -> None:
    study = write_study(tmp_path, task={"epochs": 4000, "train_size": None})
    with Started(tmp_path, "run", study, "--store", tmp_path) as started:
        started.until(lambda: any((tmp_path / "small" / "runs").glob("*/attempt-*")))
        started.process.send_signal(signal.SIGINT)
        started.until(lambda: "Once more to stop at once" in started.log.read_text())
        started.process.send_signal(signal.SIGINT)
        assert started.wait() == 130
