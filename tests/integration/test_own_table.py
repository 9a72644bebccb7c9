"""A file of one's own through the trainer's command, and through the worker of a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.cluster.worker import Worker
from tests.conftest import run_values, train
from trainer import data
from trainer.spec import RunSpec
from trainer.store import open_store
from trainer.worker import Job


@pytest.fixture
def declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Two clouds of points in five dimensions, of very different scales, that a line can tell apart."""
    drawn = np.random.default_rng(1)
    labels = np.arange(120) % 2
    points = (drawn.normal(0, 1, (120, 5)) + 2 * labels[:, None]) * [1, 1000, 0.001, 5, 1] + [
        0,
        1e5,
        0,
        0,
        -40,
    ]
    lines = [
        ",".join(map(str, [*row, "ab"[label]])) for row, label in zip(points.tolist(), labels, strict=True)
    ]
    (tmp_path / "clouds.csv").write_text("\n".join(["u,v,w,x,y,kind", *lines]) + "\n")
    assert (
        data.main(["clouds.csv", "--target", "kind", "--data-dir", str(tmp_path), "--labels", "a", "b"]) == 0
    )
    return json.loads(capsys.readouterr().out)


SMALL: dict[str, Any] = {
    "model": "mlp-32-32",
    "epochs": 8,
    "batch_size": 8,
    "learning_rate": 0.02,
    "train_size": None,
    "init_scale": 0.3,
}


def run_of(declared: dict[str, Any] | str, **task: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {**SMALL, "data": declared, **task}
    return run_values({"name": "dense"}, **whole)


def test_a_file_of_ones_own_is_trained_on_by_the_command(tmp_path: Path, declared: dict[str, Any]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_of(declared)))
    done = train(tmp_path / "run.json", tmp_path / "store", "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 8
    assert rows[-1]["test_accuracy"] > 0.9


def test_a_resampled_run_is_tested_on_the_rows_of_its_seed(tmp_path: Path, declared: dict[str, Any]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_of(declared, resample=0.25, validation=0.2, epochs=2)))
    done = train(tmp_path / "run.json", tmp_path / "store", "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    spec = RunSpec.read(run_of(declared, resample=0.25, validation=0.2, epochs=2))
    assert (len(data.split(spec.task, spec.seed).test), data.held_out_of(spec.task)) == (30, 18)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[-1]["test_accuracy"] * 30 == pytest.approx(round(rows[-1]["test_accuracy"] * 30))
    assert rows[-1]["validation_accuracy"] * 18 == pytest.approx(round(rows[-1]["validation_accuracy"] * 18))


def test_the_command_names_what_is_wrong_with_the_file(tmp_path: Path, declared: dict[str, Any]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_of(declared)))
    (tmp_path / "clouds.csv").write_text((tmp_path / "clouds.csv").read_text() + "1,2,3,4,5,a\n")
    done = train(tmp_path / "run.json", tmp_path / "store", "--data-dir", str(tmp_path))
    assert done.returncode == 3
    assert "clouds.csv: checksum is " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_trains_runs_of_several_tables_one_after_the_other(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    store = open_store(str(tmp_path / "store"))
    for given in (declared, "wine", {**declared, "test": 0.5}):
        spec = RunSpec.read(run_of(given, epochs=1))
        worker = Worker(
            Job(spec.run_id, spec.to_json(), store.where(), str(tmp_path), "cpu", 1, 0.0, keep_weights=False)
        )
        report: Any
        while (report := worker.step()).state in ("began", "training"):
            pass
        assert report.state == "ended", report
        assert report.result.classes == data.facts(spec.task.data).classes
