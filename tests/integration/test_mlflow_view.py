"""A study in MLflow: its contents depend on the ledger alone.

It does not matter when, how often or by how many it was brought there.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sweep.ledger.ledger import Ledger
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.reading import Reading
from tests.loops import drive
from tests.sweeps import Started, study_values
from tests.views import MLFLOWS_OWN, Filling, Shown, points_of, shown, synced, view_of

pytestmark = MLFLOWS_OWN
ADDITIVE = study_values()["arms"]["additive"]
ARMS: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "tuned": {"policy": {"name": "dense"}, "task": ADDITIVE["task"]},
    "additive": ADDITIVE,
    "bad": {"policy": {"name": "dense"}, "task": {"learning_rate": 1e30}},
    "idle": {"policy": {"name": "dense"}, "task": {"learning_rate": 1e-9}},
    "again": {"repeat": "tuned"},
}
ANALYSIS: dict[str, Any] = {"baseline": "tuned", "family": ["additive"], "endpoints": [1.0, 0.5]}
TASK: dict[str, Any] = {"epochs": 4, "evaluate_every": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of 48 runs with a searched baseline and a repeat.

    One arm diverges, and one learns nothing.
    """
    root = tmp_path_factory.mktemp("finished")
    study = Study("small", Contents.read(study_values(arms=ARMS, analysis=ANALYSIS, task=TASK)))
    assert drive(study, root).finished.total() == 48
    return root


def reading_of(store: Path) -> Reading:
    return Reading(Ledger(str(store), "small", print))


def by_kind(found: dict[str, Shown], kind: str) -> dict[str, Shown]:
    return {key: run for key, run in found.items() if run.tags["kind"] == kind}


def assert_same(found: dict[str, Shown], expected: dict[str, Shown]) -> None:
    assert found.keys() == expected.keys()
    for key, run in expected.items():
        assert found[key] == run, key


# the same, however it came about


@pytest.mark.parametrize("fresh", [False, True], ids=["one follower", "a new one each time"])
def test_a_view_that_followed_is_the_view_that_came_afterwards(
    finished: Path, once: str, uri: str, tmp_path: Path, fresh: bool
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"the seed of the order is {seed}")
    filling, view = Filling(finished, tmp_path / "store", seed), view_of(tmp_path / "store", uri)
    while filling.left:
        filling.step()
        view = view_of(tmp_path / "store", uri) if fresh else view
        view.update(live=True)
        assert {it.status for it in by_kind(shown(uri), "run").values()} <= {"RUNNING", "FINISHED", "FAILED"}
    synced(tmp_path / "store", uri)
    assert_same(shown(uri), shown(once))


def test_the_points_are_what_mlflow_tells_of_them(once: str) -> None:
    client, points = MlflowClient(once), points_of(once)
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    runs = client.search_runs([experiment.experiment_id], "tags.arm = 'additive'")
    assert len(runs) > 2
    for run in runs:
        told = {
            (key, it.step): ("nan" if math.isnan(it.value) else it.value, it.timestamp)
            for key in run.data.metrics
            for it in client.get_metric_history(run.info.run_id, key)
        }
        assert told == points[run.info.run_id]


def test_mlflow_shows_the_runs_and_cohorts_of_the_ledger_and_nothing_else(finished: Path, once: str) -> None:
    reading, found = reading_of(finished), shown(once)
    assert {key.removeprefix("run ") for key in by_kind(found, "run")} == {
        path.name for path in (finished / "small" / "runs").iterdir()
    }
    assert len(found) == len(reading.runs) + len(reading.cohorts)
    for cohort in reading.cohorts:
        (parent,) = (
            key
            for key in found
            if key.startswith(f"cohort {cohort.phase} {cohort.candidate.name} {len(cohort.runs)}")
        )
        assert found[parent].status == "FINISHED"
        assert {key for key, run in found.items() if run.parent == parent} == {
            f"run {run_id}" for run_id in cohort.runs
        }
        for place, run_id in enumerate(cohort.runs):
            assert found[f"run {run_id}"].tags["place"] == str(place)
            assert found[f"run {run_id}"].params["seed"] == str(reading.runs[run_id].seed)
    outcomes = {key: run.tags["outcome"] for key, run in found.items() if "outcome" in run.tags}
    assert set(outcomes.values()) == {"completed", "collapsed", "diverged"}
    assert all(
        (found[key].status == "FAILED") == (outcome == "diverged") for key, outcome in outcomes.items()
    )


