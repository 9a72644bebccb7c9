"""The paper's second family from study to export, as a user has it.

Every arm of the paper and of its referee is trained on two sets through a real cluster, and shown in
MLflow, the report and the export.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

from sweep.study import shipped
from tests.sweeps import sweep
from tests.views import MLFLOWS_OWN, PARENT, database, shown

pytestmark = [MLFLOWS_OWN, pytest.mark.slow]
TASKS = ("breast-cancer", "wine")
ARMS = ("dense", "dense-start", "dense-end", "set", "static-sparse", "npset", "npset-frozen")
SEEDS = 2


def small() -> dict[str, Any]:
    """Return the shipped study with fewer and shorter runs of smaller networks, on its smaller two sets.

    No arm is left out.
    """
    values = yaml.safe_load(shipped()["connectivity"].read_text())
    values["task"] |= {"model": "mlp-40-30", "epochs": 3, "evaluate_every": 3, "train_size": 80}
    values["tasks"] = {name: values["tasks"][name] for name in TASKS}
    for arm in values["arms"].values():
        policy = arm["policy"]
        policy |= {"epsilon": {"low": 2, "high": 6}} if "epsilon" in policy else {}
        policy |= {"start": 1, "period": 1} if "start" in policy else {}
    values["search"] |= {"budget": 2, "generation": 2, "ladder": [1]}
    values["confirm"] = {"seeds": SEEDS}
    values["analysis"]["test"] = "paired-t"  # two pairs are nothing that signs could be flipped of
    values["resources"] |= {"commit_share": 1}
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the finished sweep and its view."""
    root = tmp_path_factory.mktemp("family")
    (root / "family.yaml").write_text(yaml.safe_dump(small(), sort_keys=False))
    uri = {"MLFLOW_TRACKING_URI": database(root / "view" / "mlflow.db")}
    done = sweep("run", root / "family.yaml", "--store", root, env=uri)
    assert done.returncode == 0, done.stderr
    assert sweep("sync", root / "family.yaml", "--store", root, env=uri).returncode == 0
    return root


