"""MLflow's contents for studies with several searches, a finalist for every endpoint, or several looks."""

from __future__ import annotations

import base64
import json
import math
import zlib
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sweep.gains.rows import Compared
from sweep.ledger.ledger import Ledger
from sweep.study import Study
from sweep.study.contents import Contents
from sweep.views.mlflow.client import Experiment
from sweep.views.mlflow.labels import parent_key
from sweep.views.mlflow.points import Point
from sweep.views.reading import Reading
from tests.loops import drive
from tests.views import MLFLOWS_OWN, Filling, Shown, database, shown, synced, view_of

pytestmark = MLFLOWS_OWN
RATE: dict[str, Any] = {"learning_rate": {"low": 0.1, "high": 0.4}}
VALUES: dict[str, Any] = {
    "task": {"data": "digits", "model": "mlp-24", "epochs": 2, "batch_size": 16, "train_size": 200},
    "arms": {
        "dense": {"policy": {"name": "dense"}, "task": {"learning_rate": 0.05}},
        "tuned": {"policy": {"name": "dense"}, "task": RATE},
        "sparse": {"policy": {"name": "fixed", "ratio": {"choice": [0.1, 1.0]}}, "task": RATE},
    },
    "search": {
        "budget": 3,
        "generation": 3,
        "lag": 0,
        "ladder": [1],
        "validation": 0.2,
        "replicates": 7,
        "objective": "each",
    },
    "confirm": {"seeds": 1},
    "analysis": {"baseline": "tuned", "family": ["sparse"], "endpoints": [1.0, 0.1]},
    "resources": {"commit_share": 1},
}
RATIOS = {1.0: "", 0.1: "_at_r_0.1"}


