"""MLflow's contents for studies that are not plain.

They grow, share runs, have numbers that are none, wild words, failures, other ledgers or damage.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sweep.ledger.ledger import Ledger
from sweep.planning.values import Failure, Proposal
from sweep.study import Candidate, Study
from sweep.study.contents import Contents
from sweep.views.mlflow.client import OWNER
from sweep.views.reading import Reading
from sweep.views.report.page import page_and_note
from tests.loops import begin, drive, short_values
from tests.sweeps import study_values
from tests.views import MLFLOWS_OWN, Filling, Shown, database, shown, synced, view_of
from trainer.rows import EpochRow, from_parquet, to_parquet
from trainer.store import digest, seal, unseal

pytestmark = MLFLOWS_OWN
HARD = "¿Hilft <script>alert('x')</script> \N{SNOWMAN} & “Zyklen”?\n\nzweite Zeile; ümlaut"
ADDITIVE = study_values()["arms"]["additive"]
PLAIN: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "saw": {"policy": {"name": "sawtooth", "period": 2, "decay": 0.2}},
}
GROWN: dict[str, Any] = {**PLAIN, "half": {"policy": {"name": "fixed", "ratio": 0.5}}}


def plain_study(arms: dict[str, Any] | None = None, seeds: int = 6) -> Study:
    """Two arms without a search."""
    values = short_values(confirm={"seeds": seeds}, description=HARD)
    return Study("small", Contents.read({**values, "arms": arms or PLAIN}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert drive(plain_study(), root).finished.total() == 12
    return root


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return database(tmp_path / "view" / "mlflow.db")


def folders(store: Path, candidate: str) -> list[Path]:
    """The folders of a confirmed candidate's runs, in the order of the pool."""
    reading = Reading(Ledger(str(store), "small", print))
    (cohort,) = (it for it in reading.cohorts if it.candidate.name == candidate and it.phase == "confirm")
    return [store / "small" / "runs" / run_id for run_id in cohort.runs]


def patch_rows(folder: Path, **values: list[Any]) -> None:
    """A finished run whose rows say something else, and whose outcome stands for them."""
    rows = from_parquet(EpochRow, (folder / "epochs.parquet").read_bytes())
    data = to_parquet(
        EpochRow,
        [replace(row, **{key: them[i] for key, them in values.items()}) for i, row in enumerate(rows)],
    )
    body = unseal((folder / "outcome.json").read_bytes())
    file: dict[str, Any] = {
        "name": f"attempt-1/epochs-{len(rows)}-{digest(data)[:16]}.parquet",
        "bytes": len(data),
    }
    for name in (file["name"], "epochs.parquet"):
        (folder / name).write_bytes(data)
    file["sha256"] = digest(data)
    (folder / "outcome.json").write_bytes(seal({**body, "files": {**body["files"], "epochs": file}}))


def parent_of(uri: str, candidate: str, kind: str = "confirm") -> Shown:
    cohorts = (run for key, run in shown(uri).items() if key.startswith("cohort "))
    (found,) = (run for run in cohorts if (run.tags["candidate"], run.tags["kind"]) == (candidate, kind))
    return found


def series(run: Shown, key: str) -> dict[int, float | str]:
    return {step: value for (name, step), (value, _) in sorted(run.points.items()) if name == key}


# growth


def test_a_study_that_grows_shows_what_it_shows_afterwards(store: Path, uri: str, tmp_path: Path) -> None:
    view = view_of(store, uri)
    view.update(live=False)  # the comparison was looked at
    assert series(parent_of(uri, "saw"), "pairs") == {k: k for k in range(1, 7)}
    for study in (plain_study(seeds=12), plain_study(GROWN, seeds=12)):
        view.ledger.declare(study, True)
        view.update(live=True)
        while not drive(study, store, most=5).complete:
            view.update(live=True)
    synced(store, uri)
    after = database(tmp_path / "after" / "mlflow.db")
    synced(store, after)
    assert shown(uri) == shown(after)
    assert {run.tags["seeds"] for run in shown(uri).values() if run.parent is None} == {"12"}
    # after the first look the gain is over all seeds, and tested so that it may be looked at at any time
    assert series(parent_of(uri, "saw"), "pairs") == {k: k for k in range(1, 13)}
    assert series(parent_of(uri, "half"), "pairs") == {k: k for k in range(1, 13)}
    assert series(parent_of(uri, "saw"), "p_holm").keys() == {12}
    gains = series(parent_of(uri, "saw"), "gain")
    results = Reading(view.ledger).plan.results
    scores = [
        [results[it.name].score("test", 1.0) for it in folders(store, arm)] for arm in ("saw", "dense")
    ]
    differences = [100 * (a - b) for a, b in zip(*scores, strict=True)]
    assert gains[6] == pytest.approx(math.fsum(differences[:6]) / 6)
    assert gains[12] == pytest.approx(math.fsum(differences) / 12)


# equal candidates


