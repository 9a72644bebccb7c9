"""The commands that show a study's results, as processes, and the view that runs beside a sweep."""

from __future__ import annotations

import json
import os
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import GREW
from sweep.study import load
from sweep.views.mlflow.client import Experiment
from sweep.views.mlflow.page import NOTE_TAG
from sweep.views.mlflow.view import View
from sweep.views.reading import Reading
from sweep.views.report.page import page_and_note
from tests.conftest import ROOT
from tests.loops import drive, short_values, study_of
from tests.sweeps import Started, folders, sweep, write_study
from tests.views import MLFLOWS_OWN

BRIEF: dict[str, Any] = {
    "arms": {
        "additive": {"policy": {"name": "additive-reset", "step": 0.3}}
    },  # nothing is searched: 12 runs, one comparison
    "task": short_values()["task"],
}
pytestmark = MLFLOWS_OWN
CLOSED = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished study."""
    place = tmp_path_factory.mktemp("shown")
    write_study(place, **BRIEF)
    assert drive(study_of(**BRIEF), place).complete
    return place


def in_mlflow(store: Path) -> set[str]:
    """Return the study's runs in MLflow, from the database beside the ledger."""
    ledger = Ledger(str(store), "small", print)
    experiment = Experiment(
        f"sqlite:///{store}/mlflow.db", "small", ledger.store.where(), (store / "mlflow-artifacts").as_uri()
    )
    experiment.open()
    assert {run.status for run in experiment.runs.values()} <= {"FINISHED", "FAILED"}
    return {key.removeprefix("run ") for key in experiment.runs if key.startswith("run ")}