def study_of(**parts: dict[str, Any]) -> Study:
    """The study above, with other values in some parts."""
    return Study(
        "small", Contents.read({**VALUES, **{key: VALUES[key] | part for key, part in parts.items()}})
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["one seed", "two seeds"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of seven searches."""
    root = tmp_path_factory.mktemp("finished")
    assert drive(study_of(confirm={"seeds": request.param}), root).complete
    return root


def reading_of(store: Path) -> Reading:
    return Reading(Ledger(str(store), "small", lambda _: None))


def parents_of(uri: str, phase: str = "confirm") -> dict[str, Shown]:
    """The parents in a phase by name."""
    return {run.name: run for run in shown(uri).values() if not run.parent and run.tags["phase"] == phase}


def series(run: Shown, key: str) -> dict[int, float]:
    return {step: float(value) for (name, step), (value, _) in sorted(run.points.items()) if name == key}


def last(run: Shown, key: str) -> float:
    """The value that MLflow shows in its table: that of the greatest step."""
    return list(series(run, key).values())[-1]


def picked(reading: Reading, method: str, ratio: float) -> list[list[str]]:
    """The confirmation runs of an arm's finalists for an endpoint, search by search."""
    names = [reading.plan.picked(arm.name, ratio)[0][0].name for arm in reading.study.methods[method]]
    runs = {cohort.candidate.name: cohort.runs for cohort in reading.cohorts if cohort.phase == "confirm"}
    return [list(runs[name]) for name in names]


def pair_gains(reading: Reading, method: str, ratio: float) -> list[float]:
    """The gain of each search in points, from the results alone."""
    results = reading.plan.results

    def score(runs: list[str]) -> float:
        return mean(results[run_id].score("test", ratio) for run_id in runs)

    both = zip(picked(reading, method, ratio), picked(reading, "tuned", ratio), strict=True)
    return [100 * (score(own) - score(other)) for own, other in both]


def row_of(reading: Reading, arm: str, ratio: float) -> Compared:
    rows = reading.compare()
    (row,) = (it for it in rows if (it.arm, it.reference_arm, it.keep_ratio) == (arm, "tuned", ratio))
    return row


# several searches


def test_an_arm_has_one_parent_for_the_confirmation_of_all_its_searches(finished: Path, once: str) -> None:
    reading, found = reading_of(finished), shown(once)
    assert parents_of(once).keys() == {
        f"{arm} (confirm, 7 searches)" for arm in ("dense", "tuned", "sparse")
    }
    for name, parent in parents_of(once).items():
        arm = name.split()[0]
        below = {key: run for key, run in found.items() if run.parent == key_of(found, parent)}
        expected = {run for ratio in RATIOS for runs in picked(reading, arm, ratio) for run in runs}
        assert below.keys() == {f"run {run_id}" for run_id in expected}
        assert parent.status == "FINISHED"
        assert {run.tags["arm"] for run in (parent, *below.values())} == {arm}
        assert {run.tags["search"] for run in below.values()} == set("1234567")
        for ratio in RATIOS:
            chosen = {
                key for key, run in below.items() if f"r = {ratio:g}" in run.tags["picked_for"].split(", ")
            }
            assert chosen == {f"run {run_id}" for runs in picked(reading, arm, ratio) for run_id in runs}
    assert picked(reading, "tuned", 1.0) != picked(reading, "tuned", 0.1), "a run is picked for one of them"
    sparse = parents_of(once)["sparse (confirm, 7 searches)"]
    assert not {"task.learning_rate", "policy.ratio"} & sparse.params.keys(), "each search has its own"
    assert sparse.params["task.batch_size"] == "16"
    assert sparse.params["searches"] == "7"


def key_of(found: dict[str, Shown], wanted: Shown) -> str:
    (key,) = (key for key, run in found.items() if run == wanted)
    return key


@pytest.mark.parametrize("arm", ["sparse", "dense", "tuned"])
def test_each_endpoint_has_the_gains_of_its_own_finalists_in_points(
    finished: Path, once: str, arm: str
) -> None:
    reading, parent = reading_of(finished), parents_of(once)[f"{arm} (confirm, 7 searches)"]
    for ratio, suffix in RATIOS.items():
        gains = pair_gains(reading, arm, ratio)
        expected = {k: pytest.approx(math.fsum(gains[:k]) / k, abs=1e-9) for k in range(1, 8)}
        better = {k: sum(gain > 1e-9 for gain in gains[:k]) for k in range(1, 8)}
        # the baseline is paired with itself, run by run where a run is a pair
        if arm != "tuned":
            assert series(parent, f"gain{suffix}") == expected
            assert series(parent, f"better{suffix}") == better
        assert last(parent, f"gain{suffix}") == pytest.approx(mean(gains), abs=1e-9)
    assert any(pair_gains(reading, "sparse", 1.0)), "the pairs differ"
    assert last(parent, "pairs") == max(step for key, step in parent.points if key == "gain")


def test_a_tested_arm_has_the_interval_of_the_family_its_p_values_and_verdicts(
    finished: Path, once: str
) -> None:
    reading, parents = reading_of(finished), parents_of(once)
    sparse, dense = (parents[f"{arm} (confirm, 7 searches)"] for arm in ("sparse", "dense"))
    for ratio, suffix in RATIOS.items():
        row, control = row_of(reading, "sparse", ratio), row_of(reading, "dense", ratio)
        assert row.family_low != row.ci_low
        assert series(sparse, f"gain_low{suffix}") == {7: pytest.approx(100 * (row.family_low or 0))}
        assert series(sparse, f"gain_high{suffix}") == {7: pytest.approx(100 * (row.family_high or 0))}
        error = {7: pytest.approx(stdev(pair_gains(reading, "sparse", ratio)) / math.sqrt(7))}
        assert series(sparse, f"gain_standard_error{suffix}") == error
        assert series(sparse, f"p_holm{suffix}") == {7: row.p_holm}
        assert sparse.tags[f"verdict{suffix}"] == row.verdict
        assert series(dense, f"gain_low{suffix}") == {7: pytest.approx(100 * (control.ci_low or 0))}
        assert not series(dense, f"p_holm{suffix}")
        assert f"verdict{suffix}" not in dense.tags
        note = sparse.tags["mlflow.note.content"]
        assert f"better in {row.better} of 7 searches" in note
        assert f"; interval of the family {100 * (row.family_low or 0):+.2f} to " in note
        assert f"Verdict: {row.verdict}." in note


def test_sorting_by_gain_puts_the_arm_with_the_greatest_gain_on_top(finished: Path, once: str) -> None:
    client = MlflowClient(once)
    (experiment,) = client.search_experiments(filter_string="name = 'small'")
    runs = client.search_runs([experiment.experiment_id], order_by=["metrics.gain DESC"], max_results=4)
    reading = reading_of(finished)
    gains = {arm: mean(pair_gains(reading, arm, 1.0)) for arm in reading.study.methods}
    shown_first = [run.data.tags["arm"] for run in runs[:3]]
    assert [gains[arm] for arm in shown_first] == pytest.approx(sorted(gains.values(), reverse=True))
    assert sorted(shown_first) == sorted(gains)
    assert "gain" not in runs[3].data.metrics


def test_the_curves_are_those_of_the_first_endpoint_s_finalists_in_all_searches(
    finished: Path, once: str
) -> None:
    reading, found = reading_of(finished), shown(once)
    own, base = picked(reading, "sparse", 1.0), picked(reading, "tuned", 1.0)
    parent = parents_of(once)["sparse (confirm, 7 searches)"]

    def accuracy(runs: list[str], epoch: int) -> float:
        return mean(float(found[f"run {run_id}"].points["dense_test_accuracy", epoch][0]) for run_id in runs)

    for epoch in (1, 2):
        values = [accuracy(runs, epoch) for runs in own]
        gains = [100 * (value - accuracy(runs, epoch)) for value, runs in zip(values, base, strict=True)]
        points = {key: value for (key, step), (value, _) in parent.points.items() if step == epoch}
        assert points["dense_test_accuracy"] == pytest.approx(mean(values))
        assert points["dense_test_accuracy_standard_error"] == pytest.approx(stdev(values) / math.sqrt(7))
        assert points["dense_test_accuracy_gain"] == pytest.approx(mean(gains), abs=1e-9)
        assert points["dense_test_accuracy_gain_standard_error"] == pytest.approx(
            stdev(gains) / math.sqrt(7)
        )


def test_a_search_has_a_parent_and_its_candidates_can_be_sorted(finished: Path, once: str) -> None:
    reading, found, parents = reading_of(finished), shown(once), parents_of(once, "search")
    assert parents.keys() == {f"{arm}, search {k}" for arm in ("tuned", "sparse") for k in range(1, 8)}
    parent = parents["sparse, search 3"]
    below = {run.tags["candidate"]: run for run in found.values() if run.parent == key_of(found, parent)}
    assert below.keys() == {f"sparse~3-0.{i}" for i in range(3)}
    for candidate, (score,) in reading.plan.searched("sparse~3"):
        assert series(below[candidate.name], "validation_score") == {1: score}
        (other,) = series(below[candidate.name], "validation_score_at_r_0.1").values()
        (cohort,) = (it for it in reading.cohorts if it.candidate is candidate and it.phase == "search")
        assert other == reading.plan.results[cohort.runs[0]].score("validation", 0.1)
    scores = [score for _, (score,) in reading.plan.searched("sparse~3")]
    assert series(parent, "best_validation_score") == {3: max(scores)}
    assert "validation_score" not in {key for key, _ in parent.points}


def test_a_view_that_followed_several_searches_is_the_view_that_came_afterwards(
    finished: Path, once: str, uri: str, tmp_path: Path
) -> None:
    filling, view = Filling(finished, tmp_path / "store", 3), view_of(tmp_path / "store", uri)
    while filling.left:
        filling.step(most=24)
        view.update(live=True)
    synced(tmp_path / "store", uri)
    found, expected = shown(uri), shown(once)
    assert found.keys() == expected.keys()
    for key, run in expected.items():
        assert found[key] == run, key


def test_a_longer_ladder_keeps_a_parent_for_each_candidate_of_a_search(tmp_path: Path, uri: str) -> None:
    assert drive(study_of(search={"ladder": [1, 2]}), tmp_path).complete
    synced(tmp_path, uri)
    parents = parents_of(uri, "search")
    assert len(parents) == 2 * 7 * 3
    assert sum("validation_score" in {key for key, _ in run.points} for run in parents.values()) == 2 * 7 * 3
    twice = [run for run in parents.values() if run.tags["seeds"] == "2"]
    assert len(twice) == 2 * 7 * 2
    assert {run.tags["search"] for run in twice} == set("1234567")


def test_a_study_that_grows_by_searches_and_candidates_shows_what_it_shows_afterwards(
    tmp_path: Path, uri: str
) -> None:
    store, few = tmp_path / "store", {"seeds": 7}
    first = study_of(search={"replicates": 1}, confirm=few, analysis={"test": "paired-t"})
    assert drive(first, store).complete
    view = synced(store, uri)
    for search in ({"replicates": 3}, {"replicates": 3, "budget": 4, "finalists": 2}):
        grown = study_of(search=search, confirm=few, analysis={"test": "paired-t"})
        view.ledger.declare(grown, True)
        while not drive(grown, store, most=40).complete:
            view.update(live=True)
    synced(store, uri)
    late = database(tmp_path / "late" / "mlflow.db")
    synced(store, late)
    found, expected = shown(uri), shown(late)
    assert found.keys() == expected.keys()
    for key, run in expected.items():
        assert found[key] == run, key
    assert "sparse, finalist 2 (confirm, 3 searches)" in parents_of(uri)
    assert series(parents_of(uri, "search")["sparse, search 1"], "best_validation_score").keys() == {4}


# what an older version left


@pytest.mark.parametrize("searches", [1, 7])
def test_parents_with_gains_of_another_meaning_are_made_anew(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, searches: int
) -> None:
    seeds = 7 if searches == 1 else 1
    assert drive(study_of(search={"replicates": searches}, confirm={"seeds": seeds}), tmp_path).complete
    with monkeypatch.context() as old:
        old.setattr("sweep.views.mlflow.view.parent_key", lambda it: parent_key(it).removesuffix(" v2"))
        send = Experiment.send

        def send_shares(self: Experiment, run: Any, points: Any = (), *more: Any, **others: Any) -> None:
            gains = [Point(it.key, it.value / 100, it.step) if "gain" in it.key else it for it in points]
            send(self, run, gains, *more, **others)

        old.setattr(Experiment, "send", send_shares)
        synced(tmp_path, uri)
    before = shown(uri)
    synced(tmp_path, uri)  # `shown` finds no step with two values
    after = shown(uri)
    kept = {key for key in before if before[key].tags["phase"] == "search" or before[key].parent}
    assert after.keys() & before.keys() == kept
    assert len(after) == len(before)
    for parent in parents_of(uri).values():
        (old_parent,) = (it for it in before.values() if it.name == parent.name and not it.parent)
        for key, step in parent.points:
            times = 100 if "gain" in key else 1
            old_value = float(old_parent.points[key, step][0])
            assert float(parent.points[key, step][0]) == pytest.approx(times * old_value, nan_ok=True)


# a finalist for each endpoint, and one search


def test_each_finalist_of_one_search_has_the_figures_of_its_own_endpoint(tmp_path: Path, uri: str) -> None:
    finalists, seed, store = dict[float, str](), 0, tmp_path
    while len(set(finalists.values())) < 2:
        seed, store = seed + 1, tmp_path / f"seed-{seed + 1}"
        values = {**VALUES, "seed": seed, "search": {**VALUES["search"], "replicates": 1, "budget": 8}}
        plan = drive(Study("small", Contents.read({**values, "confirm": {"seeds": 7}})), store)
        finalists = {ratio: plan.picked("sparse", ratio)[0][0].name for ratio in RATIOS}
        assert seed < 20, "no search picks two finalists"
    synced(store, uri)
    reading, parents = reading_of(store), parents_of(uri)
    for ratio, suffix in RATIOS.items():
        parent, other = (
            parents[f"{finalists[ratio]} (confirm, 7 seeds)"],
            RATIOS[next(r for r in RATIOS if r != ratio)],
        )
        row = row_of(reading, "sparse", ratio)
        metrics = {key for key, _ in parent.points}
        assert last(parent, f"gain{suffix}") == pytest.approx(100 * (row.gain or 0))
        assert series(parent, f"p_holm{suffix}") == {7: row.p_holm}
        assert not metrics & {f"{name}{other}" for name in ("gain", "gain_low", "p_holm", "score")}
        assert parent.tags["shown_as"] == "sparse", "both stand in one line of the table of gains"
        assert parent.tags["picked_for"] == f"r = {ratio:g}"
        assert f"Picked by one search for r = {ratio:g}: " in parent.tags["mlflow.note.content"]


# looks


@pytest.mark.parametrize(("looks", "steps"), [([8, 10], {8, 10}), ("any", {10})])
def test_every_declared_look_has_its_figures_however_late_the_view_comes(
    tmp_path: Path, uri: str, looks: object, steps: set[int]
) -> None:
    study = study_of(
        search={"replicates": 1, "objective": "first"},
        confirm={"seeds": 10},
        analysis={"looks": looks},
    )
    assert drive(study, tmp_path / "finished").complete
    filling, view = Filling(tmp_path / "finished", tmp_path / "store", 1), view_of(tmp_path / "store", uri)
    while filling.left:
        filling.step()
        view.update(live=True)
    synced(tmp_path / "store", uri)
    late = database(tmp_path / "late" / "mlflow.db")
    synced(tmp_path / "store", late)
    assert shown(uri) == shown(late)
    (parent,) = (run for name, run in parents_of(uri).items() if name.startswith("sparse"))
    assert series(parent, "gain_low").keys() == series(parent, "p_holm").keys() == steps


def test_a_study_that_ends_early_is_shown_over_the_searches_that_it_had(tmp_path: Path, uri: str) -> None:
    study = study_of(
        confirm={"seeds": 1, "stop": "decided"},
        search={"replicates": 9},
        analysis={"looks": [8, 9], "margin": [100.0, 100.0]},
    )
    plan = drive(study, tmp_path)
    assert plan.decided
    synced(tmp_path, uri)
    assert "sparse (confirm, 8 searches)" in parents_of(uri)
    assert {run.status for run in shown(uri).values()} == {"FINISHED"}
    assert {run.tags["searches"] for run in parents_of(uri).values()} == {"8"}
    assert series(parents_of(uri)["sparse (confirm, 8 searches)"], "dense_test_accuracy").keys() == {1, 2}


# saved views


def test_the_saved_views_sort_arms_by_gain_in_points_and_candidates_by_validation_score(
    finished: Path, uri: str
) -> None:
    view = view_of(finished, uri)
    view.update(live=False, report=lambda *_: ("<p>page</p>", "note"))
    gains, search = (
        saved_view(view.experiment.tags[f"mlflow.sharedViewState.{key}"]) for key in ("gains", "search")
    )
    assert gains["name"] == "Gains in points, best first"
    assert gains["orderByKey"] == "metrics.`gain`"
    columns = ("gain", "p_holm", "gain_low", "gain_high", "better", "gain_at_r_0.1", "p_holm_at_r_0.1")
    assert {f"metrics.`{name}`" for name in columns} <= set(gains["selectedColumns"])
    assert set(gains["groupsExpanded"]) == {
        f"tag.shown_as.{name}" for name in ("dense (control)", "tuned (baseline)", "sparse")
    }
    client, kept = MlflowClient(uri), search["searchFilter"]
    rows = client.search_runs([view.experiment.id], kept, order_by=[f"{search['orderByKey']} DESC"])
    scores = [row.data.metrics["validation_score"] for row in rows]
    assert len(rows) == 2 * 7 * 3
    assert scores == sorted(scores, reverse=True)
    assert "metrics.`validation_score_at_r_0.1`" in search["selectedColumns"]


def saved_view(tag: str) -> dict[str, Any]:
    """A saved view as MLflow's page reads it from an experiment's tag, with its name."""
    saved = json.loads(tag)
    packed = base64.b64decode(saved["state"].removeprefix("deflate;"))
    return {"name": saved["name"], **json.loads(zlib.decompress(packed))}