def test_a_run_belongs_to_the_first_of_its_candidates_and_moves_when_an_earlier_one_appears(
    tmp_path: Path, uri: str
) -> None:
    values = short_values(search={"ladder": [1]}, confirm={"seeds": 2}, analysis={"family": ["saw"]})
    study = Study("small", Contents.read({**values, "arms": {**PLAIN, "a": ADDITIVE, "b": ADDITIVE}}))
    source, store = tmp_path / "source", tmp_path / "store"
    ledger = Ledger(str(source), "small", print)
    begin(study, ledger)
    for arm, generation, rates in (
        ("a", 0, [0.05, 0.1]),
        ("b", 0, [0.2, 0.2]),
        ("a", 1, [0.2, 0.3]),
        ("b", 1, [0.05, 0.06]),
    ):
        ledger.record(
            study, Proposal(arm, generation, 2, []), [{"task.learning_rate": rate} for rate in rates]
        )
    assert drive(study, source).complete
    filling, view = Filling(source, store, 1), view_of(store, uri)
    shared = study.run(
        Candidate("b", "", {"task.learning_rate": 0.2}), "search", study.arms["b"].search_seeds[0]
    ).run_id
    filling.finish(shared)
    view.update(live=True)
    # the other arm's first generation has not finished
    assert shown(uri)[f"run {shared}"].tags["candidate"] == "b-0.0"
    while filling.left:
        filling.step()
        view.update(live=True)
    assert shown(uri)[f"run {shared}"].tags["candidate"] == "a-1.0"
    synced(store, uri)
    after = database(tmp_path / "after" / "mlflow.db")
    synced(store, after)
    assert shown(uri) == shown(after)
    assert {key for key in shown(uri) if key.startswith("run ")} == {
        f"run {path.name}" for path in (store / "small" / "runs").iterdir()
    }
    twin = parent_of(uri, "b-0.1", "search")
    assert twin.tags["shared_with"] == "a-1.0"
    assert twin.points == parent_of(uri, "b-0.0", "search").points


# numbers and words


def test_infinities_are_left_out_and_told_and_what_is_no_number_is_kept(store: Path, uri: str) -> None:
    first, second, *_ = folders(store, "saw")
    patch_rows(first, test_loss=[None, math.inf, -math.inf])
    patch_rows(second, test_loss=[None, 2.0, math.nan])
    synced(store, uri)
    found = shown(uri)
    assert ("test_loss", 2) not in found[f"run {first.name}"].points
    assert found[f"run {first.name}"].tags["not_sent"] == "test_loss is inf at step 2"
    assert series(found[f"run {second.name}"], "test_loss") == {2: 2.0, 3: "nan"}
    assert "not_sent" not in found[f"run {second.name}"].tags
    parent = parent_of(uri, "saw")
    assert parent.tags["not_sent"] == "test_loss is inf at step 2"
    assert series(parent, "test_loss") == {}
    assert not [key for run in found.values() for key, _ in run.points if "validation" in key], (
        "nothing is held out"
    )
    assert all(
        abs(value) < 1e300
        for run in found.values()
        for value, _ in run.points.values()
        if isinstance(value, float)
    )


def test_words_of_people_reach_mlflow_unchanged(store: Path, uri: str) -> None:
    view, (broken, *_) = view_of(store, uri), folders(store, "saw")
    (broken / "outcome.json").unlink()
    view.ledger.fail(broken.name, Failure(HARD), [])
    # the description is longer than MLflow takes
    view.update(
        live=False, report=lambda reading, _: (f"<p>{reading.study.contents.description}</p>", HARD * 400)
    )
    client, run = MlflowClient(uri), view.experiment.runs["report"]
    assert shown(uri)[f"run {broken.name}"].tags["reason"] == HARD
    note = client.get_experiment(view.experiment.id).tags["mlflow.note.content"]
    assert HARD * 100 in note
    assert run.id in note
    assert Path(client.download_artifacts(run.id, "report.html")).read_text() == f"<p>{HARD}</p>"


# several tasks