def test_a_parent_has_one_value_an_epoch_and_it_is_the_mean_of_its_seeds(once: str) -> None:
    found = shown(once)
    for key, parent in {**by_kind(found, "search"), **by_kind(found, "confirm")}.items():
        seeds = [run for run in found.values() if run.parent == key]
        gone = [run for run in seeds if run.tags["outcome"] == "diverged"]
        assert {step for name, step in parent.points if name == "train_loss"} == (
            set() if gone else {1, 2, 3, 4}
        )
        for step in () if gone else (2, 4):
            values = [run.points["test_accuracy", step][0] for run in seeds]
            assert parent.points["test_accuracy", step][0] == pytest.approx(
                sum(map(float, values)) / len(values)
            )


def test_sorting_by_gain_puts_the_greatest_gain_over_the_baseline_first(finished: Path, once: str) -> None:
    reading, client = reading_of(finished), MlflowClient(once)
    confirmed = {it.candidate.name: it.runs for it in reading.cohorts if it.phase == "confirm"}
    tuned = reading.plan.finalists("tuned")[0].name
    scores = {run_id: result.score("test", 1.0) for run_id, result in reading.plan.results.items()}
    gains = {
        name: math.fsum(
            scores[own] - scores[other] for own, other in zip(runs, confirmed[tuned], strict=True)
        )
        / 6
        * 100
        for name, runs in confirmed.items()
    }
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    rows = client.search_runs(
        [experiment.experiment_id], "metrics.gain > -200", order_by=["metrics.gain DESC"]
    )
    assert {row.data.tags["candidate"]: row.data.metrics["gain"] for row in rows} == {
        k: pytest.approx(v) for k, v in gains.items()
    }
    assert [row.data.metrics["gain"] for row in rows] == sorted(
        (row.data.metrics["gain"] for row in rows), reverse=True
    )
    assert all(row.data.metrics["pairs"] == 6 for row in rows)
    assert min(gains.values()) < -5 < 0 == gains[tuned]


def test_nobody_has_a_gain_while_the_baseline_is_being_searched(
    finished: Path, uri: str, tmp_path: Path
) -> None:
    filling = Filling(finished, tmp_path, 1)
    dense = next(it for it in reading_of(finished).cohorts if it.candidate.name == "dense")
    for run_id in dense.runs:
        filling.finish(run_id)
    view_of(tmp_path, uri).update(live=True)
    (parent,) = by_kind(shown(uri), "confirm").values()
    assert ("score", 6) in parent.points
    assert not [key for key, _ in parent.points if "gain" in key]


# by several


def test_two_views_that_knew_nothing_of_each_other_end_with_one_run_a_key(
    finished: Path, once: str, uri: str
) -> None:
    first, second = view_of(finished, uri), view_of(finished, uri)
    first.experiment.open()
    second.experiment.open()
    for view in (first, second):
        view.update(live=True)  # neither looks again, so everything is there twice
    assert len(
        {run for view in (first, second) for run in (it.id for it in view.experiment.runs.values())}
    ) == 2 * len(shown(once))
    synced(finished, uri)
    assert_same(shown(uri), shown(once))


@pytest.mark.slow
def test_views_made_at_the_same_time_end_as_one(finished: Path, once: str, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'nobody made it.db'}"
    arguments = ("sync", "small.yaml", "--store", finished, "--mlflow-uri", uri)
    with Started(tmp_path, *arguments) as first, Started(tmp_path, *arguments) as second:
        codes = [first.wait(), second.wait()]
    # One view may have removed what the other one made.
    assert set(codes) <= {0, 3}, first.log.read_text() + second.log.read_text()
    synced(finished, uri)
    found = shown(uri)
    assert found.pop("report").status == "FINISHED"
    assert_same(found, shown(once))