def test_the_report_is_a_table_on_stdout_and_a_page_beside_the_ledger(store: Path) -> None:
    done = sweep("report", store / "small.yaml", "--store", store)
    assert done.returncode == 0, done.stderr
    header = next(line for line in done.stdout.splitlines() if line.startswith("| arm"))
    assert all(
        line.count("|") == header.count("|") for line in done.stdout.splitlines() if line.startswith("|")
    )
    page = (store / "small-report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert str(store / "small-report.html") in done.stderr


def test_every_command_s_json_is_strict_json(store: Path, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for arguments in (
        ["report"],
        ["export", "--to", tmp_path / "out"],
        ["sync", "--mlflow-uri", f"sqlite:///{tmp_path}/m.db"],
    ):
        done = sweep(arguments[0], store / "small.yaml", "--store", store, *arguments[1:], "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout, parse_constant=refuse)


@pytest.mark.parametrize("command", ["report", "sync", "ui", "export"])
def test_a_study_that_was_not_begun_is_said_to_be(command: str, tmp_path: Path) -> None:
    more = ["--to", tmp_path / "out"] if command == "export" else []
    done = sweep(command, write_study(tmp_path), "--store", tmp_path, *more)
    assert done.returncode == 2
    assert "holds no study yet" in done.stderr
    assert "Traceback" not in done.stderr


def test_who_watches_a_study_that_was_not_begun_waits_for_it_and_then_for_its_end(tmp_path: Path) -> None:
    study = write_study(tmp_path, **BRIEF)
    with Started(tmp_path, "status", study, "--store", tmp_path, "--watch") as watching:
        watching.until(lambda: "Waiting until it is begun." in watching.log.read_text())
        drive(load(study), tmp_path)
        assert watching.wait() == 0
    assert "12/12 runs done" in watching.log.read_text()


@pytest.mark.parametrize("command", ["status", "report", "sync", "ui", "export", "doctor"])
def test_a_study_whose_policy_is_gone_is_said_to_need_it(command: str, tmp_path: Path) -> None:
    """The study's file has changed, and its ledger needs a policy that is not on the command's path."""
    gone = study_of(arms={"gone": {"policy": {"name": "faulty", "how": "never"}}})
    Ledger(str(tmp_path), "small", print).declare(gone, False)
    before = (tmp_path / "small" / "study.json").read_bytes()
    at = ["--mlflow-uri", f"sqlite:///{tmp_path}/m.db"]
    more = {"export": ["--to", tmp_path / "out"], "sync": at, "ui": at}.get(command, [])
    done = sweep(command, write_study(tmp_path), "--store", tmp_path, *more, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "arms.gone.policy.name: must be one of dense, fixed," in done.stderr
    assert "it is 'faulty'" in done.stderr
    assert "attempt-1/attempt.json" in done.stderr
    assert (tmp_path / "small" / "study.json").read_bytes() == before


def test_a_study_under_way_says_in_mlflow_what_it_lacks(tmp_path: Path) -> None:
    drive(study_of(), tmp_path, most=3)
    ledger = Ledger(str(tmp_path), "small", print)
    experiment = Experiment(
        f"sqlite:///{tmp_path}/mlflow.db", "small", ledger.store.where(), tmp_path.as_uri()
    )
    View(ledger, experiment, print).update(live=False, report=page_and_note)
    assert experiment.tags[NOTE_TAG].startswith(
        "Not complete yet: 0 of the 1 comparisons of the family have all their pairs. Lacking: "
    )


@pytest.mark.slow
def test_a_study_that_grew_after_a_look_is_tested_as_one_that_may_be_looked_at_at_any_time(
    tmp_path: Path,
) -> None:
    assert drive(study_of(**BRIEF), tmp_path).complete
    study = write_study(tmp_path, **BRIEF)
    looked = json.loads(sweep("report", study, "--store", tmp_path, "--json").stdout)
    assert [(row["looks"], row["pairs"]) for row in looked["comparisons"]] == [(1, 6)]
    write_study(tmp_path, **BRIEF, confirm={"seeds": 12})
    new = set(folders(tmp_path))
    done = sweep("run", study, "--store", tmp_path, "--extend", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert_one_at_a_time(set(folders(tmp_path)) - new)
    told = json.loads(sweep("report", study, "--store", tmp_path, "--json").stdout)
    assert [(row["looks"], row["pairs"]) for row in told["comparisons"]] == [(0, 12)]
    assert told["grew_after_look"] == "pairs"
    assert [(look["pairs"], len(look["comparisons"])) for look in told["earlier"]] == [(6, 1)]
    assert [look["pairs"] for look in told["looks"]] == [6, 12]
    assert told["extensions"][0]["changes"] == ["confirm.seeds: 6 -> 12"]
    printed = sweep("report", study, "--store", tmp_path).stdout
    assert GREW["pairs"][1:] in printed
    assert "The first 6 seeds: additive over dense" in printed


def assert_one_at_a_time(runs: set[Path]) -> None:
    """Check that no two runs overlap: --workers 1 allows one at a time even where there is room for more."""
    assert len(runs) == 12
    ends = {folder: pq.read_table(folder / "epochs.parquet")["ended_at"].to_pylist()[-1] for folder in runs}
    starts = {
        folder: json.loads((folder / "attempt-1" / "attempt.json").read_text())["started_at"]
        for folder in runs
    }
    order = sorted(runs, key=lambda folder: starts[folder])
    assert all(ends[a] <= datetime.fromisoformat(starts[b]) for a, b in pairwise(order))


def test_a_sweep_has_its_view_when_it_ends_and_leaves_no_process(tmp_path: Path) -> None:
    done = sweep("run", write_study(tmp_path, **BRIEF), "--store", tmp_path, env={"MLFLOW_TRACKING_URI": ""})
    assert done.returncode == 0, done.stderr
    assert "MLflow is behind" not in done.stderr
    assert in_mlflow(tmp_path) == set(Reading(Ledger(str(tmp_path), "small", print)).runs)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_about(path, tmp_path)]


@pytest.mark.slow
def test_a_sweep_does_not_mind_a_tracker_that_is_down_and_says_how_to_catch_up(tmp_path: Path) -> None:
    study = write_study(tmp_path, **BRIEF)
    done = sweep("run", study, "--store", tmp_path, env={"MLFLOW_TRACKING_URI": CLOSED})
    assert done.returncode == 0, done.stderr
    assert f"MLflow is behind: MLflow at {CLOSED}" in done.stderr
    assert f"sync {study} --store {tmp_path}" in done.stderr
    assert sweep("sync", study, "--store", tmp_path, env={"MLFLOW_TRACKING_URI": ""}).returncode == 0
    assert len(in_mlflow(tmp_path)) == 12


def _is_about(path: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid()
    except OSError:
        return False