def test_a_study_of_several_tasks_has_gains_over_the_baseline_of_each_and_says_what_holds_across_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where the runs look for data
    own = table_of_ones_own(tmp_path / "data" / "own.csv")
    values = short_values(
        task={"model": "mlp-12", "batch_size": 8, "train_size": 40, "init_scale": 0.3}, confirm={"seeds": 7}
    )
    arms: dict[str, Any] = {"dense": PLAIN["dense"], "set": {"policy": {"name": "set", "epsilon": 4}}}
    tasks: dict[str, Any] = {"digits": {}, "own": {"data": own, "model": "mlp-8"}}
    study = Study("small", Contents.read({**values, "arms": arms, "tasks": tasks}))
    store = tmp_path / "store"
    assert drive(study, store).complete
    view = view_of(store, uri)
    view.update(live=False, report=page_and_note)
    parents = {run.tags["candidate"]: run for run in shown(uri).values() if run.tags["kind"] == "confirm"}
    assert set(parents) == {"dense@digits", "set@digits", "dense@own", "set@own"}
    rows = {row.arm: row for row in Reading(view.ledger).compare()}
    for name, run in parents.items():
        assert run.tags["task"] == name.partition("@")[2]
        assert run.tags["role"] == ("baseline" if name.startswith("dense") else "family")
        assert series(run, "gain")[7] == (
            0 if name.startswith("dense") else pytest.approx(100 * (rows[name].gain or 0))
        )
        moved = (
            {"connections", "active_neurons"} if name.startswith("set") else {"keep_ratio", "cycle", "reset"}
        )
        children = [
            it for it in shown(uri).values() if it.tags["kind"] == "run" and it.tags["candidate"] == name
        ]
        assert {key for it in children for key, _ in it.points} & {
            "connections",
            "active_neurons",
            "keep_ratio",
            "cycle",
            "reset",
        } == moved
        assert "parameters" in {key for key, _ in run.points}
        assert {it.tags["task"] for it in children} == {run.tags["task"]}
    assert json.loads(parents["set@own"].params["task.data"]) | own == json.loads(
        parents["set@own"].params["task.data"]
    )
    assert parents["set@digits"].params["task.data"] == "digits"
    assert parents["set@digits"].params["task.resample"] == "None"
    note = MlflowClient(uri).get_experiment(view.experiment.id).tags["mlflow.note.content"]
    assert note.startswith("2 tasks are too few to claim anything across tasks")
    assert "| set | dense | 2 |" in note
    assert "On own:" in note


def table_of_ones_own(path: Path) -> dict[str, Any]:
    """A file of 60 rows and two classes, as a study declares it."""
    draw, lines = random.Random(4), ["a,b,kind"]
    lines += [f"{draw.gauss(i % 2):.3f},{draw.gauss(0):.3f},{i % 2}" for i in range(60)]
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return {"file": path.name, "target": "kind", "rows": 60, "inputs": 2, "classes": 2, "checksum": checksum}


# how runs stand


def test_nothing_runs_for_mlflow_once_nobody_drives(finished: Path, uri: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    filling = Filling(finished, store, 1)
    runs = [it.name for it in folders(finished, "saw")]
    filling.finish(runs[0])
    filling.begin(runs[1])
    filling.begin(runs[2])
    view = view_of(store, uri)
    view.ledger.fail(runs[2], Failure("no such luck"), [])

    def standing() -> list[str]:
        return [shown(uri)[f"run {run_id}"].status for run_id in runs[:3]] + [parent_of(uri, "saw").status]

    view.update(live=True)
    assert standing() == ["FINISHED", "RUNNING", "FAILED", "RUNNING"]
    assert len(shown(uri)) == 4, "runs that nobody began are not there"
    view.update(live=False)
    assert standing() == ["FINISHED", "KILLED", "FAILED", "FAILED"]
    for run_id in list(filling.left):
        filling.finish(run_id)
    synced(store, uri)
    assert {run.status for run in shown(uri).values()} == {"FINISHED"}
    assert {run.tags.get("reason", "") for run in shown(uri).values()} == {""}


@pytest.mark.parametrize("what", ["epochs", "endpoints", "outcome"])
def test_a_damaged_run_is_named_and_hides_no_other(store: Path, uri: str, what: str) -> None:
    damaged = folders(store, "dense")[2]
    for path in damaged.rglob(f"{what}*"):
        path.write_bytes(path.read_bytes()[:-7])
    said: list[str] = []
    assert (view := view_of(store, uri, said)).update(live=False)
    assert view.update(live=False) == 0
    assert len([line for line in said if damaged.name in line]) == 1
    whole = {f"run {it.name}" for it in folders(store, "saw")}
    assert all(
        shown(uri)[key].status == "FINISHED" and ("train_loss", 3) in shown(uri)[key].points for key in whole
    )
    assert series(parent_of(uri, "saw"), "train_loss").keys() == {1, 2, 3}


# experiments


def test_a_deleted_experiment_comes_back(store: Path, uri: str) -> None:
    view = synced(store, uri)
    before, client = shown(uri), MlflowClient(uri)
    client.delete_experiment(view.experiment.id)
    synced(store, uri)
    assert shown(uri) == before


def test_the_experiment_of_another_ledger_is_left_alone(store: Path, finished: Path, uri: str) -> None:
    synced(finished, uri)
    before = shown(uri)
    shutil.rmtree(folders(store, "saw")[0])
    synced(store, uri)
    assert shown(uri) == before
    assert len(shown(uri, f"small @ {store / 'small'}")) == len(before) - 1


def test_a_store_that_was_moved_takes_its_database_along_and_keeps_its_files_where_it_is(
    store: Path, tmp_path: Path
) -> None:
    synced(store, database(store / "mlflow.db"))
    before, moved = shown(database(store / "mlflow.db")), store.rename(tmp_path / "moved")
    uri = database(moved / "mlflow.db")
    view = synced(moved, uri)
    assert shown(uri) == before
    assert not store.exists()
    (experiment,) = (it for it in MlflowClient(uri).search_experiments() if OWNER in it.tags)
    assert experiment.tags[OWNER] == str(moved / "small")
    assert all(
        (moved / "mlflow-artifacts" / "small" / it.id).is_dir()
        for key, it in view.experiment.runs.items()
        if key.startswith("run ")
    )
