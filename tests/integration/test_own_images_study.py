"""The first paper's study from images of one's own to report and export, as a user has it.

The shipped study is trained through a real cluster, with fewer and shorter runs of a smaller network on
a few pictures. No arm is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from sweep.study import shipped
from tests.pictures import describe, write_pngs
from tests.sweeps import sweep

pytestmark = pytest.mark.slow
SEARCHES = 2


def small(images: dict[str, Any]) -> dict[str, Any]:
    values = yaml.safe_load(shipped()["cifar10-short"].read_text())
    values["task"] |= {"data": images, "model": "wrn-10-1", "epochs": 3, "batch_size": 8}
    values["search"] |= {"replicates": SEARCHES, "budget": 2, "generation": 2, "validation": 0.25}
    # two pairs are nothing that signs could be flipped of
    values["analysis"]["test"] = "paired-t"
    values["resources"] = {"cpus": 1}
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the finished sweep, its page and its export."""
    root = tmp_path_factory.mktemp("short")
    write_pngs(root / "data" / "pictures")
    images = json.loads(describe(root / "data", "pictures").stdout)
    (root / "short.yaml").write_text(yaml.safe_dump(small(images), sort_keys=False))
    place = [root / "short.yaml", "--store", root / "store"]
    done = sweep("run", *place, "--data-dir", root / "data", "--mlflow-uri", "none")
    assert done.returncode == 0, done.stderr
    assert sweep("report", *place).returncode == 0
    assert sweep("export", *place, "--to", root / "out").returncode == 0
    return root


def test_every_arm_is_searched_confirmed_and_compared_on_the_images(folder: Path) -> None:
    arms = yaml.safe_load((folder / "short.yaml").read_text())["arms"]
    runs = pq.read_table(folder / "out" / "runs.parquet").to_pylist()
    confirmed = {run["arm"] for run in runs if run["phase"] == "confirm"}
    assert confirmed == set(arms)
    assert {run["state"] for run in runs} <= {"completed", "collapsed", "diverged"}
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["complete"]
    tested = [row for row in report["comparisons"] if row["role"] == "family"]
    assert len(tested) == 8
    assert all(row["pairs"] == SEARCHES and row["p_holm"] is not None for row in tested)


def test_the_images_are_decoded_once_for_the_store(folder: Path) -> None:
    assert len(list((folder / "store" / "decoded").iterdir())) == 1


def test_the_paper_s_figures_stand_on_the_page(folder: Path) -> None:
    page = (folder / "store" / "short-report.html").read_text()
    assert "Beside the paper" in page
    for figure in ("86.90", "87.97", "88.02"):
        assert f">{figure}</td>" in page