def test_every_arm_has_its_runs_on_every_task(folder: Path) -> None:
    status = json.loads(sweep("status", folder / "family.yaml", "--store", folder, "--json").stdout)
    assert [arm["arm"] for arm in status["arms"]] == [f"{arm}@{task}" for task in TASKS for arm in ARMS]
    assert {(arm["search_done"], arm["confirm_done"], arm["failed"]) for arm in status["arms"]} == {
        (2, SEEDS, 0)
    }


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    done = sweep("export", folder / "family.yaml", "--store", folder, "--to", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder / "out"


def table(exported: Path, name: str) -> Any:
    return pd.read_parquet(exported / f"{name}.parquet")


def test_the_export_has_the_columns_of_each_kind_of_policy_and_null_elsewhere(exported: Path) -> None:
    runs = table(exported, "runs").set_index("run_id")
    epochs = table(exported, "epochs").join(runs[["arm", "phase", "task"]], on="run_id")
    assert set(epochs["task"]) == set(TASKS)
    sparse = epochs["arm"].str.match("set@|static-sparse@|npset")
    assert epochs.loc[sparse, ["connections", "active_neurons", "parameters"]].notna().all(axis=None)
    assert (
        epochs.loc[sparse, ["keep_ratio", "reset", "cycle", "smoothed_train_accuracy"]].isna().all(axis=None)
    )
    assert epochs.loc[~sparse, ["connections", "active_neurons"]].isna().all(axis=None)
    assert (epochs.loc[~sparse, "keep_ratio"] == 1).all()


@pytest.mark.parametrize(
    ("matched", "arm", "end"), [("dense-start", "set", "first"), ("dense-end", "npset", "last")]
)
@pytest.mark.parametrize("task", TASKS)
def test_a_matched_network_has_the_parameters_of_the_arm_it_is_matched_to(
    exported: Path, matched: str, arm: str, end: str, task: str
) -> None:
    runs = table(exported, "runs").set_index("run_id")
    epochs = table(exported, "epochs").join(runs[["arm", "phase"]], on="run_id")
    counts = (
        epochs[epochs["phase"] == "confirm"]
        .groupby(["arm", "run_id"])["parameters"]
        .agg(["first", "last"])
        .groupby("arm")
        .mean()
    )
    theirs, own = counts.at[f"{arm}@{task}", end], counts.at[f"{matched}@{task}", "last"]
    assert own == pytest.approx(theirs, rel=0.1)  # a network of two layers of a few neurons can be no nearer
    assert own < counts.at[f"dense@{task}", "last"]


@pytest.mark.parametrize(
    ("control", "arm", "settings"),
    [
        ("static-sparse", "set", ["policy.epsilon"]),
        ("npset-frozen", "npset", ["policy.epsilon", "policy.percentile"]),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_a_control_without_rewiring_has_the_settings_of_the_finalist_it_is_a_control_of(
    exported: Path, control: str, arm: str, settings: list[str], task: str
) -> None:
    candidates = table(exported, "candidates")
    theirs = candidates[(candidates["arm"] == f"{arm}@{task}") & (candidates["phase"] == "confirm")]
    own = candidates[candidates["arm"] == f"{control}@{task}"]
    assert len(own) == 3  # two of the search and the finalist
    assert (own[settings] == theirs[settings].iloc[0]).all(axis=None)


def test_the_comparisons_are_the_referees_questions_and_are_all_there(exported: Path) -> None:
    compared = table(exported, "comparisons")
    family = compared[compared["role"] == "family"]
    asked = {
        "set": {"dense", "dense-start", "static-sparse"},
        "npset": {"dense", "dense-end", "npset-frozen"},
    }
    assert {
        (arm, reference) for arm, reference in zip(family["arm"], family["reference_arm"], strict=True)
    } == {
        (f"{arm}@{task}", f"{other}@{task}")
        for task in TASKS
        for arm, others in asked.items()
        for other in others
    }
    assert family[["gain", "ci_low", "p_value", "p_holm"]].notna().all(axis=None)
    across = table(exported, "across")
    tested = across[across["role"] == "family"]
    assert len(tested) == 6
    assert not tested["claimable"].any()
    assert (tested["tasks"] == 2).all()


def test_mlflow_has_every_arm_with_its_seeds_its_gain_and_the_columns_that_apply(folder: Path) -> None:
    uri = database(folder / "view" / "mlflow.db")
    found = shown(uri, "family")
    parents = {run.tags["candidate"]: key for key, run in found.items() if run.tags["kind"] == "confirm"}
    assert {found[key].tags["arm"] for key in parents.values()} == {
        f"{arm}@{task}" for task in TASKS for arm in ARMS
    }
    for key in parents.values():
        run = found[key]
        assert run.status == "FINISHED"
        assert run.tags["task"] in TASKS
        metrics = {name for name, _ in run.points}
        assert {"gain", "parameters"} <= metrics
        moves = run.tags["arm"].partition("@")[0] not in ("dense", "dense-start", "dense-end")
        assert ("connections" in metrics) == ("active_neurons" in metrics) == moves
        assert ("keep_ratio" in metrics) != moves
        assert sum(child.parent == key for child in found.values()) == SEEDS
        asked = {"set": {"dense-start", "static-sparse"}, "npset": {"dense-end", "npset-frozen"}}.get(
            run.tags["arm"].partition("@")[0], set()
        )
        assert {name for name in metrics if name.startswith("p_holm_over_")} == {
            f"p_holm_over_{other}" for other in asked
        }
        assert {f"gain_over_{other}" for other in asked} <= metrics
    experiment = MlflowClient(uri).get_experiment_by_name("family")
    assert experiment
    assert "Across tasks" in experiment.tags["mlflow.note.content"]
    assert (
        PARENT
        in next(
            iter(MlflowClient(uri).search_runs([experiment.experiment_id], "tags.kind = 'run'"))
        ).data.tags
    )


def test_the_report_shows_each_task_the_matched_sizes_and_that_two_tasks_are_too_few(folder: Path) -> None:
    done = sweep("report", folder / "family.yaml", "--store", folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "family-report.html").read_text()
    for text in (done.stdout, page):
        assert "too few" in text
        assert all(task in text for task in TASKS)
        assert "ested over other arms" in text
    assert all(
        f"Gains over {arm}" in page or f"over {arm}" in page
        for arm in ("dense-start", "static-sparse", "dense-end", "npset-frozen")
    )
    assert "keep ratio r" not in page  # nothing here is read at another ratio than 1
